"""A Dask cluster that does tasks: the same ones as `workers.Processes`, on other machines.

Dask gives a task to another worker when one dies, up to the scheduler's own limit. Here is what is
left to do: not to give out all tasks at once, and to end with a clear error when nobody is there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self, TypeVar

from perfmeasure.analysis.remote import INSTALL
from perfmeasure.analysis.workers import lost
from perfmeasure.errors import MissingError, PerfmeasureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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
        given: dict[Any, int] = {}
        looks_left = WORKER_SECONDS / _LOOK_SECONDS
        while waiting or given:
            threads = self._thread_count()
            while waiting and len(given) < max(threads * _TASKS_A_THREAD, 1):
                index = waiting.pop()
                given[self._client.submit(function, tasks[index], pure=False)] = index
            try:
                done = self._distributed.wait(
                    list(given), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED"
                ).done
            except TimeoutError:
                looks_left = looks_left - 1 if threads == 0 else WORKER_SECONDS / _LOOK_SECONDS
                if looks_left <= 0:
                    raise self._gone(f"had no worker for {WORKER_SECONDS:.0f} seconds") from None
                continue
            except self._distributed.CancelledError as error:
                raise self._gone("went away") from error
            for future in done:
                index = given.pop(future)
                yield index, self._result(future, names[index])
                future.release()

    def _thread_count(self) -> int:
        try:
            return sum(self._client.nthreads().values())
        except Exception as error:
            raise self._gone("went away") from error

    def _result(self, future: Any, name: str) -> Any:
        try:
            return future.result()
        except PerfmeasureError:
            raise
        except self._distributed.KilledWorker:
            raise lost(name) from None
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
