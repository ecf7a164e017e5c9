"""Kernel times, which are monotonic, as UTC: by the nearest pair of both clocks."""

from __future__ import annotations

import numpy as np

from perfmeasure.clock import STEP_NS, ClockPair
from perfmeasure.flows.keys import Array


class KernelTimes:
    """Turns monotonic nanoseconds into Unix time. At least one pair has to be noted first."""

    def __init__(self) -> None:
        self._pairs: list[ClockPair] = []  # the first, the last, and both sides of each step
        self._last: ClockPair | None = None

    def note(self, pair: ClockPair) -> None:
        """Take in a pair; they come in the order of time."""
        last, self._last = self._last, pair
        if last is None:
            self._pairs.append(pair)
        elif abs(pair.distance_ns - last.distance_ns) > STEP_NS:
            self._pairs += [last, pair]

    def unix_ts(self, monotonic_ns: Array) -> Array:
        """Return Unix times in seconds, to the microsecond, of monotonic nanoseconds (n,)."""
        assert self._last is not None  # noqa: S101 - said in the docstring
        pairs = [*self._pairs, self._last]
        when = np.array([pair.monotonic_ns for pair in pairs], "i8")
        distance = np.array([pair.distance_ns for pair in pairs], "i8")
        middles = (when[1:] + when[:-1]) // 2
        times = monotonic_ns.astype("i8")
        utc_ns = times + distance[np.searchsorted(middles, times)]
        result: Array = np.round(utc_ns / 1e9, 6)
        return result
