"""Makes figures small: fewer points that look the same, and distributions that can be added.

A curve of many points is thinned to a thousand without losing an extreme. A distribution is a
histogram of logarithmic buckets: those of days and weeks can be added, and the distribution
function drawn from the sum is exact to one percent of the value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

POINTS = 1000
"""The most points of a curve."""
BUCKET_RATIO = 1.02
"""The limits of bucket n are this to the power of n - ½ and of n + ½."""

_SMALLEST = 1e-9
_LOG_RATIO = math.log(BUCKET_RATIO)


def thin(values: Sequence[float], points: int = POINTS) -> list[int]:
    """Return, in order, the places of at most ``points`` values that keep the shape of all.

    Those are the first, the last, and the least and the greatest of each of equally many
    neighbours.
    """
    count = len(values)
    if count <= points:
        return list(range(count))
    buckets = (points - 2) // 2
    kept = {0, count - 1}
    for bucket in range(buckets):
        places = range(bucket * count // buckets, (bucket + 1) * count // buckets)
        kept.add(min(places, key=values.__getitem__))
        kept.add(max(places, key=values.__getitem__))
    return sorted(kept)


def histogram(values: Iterable[float]) -> list[int]:
    """Return a histogram as ``[bucket, count, step to the next bucket, count, …]``.

    Values below a billionth are counted as that.
    """
    counts = Counter(round(math.log(max(value, _SMALLEST)) / _LOG_RATIO) for value in values)
    flat = []
    before = 0
    for bucket in sorted(counts):
        flat += [bucket - before, counts[bucket]]
        before = bucket
    return flat


def significant(value: float, digits: int = 4) -> float:
    """Return ``value`` with so many significant digits, which is what a figure can show."""
    return float(f"{value:.{digits}g}")
