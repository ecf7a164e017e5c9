"""The metrics of a comparison: which values of which transfers, and what is taken of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Row = Mapping[str, Any]

_MINIMUM = 8
_MINIMUM_OF_A_TAIL = 100


class Values:
    """The values of some transfers of one dataset, ascending.

    ``places`` are the places of their transfers among the dataset's rows, in that order.
    """

    def __init__(self, values: NDArray[np.float64], places: NDArray[np.intp]) -> None:
        order = np.argsort(values, kind="stable")
        self.ascending = values[order]
        self.places = places[order]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.ascending)

    def value(self, quantile: float) -> float:
        """Return a quantile, with linear interpolation between two."""
        return float(np.quantile(self.ascending, quantile))

    def drawn_quantiles(self, cumulated: NDArray[np.int32], quantile: float) -> NDArray[np.float64]:
        """Return the quantile of each draw.

        A row of ``cumulated`` is a draw: how often the values up to each one were drawn. A draw
        without any has the largest value.
        """
        draws, last = len(cumulated), self.count - 1
        position = np.maximum(cumulated[:, -1] - 1, 0) * quantile
        below = position.astype(np.int64)
        # One ascending line of all draws, so that one search serves them all.
        offset = np.arange(draws) * (int(cumulated.max()) + 2)
        line = (cumulated + offset[:, None]).ravel()
        starts = np.arange(draws) * self.count
        first = np.searchsorted(line, below + offset, "right") - starts
        second = np.searchsorted(line, below + 1 + offset, "right") - starts
        low = self.ascending[np.minimum(first, last)]
        high = self.ascending[np.minimum(second, last)]
        found: NDArray[np.float64] = low + (high - low) * (position - below)
        return found


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """How many of some transfers of one dataset succeeded."""

    successes: int
    count: int

    def value(self, quantile: float) -> float:
        """Return the rate."""
        del quantile
        return self.successes / self.count

    def drawn_rates(self, random: np.random.Generator, draws: int) -> NDArray[np.float64]:
        """Return rates drawn from what the outcomes leave possible.

        The posterior of Jeffreys' prior: unlike drawing transfers again, it knows that none failed
        of ten does not mean that none ever fails.
        """
        failures = self.count - self.successes
        return random.beta(self.successes + 0.5, failures + 0.5, draws)


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric of both datasets; ``of_a`` and ``of_b`` are `Outcomes` if ``is_rate``."""

    name: str
    of_a: Any
    of_b: Any
    quantile: float
    is_rate: bool
    is_headline: bool

    @property
    def is_enough(self) -> bool:
        """Whether both have so many values that an interval holds."""
        is_tail = not self.is_rate and self.quantile > 0.5
        wanted = _MINIMUM_OF_A_TAIL if is_tail else _MINIMUM
        return bool(min(self.of_a.count, self.of_b.count) >= wanted)

    def effect(self, a: Any, b: Any) -> Any:
        """Return b / a - 1, of rates b - a; of single numbers or of arrays."""
        return b - a if self.is_rate else b / a - 1


def _throughput_mbps(row: Row) -> float | None:
    """Return that of the row; of sizes that have none there, from the first byte to the last."""
    if row["mbps"] is not None:
        return float(row["mbps"])
    first, last = row["time_to_first_byte"], row["time_to_last_byte"]
    if first is None or last is None or last <= first or row["filesize_bytes"] in _WITH_DECILES:
        return None
    megabits = float(row["filesize_bytes"]) * 8 / 1e6
    return megabits / float(last - first)


# Sizes of which the rows have a throughput, if it is known at all.
_WITH_DECILES = frozenset({1048576, 5242880})

_QUANTITIES: dict[str, tuple[Callable[[Row], float | None], tuple[int, ...]]] = {
    "ttfb": (lambda row: row["time_to_first_byte"], (50, 95)),
    "ttlb": (lambda row: row["time_to_last_byte"], (50, 95)),
    "throughput": (_throughput_mbps, (50,)),
}
UNITS = {"ttfb": "s", "ttlb": "s", "throughput": "Mbit/s", "success_rate": ""}
"""The unit of a metric, by what stands before ``_p``."""


def size_name(size_bytes: int) -> str:
    """Return a size as it stands in a metric's name, such as ``5MiB`` or ``1000B``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _groups(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Return the places of the rows of each destination, size, and both, by ``.NAME``."""
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        server, size = f".{row['server']}", f".{size_name(row['filesize_bytes'])}"
        for name in (server, size, server + size):
            found.setdefault(name, []).append(place)
    return found


def metrics_of(a: Sequence[Row], b: Sequence[Row]) -> list[Metric]:
    """Return the metrics that both datasets have values of.

    Over everything, and, where there are several, by destination (``.public``, ``.onion``), by
    size (``.5MiB``) and by both. Times are of the transfers that succeeded.
    """
    found = _metrics(a, b, "", range(len(a)), range(len(b)))
    groups_a, groups_b = _groups(a), _groups(b)
    # A group that is all of both datasets says nothing that the whole does not; nor does one that
    # is the same transfers as a group with a shorter name.
    told = {(tuple(range(len(a))), tuple(range(len(b))))}
    for name in sorted(groups_a.keys() & groups_b.keys(), key=lambda name: (name.count("."), name)):
        group = (tuple(groups_a[name]), tuple(groups_b[name]))
        if group not in told:
            told.add(group)
            found += _metrics(a, b, name, *group)
    return found


def _metrics(
    a: Sequence[Row], b: Sequence[Row], group: str, of_a: Sequence[int], of_b: Sequence[int]
) -> list[Metric]:
    found = []
    for quantity, (value_of, percentiles) in _QUANTITIES.items():
        values = _values(a, of_a, value_of), _values(b, of_b, value_of)
        if not (values[0].count and values[1].count):
            continue
        for percent in percentiles:
            if values[0].value(percent / 100) > 0:
                name = f"{quantity}_p{percent}{group}"
                is_headline = not group and percent == 50
                found.append(Metric(name, *values, percent / 100, False, is_headline))
    if of_a and of_b:
        outcomes = _outcomes(a, of_a), _outcomes(b, of_b)
        found.append(Metric(f"success_rate{group}", *outcomes, 0.0, True, not group))
    return found


def _values(
    rows: Sequence[Row], places: Sequence[int], value_of: Callable[[Row], float | None]
) -> Values:
    values, kept = [], []
    for place in places:
        value = value_of(rows[place])
        if rows[place]["error_code"] is None and value is not None:
            values.append(value)
            kept.append(place)
    return Values(np.array(values, dtype=np.float64), np.array(kept, dtype=np.intp))


def _outcomes(rows: Sequence[Row], places: Sequence[int]) -> Outcomes:
    return Outcomes(sum(rows[place]["error_code"] is None for place in places), len(places))
