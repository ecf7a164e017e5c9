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


class ClockSteps:
    """Takes the pairs of one source in their order; ``found`` are the steps."""

    def __init__(self) -> None:
        self.found: list[ClockStep] = []
        self._last: tuple[int, int] | None = None

    def read(self, text: str) -> float:
        """Read ``utc_ns=N monotonic_ns=N …``; return the seconds of a step, 0 if there was none.

        Raises:
            RejectedError: it is no pair.
        """
        match = _PAIR.match(text)
        if match is None:
            raise RejectedError("clock pair is cut or garbled")
        utc_ns, monotonic_ns = int(match[1]), int(match[2])
        last, self._last = self._last, (utc_ns, monotonic_ns)
        if last is None or monotonic_ns < last[1]:  # the machine was started anew
            return 0.0
        step_ns = (utc_ns - last[0]) - (monotonic_ns - last[1])
        if abs(step_ns) <= _LEAST_STEP_NS:
            return 0.0
        self.found.append(ClockStep(utc_ns / 1e9, step_ns / 1e9))
        return step_ns / 1e9
