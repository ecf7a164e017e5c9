"""The generator's log: TGen's line format, on standard output, one write for each line.

A line is ``YYYY-MM-DD HH:MM:SS UNIX.uuuuuu [level] [file:line] [function] message`` in UTC.
Programs that follow the log see each line at once and never half of one.
"""

from __future__ import annotations

import inspect
import math
import os
import select
import time
from typing import Final

from perfmeasure.clock import ClockPair

LEVELS: Final = {"error": 0, "critical": 1, "warning": 2, "message": 3, "info": 4, "debug": 5}
"""The levels by name, most important first; a log shows its level and those before it."""


def place(function: str) -> str:
    """Return ``[file:line] [function]``, the line's origin, with the place of this very call."""
    frame = inspect.currentframe()
    caller = frame.f_back if frame else None
    if caller is None:  # an interpreter without frames
        return f"[tgen:0] [{function}]"
    file = caller.f_code.co_filename.rpartition("/")[2]
    return f"[{file}:{caller.f_lineno}] [{function}]"


class Log:
    """Writes lines of a level and above to a file descriptor.

    Args:
        descriptor: where to write; lines are whole, also when it takes only part of one at once.

    `is_broken` turns true when nobody reads any more; lines are dropped from then on.
    `lines_written` counts those before that.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)
        self._give_up_at = math.inf
        self._level = LEVELS["message"]
        self._second = -1
        self._date = ""
        self.is_broken = False
        self.lines_written = 0

    def set_level(self, name: str) -> None:
        """Show the level ``name`` and the more important ones."""
        self._level = LEVELS[name]

    @property
    def shows_info(self) -> bool:
        """Whether info lines are shown, so that costly ones need not be made otherwise."""
        return self._level >= LEVELS["info"]

    def write(self, level: str, place: str, text: str) -> None:
        """Write one line, stamped now.

        Args:
            level: a name of `LEVELS`.
            place: the source and the function as ``[source] [function]``.
            text: the message; one line.
        """
        if LEVELS[level] > self._level:
            return
        self._write_at(time.time_ns(), level, place, text)

    def critical(self, place: str, text: str) -> None:
        """Write what went wrong."""
        self.write("critical", place, text)

    def warning(self, place: str, text: str) -> None:
        """Write what may be wrong."""
        self.write("warning", place, text)

    def message(self, place: str, text: str) -> None:
        """Write what everyone wants to know."""
        self.write("message", place, text)

    def info(self, place: str, text: str) -> None:
        """Write what the analysis wants to know."""
        self.write("info", place, text)

    def clock_pair(self, pair: ClockPair, reason: str) -> None:
        """Write a pair of UTC and monotonic time, at any level."""
        self._write_at(
            pair.utc_ns, "message", "[clock] [clock_pair]", f"[clock] {pair.fields(reason)}"
        )

    def _write_at(self, now_ns: int, level: str, place: str, text: str) -> None:
        second, rest_ns = divmod(now_ns, 10**9)
        if second != self._second:  # a date is formatted once a second, not once a line
            self._second = second
            self._date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
        text = text.replace("\n", " ")  # a reason may quote a peer
        line = f"{self._date} {second}.{rest_ns // 1000:06d} [{level}] {place} {text}\n"
        self._put(line.encode("utf-8", "backslashreplace"))

    def hurry(self, seconds: float) -> None:
        """Wait no longer than ``seconds`` from now on for a reader that does not read."""
        self._give_up_at = time.monotonic() + seconds

    def _put(self, line: bytes) -> None:
        """Write a whole line; while a pipe is full, wait for its reader."""
        while line and not self.is_broken:
            # A pipe that is ready takes PIPE_BUF bytes without blocking, so that a signal that
            # ends the program is never stuck behind a reader that has stopped reading.
            if not self._ready.poll(100):
                self.is_broken = time.monotonic() > self._give_up_at
                continue
            try:
                line = line[os.write(self._descriptor, line[: select.PIPE_BUF]) :]
            except BlockingIOError:
                continue
            except OSError:
                self.is_broken = True
        self.lines_written += not self.is_broken
