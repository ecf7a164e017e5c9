"""Programs that are fed packets: a process for each stream of pcap, on its standard input."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping

from perfmeasure.errors import MissingError, UsageError

_END_SECONDS = 10.0


def parse_feed(text: str) -> tuple[str, list[str]]:
    """Return name and words of a program, given as ``NAME=COMMAND``.

    Raises:
        UsageError: it is not of that form.
    """
    name, sign, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError("--feed", f"{text!r}: {error}", "NAME=COMMAND") from error
    if not sign or not name or not words:
        raise UsageError("--feed", repr(text), "NAME=COMMAND, such as tshark='tshark -r -'")
    return name, words


class Feeds:
    """Takes text and streams: a `perfmeasure.recorder.outlet.Client`.

    Args:
        programs: the words of the command by name.
        say: is given lines of text.
        complain: is given messages about programs.

    Attributes:
        failures: programs that could not be started, or ended with an error.
    """

    def __init__(
        self,
        programs: Mapping[str, list[str]],
        say: Callable[[str], None],
        complain: Callable[[str], None],
    ) -> None:
        self.programs = programs
        self.text = say
        self._complain = complain
        self._running: dict[tuple[str, str], subprocess.Popen[bytes] | None] = {}
        self._changed = threading.Condition()
        self.failures = 0

    def data(self, program: str, tag: str, content: bytes) -> None:
        """Feed a program; it is started by its first bytes, and nothing is its end."""
        key = (program, tag)
        if key not in self._running:
            with self._changed:
                self._running[key] = self._start(program)
        process = self._running[key]
        if content and process is not None and process.stdin is not None:
            # A program that wants no more has had enough: the rest is for nobody.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(content)
                process.stdin.flush()
        elif not content:
            with self._changed:
                del self._running[key]
                self._changed.notify_all()
            self._end(program, process)

    def _start(self, program: str) -> subprocess.Popen[bytes] | None:
        try:
            words = self.programs[program]
            return subprocess.Popen(words, stdin=subprocess.PIPE)
        except (KeyError, OSError) as error:
            self.failures += 1
            why = error.strerror if isinstance(error, OSError) else "is not named"
            self._complain(str(MissingError(f"feed {program}", f"{why}", "--feed NAME=COMMAND")))
            return None

    def _end(self, program: str, process: subprocess.Popen[bytes] | None) -> None:
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            status = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status:
            self.failures += 1
            self._complain(f"feed {program}: {process.args!r} ended with status {status}")

    def wait(self, timeout_seconds: float) -> bool:
        """Return whether all streams are at their end, waiting for that at most so long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_seconds)

    def close(self) -> None:
        """End all programs that are fed still."""
        for program, tag in list(self._running):
            self.data(program, tag, b"")
