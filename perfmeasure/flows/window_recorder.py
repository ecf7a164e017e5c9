"""Takes the windows of a control group out of the kernel and has them stored, in one thread."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from perfmeasure.errors import MeasurementError
from perfmeasure.flows import grouphooks
from perfmeasure.flows.window_store import WindowStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perfmeasure.flows.counter import FlowCounter
    from perfmeasure.flows.windows import Window


class WindowRecorder:
    """Moves the windows of a control group from the kernel into Parquet files.

    Args:
        counter: it has been started.
        folder: where the files go.
        archive: the ``log_archive`` folder; see `WindowStore`.
        report: takes one sentence for people.

    Raises:
        MeasurementError: the folder cannot be made.
    """

    def __init__(
        self,
        counter: FlowCounter,
        folder: Path,
        archive: Path | None,
        report: Callable[[str], None],
    ) -> None:
        self._counter = counter
        self.tap: Callable[[Window], None] = lambda _window: None
        """Is shown each window."""
        self._report = report
        self._names: dict[int, str] = {}
        self._store = WindowStore(folder, self._names, archive)
        self._is_failing = False

    def look(self) -> None:
        """Take the windows that have ended; to be called about ten times a second.

        Raises:
            MeasurementError: packets are not accounted for.
        """
        if self._counter.windows.wait_ns() <= 0:
            self._names.update(grouphooks.interface_names())
            self._keep(self._counter.sweep())

    def stop(self) -> None:
        """Detach, and write what is left.

        Raises:
            MeasurementError: packets are not accounted for.
        """
        self._keep(self._counter.stop())
        self._write(self._store.flush)

    def _keep(self, windows: list[Window]) -> None:
        for window in windows:
            self.tap(window)
            self._write(functools.partial(self._store.add, window))

    def _write(self, step: Callable[[], bool | None]) -> None:
        try:
            is_written = step()
        except MeasurementError as error:
            if not self._is_failing:
                self._report(f"{error}; windows are being lost")
            self._is_failing = True
        else:
            self._is_failing = self._is_failing and not is_written
