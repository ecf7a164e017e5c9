"""The recorder: an interface's ring, or capture files, into a store, until told to stop."""

from __future__ import annotations

import contextlib
import os
import select
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from perfmeasure.errors import MeasurementError
from perfmeasure.recorder import core
from perfmeasure.recorder.capture import Capture
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.libpcap import Filters
from perfmeasure.recorder.recording import Recording
from perfmeasure.recorder.ring import LAST_BLOCK_SECONDS, Ring, interface_drops
from perfmeasure.recorder.statistics import Losses, Statistics
from perfmeasure.recorder.writer import StoreWriter
from perfmeasure.units import format_bytes

_TIDY_SECONDS = 1.0

T = TypeVar("T")


class Recorder:
    """Records into one store. Everything but `submit` and `stop` is of one thread.

    Args:
        folder: the store; made if it is not there.
        setup: what is recorded, and how.
        tell: is given messages for the user.

    Attributes:
        writer: of the store.
        recording: what is done with packets; there once `capture` or `read` has begun.
        statistics: the logs.
        link: the link type of what `capture` records; None before that.

    Raises:
        MeasurementError: another recorder writes there, or it cannot be written.
    """

    def __init__(self, folder: Path, setup: Setup, tell: Callable[[str], None]) -> None:
        self._setup = setup
        self._tell = tell
        limits = {each.name: each.limits for each in setup.classes}
        self.writer = StoreWriter(folder, limits)
        for message in (*setup.warnings, *self.writer.messages):
            tell(message)
        try:
            self.statistics = Statistics(folder)
        except MeasurementError:
            self.writer.close()
            raise
        self.recording: Recording | None = None
        self.losses = Losses()
        self.link: int | None = None
        self._calls: deque[tuple[Future[Any], Callable[[Recording], Any]]] = deque()
        self._lock = threading.RLock()  # a signal may come while it is held
        self._is_closed = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_stopping = False

    # ---- from any thread, and from signal handlers ----------------------------------------------

    def stop(self) -> None:
        """Have `capture` return, with what has come recorded."""
        self._is_stopping = True
        with self._lock:
            if not self._is_closed:
                os.eventfd_write(self._wake, 1)

    def submit(self, function: Callable[[Recording], T]) -> Future[T]:
        """Have a function called between two blocks of packets, by the thread that records.

        The future is cancelled if the recorder ends before.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                future.cancel()
            else:
                self._calls.append((future, function))
                os.eventfd_write(self._wake, 1)
        return future

    # ---- files ----------------------------------------------------------------------------------

    def read(self, paths: Iterable[Path]) -> None:
        """Record capture files, one after the other.

        Raises:
            InputError: one cannot be read.
            MeasurementError: the disk is full.
        """
        self.recording = Recording(self.writer, self._setup)
        filters = Filters(self._setup.filter, "filter") if self._setup.filter else None
        for path in paths:
            capture = CaptureFile(path)
            for batch in capture.batches():
                frames = batch.frames
                if filters is not None:
                    frames = frames[filters.matches(batch.data, frames)]
                if len(frames):
                    self.recording.add(batch.data, frames)
            for problem in capture.problems:
                self._tell(problem)
            if left := capture.problem_count - len(capture.problems):
                self._tell(f"{path}: {left} more places like these")
        self._write_statistics()

    # ---- an interface ---------------------------------------------------------------------------

    def capture(self, interface: str, *, is_cut_in_kernel: bool = True) -> None:
        """Record what passes an interface until `stop` is called; see `Capture` for the errors."""
        with Capture(
            interface, self._setup, self._tell, is_cut_in_kernel=is_cut_in_kernel
        ) as opened:
            self.follow(opened)

    def follow(self, opened: Capture) -> None:
        """Record what an opened capture takes until `stop` is called.

        Raises:
            MeasurementError: the interface went away.
        """
        ring = opened.ring
        self.link = ring.link
        self.recording = Recording(self.writer, self._setup, self._tell, opened.kernel)
        drops_before = interface_drops(ring.interface)
        ring.start()
        self._loop(ring, self.recording, drops_before)

    def _loop(self, ring: Ring, recording: Recording, drops_before: int) -> None:
        poller = select.poll()
        poller.register(ring, select.POLLIN | select.POLLERR)
        poller.register(self._wake, select.POLLIN)
        next_tidy = time.monotonic()
        next_line = next_tidy + self._setup.log_interval_seconds
        until = float("inf")
        while (now := time.monotonic()) < until:
            block = ring.block()
            if block is not None:
                self._record(ring, recording, block)
            else:
                poller.poll(max(0, round((min(next_tidy, until) - now) * 1000) + 1))
            self._answer_calls(recording)
            now = time.monotonic()
            if self._is_stopping:
                # What has come is in a block that the kernel will hand over in a moment.
                until = min(until, now + LAST_BLOCK_SECONDS)
            if now >= next_tidy:
                next_tidy = now + _TIDY_SECONDS
                self._count_losses(ring, drops_before)
                recording.tidy(time.time_ns())
            if now >= next_line:
                next_line = now + self._setup.log_interval_seconds
                self._write_statistics()
        # On a slow machine there is more; what is in the ring by now is recorded, and no later one.
        for _ in range(ring.blocks_filled() - ring.blocks_done):
            if (block := ring.block()) is not None:
                self._record(ring, recording, block)
        self._count_losses(ring, drops_before)
        self._write_statistics()

    def _record(self, ring: Ring, recording: Recording, block: Any) -> None:
        frames = core.walk_ring(block, ring.link)
        if len(frames):
            recording.add(block, frames)
        ring.release()
        if recording.kernel is not None:
            recording.kernel.blocks_done(ring.blocks_done)

    def _answer_calls(self, recording: Recording) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._calls:
            future, function = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(recording))
            except Exception as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)

    def _count_losses(self, ring: Ring, drops_before: int) -> None:
        counts = ring.counts()
        self.losses.received += counts.packets - counts.drops
        self.losses.dropped += counts.drops
        self.losses.interface_drops = interface_drops(ring.interface) - drops_before
        if counts.drops:
            self.writer.add_drops(counts.drops)

    def _write_statistics(self) -> None:
        if self.recording is not None:
            self.statistics.write(self.recording, self.writer, self.losses)

    def summary(self) -> str:
        """Return what came and what was kept, for people."""
        recording = self.recording
        assert recording is not None  # noqa: S101 - asked after `capture` or `read`
        packets, size = recording.seen()
        kept, kept_bytes = (
            sum(int(each[place]) for each in self.writer.stored.values()) for place in (0, 1)
        )
        text = (
            f"{packets} packets ({format_bytes(size)}) read, {kept} "
            f"({format_bytes(kept_bytes)}) kept in {self.writer.folder}"
        )
        if unstored := int(recording.totals.unstored[:, 0].sum()):
            text += f", {unstored} left out while the disk was full"
        if self.losses.dropped:
            text += f", {self.losses.dropped} lost"
        return text

    def close(self) -> None:
        """Close the segments, so that they are visible and indexed, and let go of the store.

        Raises:
            MeasurementError: the disk is full; what is not indexed is when a recorder starts again.
        """
        with self._lock:
            self._is_closed = True
            os.close(self._wake)
        while self._calls:
            self._calls.popleft()[0].cancel()
        self.statistics.close()
        try:
            self.writer.close()
        except (OSError, sqlite3.Error) as error:
            raise MeasurementError(
                str(self.writer.folder),
                f"cannot be written ({error})",
                "room for the indexes",
                "free some space, and run the recorder once more: it makes them anew",
            ) from error
