"""Finds where the UTC clock was set, from the pairs of UTC and monotonic time that a log holds.

Between two pairs both clocks run alike, so a difference that changes is a step of UTC
(docs/formats.md, "Clock pairs").
"""

from __future__ import annotations

import re
from typing import NamedTuple

from perfmeasure.analysis.events import RejectedError

_PAIR = re.compile(r"utc_ns=(\d{1,19}) monotonic_ns=(\d{1,19})(?: |\Z)", re.ASCII)
_LEAST_STEP_NS = 1_000_000


class ClockStep(NamedTuple):
    """UTC was set by ``seconds`` (forward is positive) at or shortly before ``unix_ts``."""

    unix_ts: float
    seconds: float


class ClockPair(NamedTuple):
    """What both clocks said at one moment."""

    utc_ns: int
    monotonic_ns: int


def pair(text: str) -> ClockPair:
    """Read ``utc_ns=N monotonic_ns=N …``.

    Raises:
        RejectedError: it is no pair.
    """
    match = _PAIR.match(text)
    if match is None:
        raise RejectedError("clock pair is cut or garbled")
    return ClockPair(int(match[1]), int(match[2]))


class ClockSteps:
    """Takes the pairs of one source in their order; ``found`` are the steps."""

    def __init__(self) -> None:
        self.found: list[ClockStep] = []
        self._last: ClockPair | None = None

    def take(self, now: ClockPair) -> float:
        """Take the next pair; return the seconds of a step, 0 if there was none."""
        last, self._last = self._last, now
        if last is None or now.monotonic_ns < last.monotonic_ns:  # the machine was started anew
            return 0.0
        step_ns = (now.utc_ns - last.utc_ns) - (now.monotonic_ns - last.monotonic_ns)
        if abs(step_ns) <= _LEAST_STEP_NS:
            return 0.0
        self.found.append(ClockStep(now.utc_ns / 1e9, step_ns / 1e9))
        return step_ns / 1e9
