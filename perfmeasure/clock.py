"""Pairs of UTC and monotonic time, by which the records of all sources are laid over one another.

The kernel stamps with ``CLOCK_MONOTONIC``, logs with UTC. On Linux both run at the same rate,
slewing by NTP included, so their distance changes only when UTC is set (or the machine slept).
One pair therefore holds until the next step, and a step is seen as a change of the distance.
"""

from __future__ import annotations

import time
from typing import NamedTuple

MINUTE_NS = 60 * 10**9
STEP_NS = 10**6
"""A change of the distance between the clocks above this is a step of the clock."""

_GOOD_READING_NS = 5_000
_MOST_READINGS = 16


class ClockPair(NamedTuple):
    """One moment on both clocks, in nanoseconds: since the Unix epoch, and monotonic."""

    utc_ns: int
    monotonic_ns: int

    @property
    def distance_ns(self) -> int:
        """UTC minus monotonic time, in nanoseconds."""
        return self.utc_ns - self.monotonic_ns

    def fields(self, reason: str) -> str:
        """Return the pair as it stands in a log: ``utc_ns=… monotonic_ns=… reason=…``."""
        return f"utc_ns={self.utc_ns} monotonic_ns={self.monotonic_ns} reason={reason}"


def read_pair() -> ClockPair:
    """Read both clocks at one moment.

    The UTC clock is read between two readings of the monotonic one. Where the process was
    interrupted in between, it is done again; the tightest of a few readings is returned, so that
    a busy machine is not taken for a step of the clock.
    """
    best_ns = -1
    best = ClockPair(0, 0)
    for _ in range(_MOST_READINGS):
        before = time.monotonic_ns()
        utc = time.time_ns()
        after = time.monotonic_ns()
        if best_ns < 0 or after - before < best_ns:
            best_ns = after - before
            best = ClockPair(utc, (before + after) // 2)
        if best_ns <= _GOOD_READING_NS:
            break
    return best


class ClockWatch:
    """Says when a source has to write a pair: at its start, each minute, at each step.

    Ask it about once a second, and write the pair that was asked about with the reason returned.
    """

    def __init__(self) -> None:
        self._written: ClockPair | None = None

    def due(self, now_pair: ClockPair) -> str | None:
        """Return ``start``, ``step``, ``minute``, or None when nothing has to be written now.

        Args:
            now_pair: what `read_pair` just returned. When a reason is returned it counts as
                written.
        """
        last = self._written
        if last is None:
            reason = "start"
        elif abs(now_pair.distance_ns - last.distance_ns) > STEP_NS:
            reason = "step"
        elif now_pair.monotonic_ns - last.monotonic_ns >= MINUTE_NS:
            reason = "minute"
        else:
            return None
        self._written = now_pair
        return reason
