"""What may make a comparison worth less than it looks, each with advice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmeasure.analysis.metrics import size_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from perfmeasure.analysis.comparison import Comparison
    from perfmeasure.analysis.datasets import Dataset

_ENOUGH = 100
_UNLEARNED_SHARE = 0.05
_DRIFT = 0.10
_DRIFT_DEVIATIONS = 3.3
_LIKENESS = 0.3
_MIX_SHARE = 0.05
_FAILED_SHARE = 0.2
_NAMED = 4


def cautions(a: Dataset, b: Dataset, found: Sequence[Comparison]) -> list[str]:
    """Return the warnings about a comparison of ``a`` with ``b``, the gravest first."""
    said: list[str] = []
    for dataset in (a, b):
        said += _alone(dataset)
    said += _together(a, b)
    few = [each.name for each in found if not each.is_enough]
    if few:
        said.append(
            f"{len(few)} of {len(found)} metrics have too few values for an interval "
            f"({', '.join(few[:_NAMED])}{', …' if len(few) > _NAMED else ''}). "
            "Take their effect as a hint only, and measure longer"
        )
    return said


def _alone(dataset: Dataset) -> Iterator[str]:
    label, rows = dataset.label, dataset.rows
    failed = sum(row["error_code"] is not None for row in rows)
    if not rows:
        yield f"{label} holds no transfer that ended. Look at `perfmeasure report` of it"
        return
    if failed == len(rows):
        yield f"in {label} every transfer failed. Only the success rate can be compared"
    elif failed > len(rows) * _FAILED_SHARE:
        yield (
            f"in {label} {failed} of {len(rows)} transfers failed: its times are those of the "
            "fortunate ones. Look at the success rate first"
        )
    if len(rows) < _ENOUGH:
        yield (
            f"{label} has {len(rows)} transfers: only large differences can show. "
            f"Measure until there are some hundreds"
        )
    if dataset.cbt_unset > dataset.circuits * _UNLEARNED_SHARE:
        yield (
            f"in {label} {dataset.cbt_unset} of {dataset.circuits} circuits were launched before "
            "tor had learned its circuit build timeout. Leave them out with "
            "`perfmeasure filter --exclude-cbt`, or measure longer"
        )
    yield from _in_time(dataset)


def _in_time(dataset: Dataset) -> Iterator[str]:
    times = [row for row in dataset.rows if row["time_to_first_byte"] is not None]
    values = np.array([row["time_to_first_byte"] for row in times])
    if len(values) < 30:
        return
    ranks = _ranks(values)
    trend = float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) if ranks.std() else 0.0
    half = len(values) // 2
    before, after = float(np.median(values[:half])), float(np.median(values[half:]))
    change = after / before - 1 if before else 0.0
    if abs(trend) * (len(values) - 1) ** 0.5 > _DRIFT_DEVIATIONS and abs(change) > _DRIFT:
        yield (
            f"{dataset.label} drifts: the time to first byte is {change:+.0%} in its second half. "
            "Compare spans in which it is steady (`perfmeasure filter --from --to`)"
        )
        return
    middle = ranks - ranks.mean()
    likeness = float((middle[1:] * middle[:-1]).sum() / (middle**2).sum()) if ranks.std() else 0.0
    if likeness > _LIKENESS:
        yield (
            f"in {dataset.label} transfers resemble the one before (correlation {likeness:.2f}): "
            "they count for fewer than they are, and the intervals are too narrow. Measure over "
            "more days, or leave more time between transfers"
        )


def _ranks(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the rank of each value; equal values share the middle of theirs."""
    ordered = np.sort(values)
    return (
        np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    ) / 2


def _together(a: Dataset, b: Dataset) -> Iterator[str]:
    if not (a.rows and b.rows):
        return
    if a.rows == b.rows:
        yield f"{a.label} and {b.label} hold the same transfers. Look at what you gave"
        return
    if a.hosts != b.hosts:
        yield (
            f"the hosts differ ({_names(a)}; {_names(b)}): what differs may be the place. "
            "Measure both from the same host"
        )
    spans = [(each.rows[0]["start"], each.rows[-1]["start"]) for each in (a, b)]
    if spans[0][1] < spans[1][0] or spans[1][1] < spans[0][0]:
        yield (
            "the datasets are of different times: what differs may be the hour or the day. "
            "Measure both at once, or in turns"
        )
    shares = [_mix(each.rows) for each in (a, b)]
    for name in sorted(shares[0].keys() | shares[1].keys()):
        first, second = (share.get(name, 0.0) for share in shares)
        if abs(first - second) > _MIX_SHARE:
            yield (
                f"the datasets are mixed differently ({name}: {first:.0%} of {a.label}, "
                f"{second:.0%} of {b.label}). Trust what is compared by size and destination"
            )
            break
    else:
        if len({row["filesize_bytes"] for row in a.rows}) > 1:
            yield (
                "several sizes are taken together in the times to last byte and the throughput. "
                "Look at them by size, too"
            )


def _names(dataset: Dataset) -> str:
    hosts = ", ".join(sorted(nickname for nickname, _ in dataset.hosts))
    return f"{dataset.label}: {hosts or 'none'}"


def _mix(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    counts = Counter(f"{row['server']}, {size_name(row['filesize_bytes'])}" for row in rows)
    return {name: count / len(rows) for name, count in counts.items()}
