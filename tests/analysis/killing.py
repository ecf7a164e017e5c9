"""Tasks that kill the process that does them, in a module that workers can import."""

from __future__ import annotations

import functools
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from perfmeasure.analysis.workers import Workers

LIMIT_SECONDS = 60


def double(number: int) -> int:
    return 2 * number


def fail(number: int) -> int:
    raise ValueError(f"never {number}")


def die(number: int) -> int:
    if number == 7:
        # What dies while it is being started, Dask does not start again.
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_among(task: tuple[int, str]) -> int:
    """Do a ``(number, folder)``: task 1 kills its worker, the first time among tasks 0 and 2.

    Those two do not end before that death.
    """
    number, folder = task
    death = Path(folder, "death")
    if number == 1:
        _wait_for(Path(folder, "0"), Path(folder, "2"))
        death.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if not death.exists():
        Path(folder, str(number)).touch()
        time.sleep(LIMIT_SECONDS)
    return number


def _wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not all(path.exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(0.02)


def once_killed(task: Any, function: Callable[[Any], Any], folder: str) -> Any:
    """Do a task; one that is not the first, and only one, kills its worker instead."""
    handle, _ = tempfile.mkstemp(prefix="attempt-", dir=folder)
    os.close(handle)
    if len(list(Path(folder).glob("attempt-*"))) > 1:
        try:
            Path(folder, "killed").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return function(task)


class OneIsKilled:
    """Workers of which one is killed by SIGKILL in the middle of its task.

    Args:
        folder: an empty one, for a file of each attempt to do a task.
    """

    def __init__(self, workers: Workers, folder: Path) -> None:
        self._workers = workers
        self.folder = folder

    def run(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], names: Sequence[str]
    ) -> Iterator[tuple[int, Any]]:
        killing = functools.partial(once_killed, function=function, folder=str(self.folder))
        return self._workers.run(killing, tasks, names)

    def attempts(self) -> int:
        """Return how often a task was begun; one of them was killed."""
        assert (self.folder / "killed").exists()
        return len(list(self.folder.glob("attempt-*")))
