"""Tasks that kill the process that does them, in a module that workers can import."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from perfmeasure.analysis.workers import Workers


def double(number: int) -> int:
    return 2 * number


def fail(number: int) -> int:
    raise ValueError(f"never {number}")


def die(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def once_killed(task: Any, function: Callable[[Any], Any], folder: str) -> Any:
    """Do a task; the first that comes to the second file kills its worker instead."""
    with os.scandir(folder) as entries:
        count = sum(1 for _ in entries)
    path = Path(folder, str(count))
    path.touch()
    if count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(task)


class OneIsKilled:
    """Workers of which one is killed by SIGKILL in the middle of its task."""

    def __init__(self, workers: Workers, folder: Path) -> None:
        self._workers = workers
        self.folder = folder

    def run(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], names: Sequence[str]
    ) -> Iterator[tuple[int, Any]]:
        killing = functools.partial(once_killed, function=function, folder=str(self.folder))
        return self._workers.run(killing, tasks, names)
