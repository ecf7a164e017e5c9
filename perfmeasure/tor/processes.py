"""The relays of a private network as plain child processes, for the time it takes to make one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from perfmeasure.errors import MeasurementError, MissingError
from perfmeasure.tether import tethered

if TYPE_CHECKING:
    from collections.abc import Sequence

# Now and then a tor that is told to end while its threads compress a new consensus never does.
# All that matters is on its disk by then.
_TERM_SECONDS = 3.0
_KILL_SECONDS = 10.0


class Processes:
    """A context in which programs run; at its end they are stopped, at our death killed."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self, name: str, argv: Sequence[str], log_path: Path) -> None:
        """Start a program, its output appended to ``log_path``.

        Raises:
            MissingError: there is no such program.
        """
        try:
            with log_path.open("ab") as log:
                self._running[name] = subprocess.Popen(
                    tethered([*argv]), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        except OSError as error:
            raise MissingError(argv[0], f"cannot be started ({error.strerror})") from error

    def status(self, name: str) -> int | None:
        """Return the exit status of a program, None while it runs."""
        return self._running[name].poll()

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a program."""
        self._running[name].send_signal(number)

    def stop(self) -> None:
        """End all programs: SIGTERM, and SIGKILL for those that live on for 3 s.

        Raises:
            MeasurementError: the kernel could not end one.
        """
        for process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + _TERM_SECONDS
        for name, process in self._running.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                try:
                    process.wait(_KILL_SECONDS)
                except subprocess.TimeoutExpired as error:
                    raise MeasurementError(name, f"pid {process.pid} cannot be ended") from error
        self._running.clear()
