"""What is kept of the windows of a run, in a thread of its own so that no sweep is late for it."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import numpy as np

from perfmeasure.flows import keys
from perfmeasure.flows.keys import TABLE, Array, Total
from perfmeasure.flows.times import KernelTimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfmeasure.flows.window_store import WindowStore
    from perfmeasure.flows.windows import Window

_WAITING_WINDOWS = 64
_PENDING_ROWS = 1_000_000


class Ledger:
    """Sums flows over all windows, and hands the windows to a store.

    When it cannot keep up, `add` waits; the windows that are swept too late for that are counted as
    late. To be used from one thread.

    Args:
        store: where the windows go; nowhere if it is None.
        is_summing: whether to sum the flows, which takes about 150 bytes for each.
        on_window: called with each window, in this thread.
    """

    def __init__(
        self,
        store: WindowStore | None = None,
        *,
        is_summing: bool = True,
        on_window: Callable[[Window], None] | None = None,
    ) -> None:
        self.times = KernelTimes()
        self.summary_count = 0
        """Rows that left the kernel: flows, each in each window."""
        self.overflow: dict[tuple[int, int], Total] = {}
        """By direction and protocol, what found no room."""
        self._store = store
        self._on_window = on_window
        self._is_summing = is_summing
        self._tables: list[Array] = []
        self._pending_rows = 0
        self._failure: Exception | None = None
        self._queue: queue.Queue[Window | None] = queue.Queue(_WAITING_WINDOWS)
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def add(self, windows: list[Window]) -> None:
        """Take in windows that were swept.

        Raises:
            MeasurementError: an earlier one could not be stored.
        """
        for window in windows:
            self._queue.put(window)
        if self._failure is not None:
            raise self._failure

    def close(self) -> Array:
        """Finish all that was taken in, and return the flows of the whole run, one row each.

        Raises:
            MeasurementError: something could not be stored.
        """
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return keys.merge(self._tables) if self._is_summing else np.zeros(0, TABLE)

    def _work(self) -> None:
        while (window := self._queue.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self._enter(window)
            except Exception as error:  # noqa: BLE001 - it is raised where the work was given
                self._failure = error
        try:
            if self._store is not None and self._failure is None:
                self._store.flush()
        except Exception as error:  # noqa: BLE001 - the same
            self._failure = error

    def _enter(self, window: Window) -> None:
        self.times.note(window.clock)
        self.summary_count += len(window.flows)
        for part in window.overflow:
            at = (part.direction, part.protocol)
            self.overflow[at] = self.overflow.get(at, Total()).plus(part.total)
        if self._store is not None:
            self._store.add(window)
        if self._on_window is not None:
            self._on_window(window)
        if not self._is_summing or not len(window.flows):
            return
        self._tables.append(window.flows)
        self._pending_rows += len(window.flows)
        if self._pending_rows > max(_PENDING_ROWS, len(self._tables[0])):
            self._tables = [keys.merge(self._tables)]
            self._pending_rows = 0
