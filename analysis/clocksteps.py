"""Finds where the UTC clock was set, from the pairs of UTC and monotonic time that a log holds.

Between two pairs both clocks run alike, so a difference that changes is a step of UTC
(docs/formats.md, "Clock pairs").
"""

from __future__ import annotations

import re
from typing import NamedTuple

from perfmeasure.analysis.events import RejectedError

_PAIR = re.compile(
    r"utc_ns=(\d{1,19}) monotonic_ns=(\d{1,19}) reason=(?:start|minute|step)\Z", re.ASCII
)
_LEAST_STEP_NS = 1_000_000


class ClockStep(NamedTuple):
    """UTC was set by ``seconds`` (forward is positive) at or shortly before ``unix_ts``.

    Without clock pairs it ``is_from_stamps``: less exact, and only back can be told.
    """

    unix_ts: float
    seconds: float
    is_from_stamps: bool = False


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


def between(last: ClockPair, now: ClockPair) -> float | None:
    """Return by how many seconds UTC was set between two pairs, 0 for none.

    None if they cannot tell, as the machine was started anew.
    """
    if now.monotonic_ns < last.monotonic_ns:
        return None
    step_ns = (now.utc_ns - last.utc_ns) - (now.monotonic_ns - last.monotonic_ns)
    return step_ns / 1e9 if abs(step_ns) > _LEAST_STEP_NS else 0.0


class ClockSteps:
    """Takes the pairs of one source in their order; ``found`` are the steps."""

    def __init__(self) -> None:
        self.found: list[ClockStep] = []
        self._last: ClockPair | None = None

    def stamps_fell(self, ts: float, seconds: float) -> float:
        """Take that stamps fell by ``seconds`` to ``ts``, and no pair tells; return the step."""
        self._last = None  # which lies before it, and the next one tells of this step no more
        self.found.append(ClockStep(ts, -seconds, is_from_stamps=True))
        return -seconds

    def take(self, now: ClockPair) -> float:
        """Take the next pair; return the seconds of a step, 0 if there was none."""
        last, self._last = self._last, now
        step = between(last, now) if last else None
        if not step:
            return 0.0
        self.found.append(ClockStep(now.utc_ns / 1e9, step))
        return step
