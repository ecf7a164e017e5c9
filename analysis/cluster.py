"""A Dask cluster that does tasks: the same ones as `workers.Processes`, on other machines.

Dask gives a task to another worker when one dies, up to the scheduler's own limit. Here is what is
left to do: not to give out all tasks at once, to find which task it was that ended its workers, and
to end with a clear error when nobody is there.

Dask counts the death of a worker against every task that the worker had, so it gives up neighbours
together with the culprit. Each that it gives up is therefore tried once more, with no other task of
ours on the cluster: only the one that ends its workers then, too, is to blame.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self, TypeVar

from perfmeasure.analysis.remote import INSTALL
from perfmeasure.analysis.workers import lost
from perfmeasure.errors import MissingError, PerfmeasureError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from types import TracebackType

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer."""
WORKER_SECONDS = 60.0
"""How long there may be no worker at all."""
_LOOK_SECONDS = 5.0
_TASKS_A_THREAD = 3  # given out at once: results wait in the workers' memory until we take them

T = TypeVar("T")
R = TypeVar("R")


class Cluster:
    """The workers of a Dask scheduler, for the time of a ``with`` block.

    Args:
        address: such as ``tcp://host:8786``.

    Raises:
        MissingError: distributed is not installed here.
        PerfmeasureError: no scheduler answers there.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._looks_at_nobody = 0  # in a row

    def __enter__(self) -> Self:
        try:
            import distributed  # noqa: PLC0415 - only those who have a cluster need it
        except ImportError:
            raise MissingError(
                f"--scheduler {self._address}", "distributed is not installed", next_step=INSTALL
            ) from None
        # What goes wrong is said by our errors; its own messages would stand around them.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._distributed = distributed
        try:
            self._client = distributed.Client(self._address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise PerfmeasureError(
                f"--scheduler {self._address}",
                f"no Dask scheduler answers ({error})",
                next_step="start one with `dask scheduler`, and workers with `dask worker ADDRESS`",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close(timeout=CONNECT_SECONDS)

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], names: Sequence[str]
    ) -> Iterator[tuple[int, R]]:
        """See `workers.Workers.run`."""
        waiting = list(range(len(tasks)))[::-1]
        suspects: list[int] = []
        given: dict[Any, int] = {}
        while waiting or given:
            threads = self._thread_count()
            while waiting and not suspects and len(given) < max(threads * _TASKS_A_THREAD, 1):
                index = waiting.pop()
                given[self._client.submit(function, tasks[index], pure=False)] = index
            for future in self._finished(given):
                index = given.pop(future)
                try:
                    result = self._result(future, names[index])
                except self._distributed.KilledWorker:
                    suspects.append(index)
                    continue
                finally:
                    future.release()
                yield index, result
            if not given:
                for index in suspects:
                    yield index, self._alone(function, tasks[index], names[index])
                suspects.clear()

    def _alone(self, function: Callable[[T], R], task: T, name: str) -> R:
        """Do a task while no other is given out.

        Raises:
            PerfmeasureError: it ended its workers, and no other of ours was there.
        """
        future = self._client.submit(function, task, pure=False)
        while not self._finished([future]):
            pass
        try:
            result: R = self._result(future, name)
        except self._distributed.KilledWorker:
            raise lost(name) from None
        finally:
            future.release()
        return result

    def _finished(self, futures: Iterable[Any]) -> Collection[Any]:
        """Wait a little for any of these; return those that are done, or failed."""
        try:
            found = self._distributed.wait(
                list(futures), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED"
            ).done
        except TimeoutError:
            found = set()
        except self._distributed.CancelledError as error:
            raise self._gone("went away") from error
        is_nobody_there = not found and self._thread_count() == 0
        self._looks_at_nobody = self._looks_at_nobody + 1 if is_nobody_there else 0
        if self._looks_at_nobody * _LOOK_SECONDS >= WORKER_SECONDS:
            raise self._gone(f"had no worker for {WORKER_SECONDS:.0f} seconds")
        return found  # type: ignore[no-any-return]

    def _thread_count(self) -> int:
        try:
            return sum(self._client.nthreads().values())
        except Exception as error:
            raise self._gone("went away") from error

    def _result(self, future: Any, name: str) -> Any:
        try:
            return future.result()
        except (PerfmeasureError, self._distributed.KilledWorker):
            raise
        except self._distributed.CancelledError as error:
            raise self._gone("went away") from error
        except Exception as error:
            raise PerfmeasureError(
                name,
                f"a worker of {self._address} could not do it ({type(error).__name__}: {error})",
                next_step="install this version of perfmeasure on each worker",
            ) from error

    def _gone(self, what: str) -> PerfmeasureError:
        return PerfmeasureError(
            f"--scheduler {self._address}",
            what,
            next_step="look at its log; what was scanned is in --cache, if that was given",
        )
