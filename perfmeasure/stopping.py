"""The orderly end of a process that works until it is told to stop."""

from __future__ import annotations

import signal

_LAST_SECONDS = 8


class StopSignals:
    """Takes SIGTERM and SIGINT from now on.

    After the first of them SIGALRM ends the process in 8 s, whatever hinders it: nobody may be left
    to send SIGKILL (perfmeasure.tether).
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def __bool__(self) -> bool:
        """Whether one has come."""
        return bool(self._numbers)

    @property
    def reason(self) -> str:
        """The name of the first; ``error`` if none has come."""
        return signal.Signals(self._numbers[0]).name if self._numbers else "error"

    def _take(self, number: int, _frame: object) -> None:
        self._numbers.append(number)
        signal.alarm(_LAST_SECONDS)
