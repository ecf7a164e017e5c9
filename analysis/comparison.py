"""Compares two datasets: for each metric the effect, a bootstrap interval, and a verdict.

The transfers of each dataset are drawn again with replacement, `RESAMPLES` times, all metrics from
the same draws. The intervals are simultaneous: when nothing differs, the chance that any metric at
all is called different is at most 5 %. Of it 4 % belong to the headline metrics (medians and the
success rate over everything) and 1 % to all others (tails, single sizes and destinations); within
each group every interval is widened to one level, read off the draws themselves (the minimum of the
two-sided p-values; Westfall and Young, Resampling-Based Multiple Testing, 1993).
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmeasure.analysis.metrics import Metric, metrics_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from perfmeasure.analysis.datasets import Dataset

RESAMPLES = 4000
HEADLINE_ALPHA = 0.04
OTHER_ALPHA = 0.01
SAME_WITHIN_RATIO = 0.05
"""An interval inside of ±5 % (of ±1 point, for rates) says that nothing relevant differs."""
SAME_WITHIN_RATE = 0.01
_CELLS_AT_ONCE = 4_000_000


class Verdict(enum.StrEnum):
    """What the data say about one metric."""

    SAME = "same"
    DIFFERENT = "different"
    INCONCLUSIVE = "inconclusive"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of both datasets.

    ``a`` and ``b`` are seconds, megabits per second or a rate from 0 to 1. ``effect``, ``ci_low``
    and ``ci_high`` are b / a - 1, or b - a for a rate. ``is_enough`` is False if there are too few
    values for the interval to hold.
    """

    name: str
    a: float
    b: float
    effect: float
    ci_low: float
    ci_high: float
    n_a: int
    n_b: int
    is_rate: bool
    is_enough: bool
    is_headline: bool

    @property
    def verdict(self) -> Verdict:
        """Different if 0 is outside of the interval, same if the interval is close around it."""
        if not self.is_enough:
            return Verdict.INCONCLUSIVE
        if self.ci_low > 0 or self.ci_high < 0:
            return Verdict.DIFFERENT
        within = SAME_WITHIN_RATE if self.is_rate else SAME_WITHIN_RATIO
        if self.ci_low >= -within and self.ci_high <= within:
            return Verdict.SAME
        return Verdict.INCONCLUSIVE

    def record(self) -> dict[str, Any]:
        """Return what ``compare --json`` says of it."""
        found = dataclasses.asdict(self)
        for name in ("name", "is_rate", "is_enough", "is_headline"):
            del found[name]
        return {**found, "verdict": str(self.verdict)}


def compare(a: Dataset, b: Dataset, seed: int = 0) -> list[Comparison]:
    """Return the comparison of each metric that both datasets have, the headline metrics first.

    The same datasets and seed give the same numbers.
    """
    metrics = metrics_of(a.rows, b.rows)
    random = np.random.default_rng(seed)
    drawn_a = _draw([metric.of_a for metric in metrics], metrics, len(a.rows), random)
    drawn_b = _draw([metric.of_b for metric in metrics], metrics, len(b.rows), random)
    effects = [m.effect(*pair) for m, *pair in zip(metrics, drawn_a, drawn_b, strict=True)]
    levels = [OTHER_ALPHA] * len(metrics)
    for is_headline, alpha in ((True, HEADLINE_ALPHA), (False, OTHER_ALPHA)):
        # What has too few values is never called different, so it needs no share of the chance.
        family = [
            index
            for index, metric in enumerate(metrics)
            if metric.is_headline == is_headline and metric.is_enough
        ]
        if family:
            level = _joint_level([effects[index] for index in family], alpha)
            for index in family:
                levels[index] = level
    found = []
    for metric, drawn, level in zip(metrics, effects, levels, strict=True):
        low, high = np.quantile(drawn, [level / 2, 1 - level / 2])
        found.append(_compared(metric, float(low), float(high)))
    return sorted(found, key=lambda each: not each.is_headline)


def _compared(metric: Metric, low: float, high: float) -> Comparison:
    a, b = metric.of_a.value(metric.quantile), metric.of_b.value(metric.quantile)
    effect = float(metric.effect(np.float64(a), np.float64(b)))
    return Comparison(
        name=metric.name,
        a=a,
        b=b,
        effect=effect,
        ci_low=min(low, effect),
        ci_high=max(high, effect),
        n_a=metric.of_a.count,
        n_b=metric.of_b.count,
        is_rate=metric.is_rate,
        is_enough=metric.is_enough,
        is_headline=metric.is_headline,
    )


def _joint_level(effects: Sequence[NDArray[np.float64]], alpha: float) -> float:
    """Return the level at which all intervals together miss with probability ``alpha``.

    ``effects`` are the draws of each metric.
    """
    draws = len(effects[0])
    lowest = np.ones(draws)
    for row in effects:
        ordered = np.sort(row)
        # Of equal values each has the rank that is nearest to the middle.
        below = np.searchsorted(ordered, row, "right")
        above = draws - np.searchsorted(ordered, row, "left")
        lowest = np.minimum(lowest, 2 * np.minimum(below, above) / draws)
    return float(np.quantile(lowest, alpha, method="lower"))


def _draw(
    samples: Sequence[Any], metrics: Sequence[Metric], count: int, random: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Return each metric's values over `RESAMPLES` draws of ``count`` transfers."""
    drawn = [np.empty(RESAMPLES) for _ in samples]
    step = max(1, _CELLS_AT_ONCE // max(count, 1))
    for begin in range(0, RESAMPLES, step):
        lines = min(step, RESAMPLES - begin)
        picked = random.integers(count, size=(lines, count), dtype=np.int32)
        picked += np.arange(lines, dtype=np.int32)[:, None] * count
        found = np.bincount(picked.ravel(), minlength=lines * count)
        times = found.astype(np.int32).reshape(lines, count)
        cumulated: dict[int, NDArray[np.int32]] = {}
        for values, sample, metric in zip(drawn, samples, metrics, strict=True):
            if metric.is_rate:
                continue
            key = id(sample)
            if key not in cumulated:
                cumulated[key] = np.cumsum(
                    np.take(times, sample.places, axis=1), axis=1, dtype=np.int32
                )
            values[begin : begin + lines] = sample.drawn_quantiles(cumulated[key], metric.quantile)
    for values, sample, metric in zip(drawn, samples, metrics, strict=True):
        if metric.is_rate:
            values[:] = sample.drawn_rates(random, RESAMPLES)
    return drawn
