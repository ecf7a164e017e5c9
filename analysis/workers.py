"""Processes of this machine that do tasks; one that is killed costs a retry, not the work.

Plain processes with a pipe each, not `concurrent.futures`: there one that dies takes all tasks that
were given out with it, and nothing says which of them it was.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import tempfile
from collections import deque
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

from perfmeasure.errors import PerfmeasureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from types import TracebackType

ATTEMPTS = 3
"""How often a task is given out when the workers that do it are killed; Dask has its own limit."""
_END_SECONDS = 5.0

T = TypeVar("T")
R = TypeVar("R")

# A fork would inherit the pipes of the others, and would not see them close.
_SPAWN = multiprocessing.get_context("spawn")


class Workers(Protocol):
    """Whoever does tasks: the processes of `Processes`, a cluster."""

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], names: Sequence[str]
    ) -> Iterator[tuple[int, R]]:
        """Yield the index and the result of each task, in the order in which they come.

        ``function`` is one of a module's, so that another process can find it; ``names`` are what
        messages call the tasks.

        Raises:
            PerfmeasureError: a task raised it, or it ended its workers again and again.
        """


def lost(name: str) -> PerfmeasureError:
    """Return the error of a task that ended each worker that tried it."""
    return PerfmeasureError(
        name,
        "the worker that read it was killed, and so was each one that tried again",
        next_step="see what ends processes there (the kernel's log says if memory ran out), or "
        "leave this file out",
    )


class Here:
    """No workers: the tasks are done here, one after another."""

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], names: Sequence[str]
    ) -> Iterator[tuple[int, R]]:
        """See `Workers.run`."""
        del names
        yield from enumerate(map(function, tasks))


class _Worker(NamedTuple):
    process: SpawnProcess
    pipe: Connection


class Processes:
    """A number of processes, which end with the ``with`` block, whatever ends it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[_Worker] = []
        self._busy: dict[Any, tuple[_Worker, int]] = {}  # by their pipes

    def __enter__(self) -> Self:
        # What a worker that is killed leaves unfinished goes with this folder.
        self._scratch = tempfile.TemporaryDirectory(prefix="perfmeasure-")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        workers = [*self._idle, *(worker for worker, _ in self._busy.values())]
        self._idle.clear()
        self._busy.clear()
        for worker in workers:
            worker.pipe.close()  # which ends those that wait
            if kind is not None:
                worker.process.terminate()
        for worker in workers:
            _end(worker)
        self._scratch.cleanup()

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], names: Sequence[str]
    ) -> Iterator[tuple[int, R]]:
        """See `Workers.run`."""
        waiting = deque(range(len(tasks)))
        attempts = [0] * len(tasks)
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                index = waiting.popleft()
                worker = self._idle.pop() if self._idle else self._start()
                self._busy[worker.pipe] = (worker, index)
                # One that was killed while it waited is found below, like any other.
                with contextlib.suppress(OSError):
                    worker.pipe.send((function, tasks[index]))
            for pipe in multiprocessing.connection.wait(list(self._busy)):
                worker, index = self._busy.pop(pipe)
                try:
                    is_done, outcome = worker.pipe.recv()
                except (EOFError, OSError):
                    _end(worker)
                    attempts[index] += 1
                    if attempts[index] == ATTEMPTS:
                        raise lost(names[index]) from None
                    waiting.appendleft(index)
                    continue
                self._idle.append(worker)
                if not is_done:
                    raise outcome
                yield index, outcome

    def _start(self) -> _Worker:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_work, args=(theirs, self._scratch.name), daemon=True)
        # Python starts its own helper along with the first, and unblocks signals after that.
        resource_tracker.ensure_running()
        # It inherits the mask: on Ctrl-C, which reaches us both, we end it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        return _Worker(process, ours)


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join(_END_SECONDS)
    if worker.process.exitcode is None:
        worker.process.kill()
        worker.process.join()
    worker.process.close()


def _work(pipe: Connection, scratch: str) -> None:
    """Do tasks until the pipe is closed: also when the parent was killed."""
    tempfile.tempdir = scratch
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, task = pipe.recv()
            outcome: tuple[bool, Any]
            try:
                outcome = (True, function(task))
            except Exception as error:  # noqa: BLE001 - the parent raises it
                outcome = (False, error)
            pipe.send(outcome)
