"""The writing side of a store: segments that rotate, a budget for each class, the levels."""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perfmeasure.errors import InputError, MeasurementError, UsageError
from perfmeasure.lock import prefix_lock
from perfmeasure.recorder.levels import Levels
from perfmeasure.recorder.records import PCAP_RECORD_BYTES, Array
from perfmeasure.recorder.recovery import recover
from perfmeasure.recorder.segment import (
    INDEX_SUFFIX,
    MAX_SEGMENT_BYTES,
    PACKETS_SUFFIX,
    SegmentWriter,
    Summary,
    segment_path,
)
from perfmeasure.recorder.snapshot import Snapshot

_INDEX_BYTES_PER_PACKET = 12
"""What the budget sets aside for the index of packets that are not indexed on disk yet."""

_MAX_ROWS = 1 << 19
"""Connections at which a segment is closed, which bounds the memory of its index: a scan of ports
makes a connection of each packet."""


@dataclass(frozen=True)
class Limits:
    """How a class is stored.

    Attributes:
        segment_bytes: a segment that would grow beyond is closed before.
        segment_seconds: of packet time, after which a segment is closed.
        budget_bytes: of packets and their indexes on disk; None for as much as there is.

    Raises:
        UsageError: they contradict each other.
    """

    segment_bytes: int = 256 << 20
    segment_seconds: float = 600.0
    budget_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.segment_bytes <= MAX_SEGMENT_BYTES:
            raise UsageError(
                "segment size", f"{self.segment_bytes} bytes", f"1 to {MAX_SEGMENT_BYTES}"
            )
        if self.budget_bytes is not None and self.budget_bytes < 2 * self.segment_bytes:
            raise UsageError(
                "disk budget",
                f"{self.budget_bytes} bytes",
                f"at least two segments of {self.segment_bytes} bytes",
                "give a larger budget or smaller segments",
            )
        if self.segment_seconds <= 0:
            raise UsageError("segment time", f"{self.segment_seconds} s", "more than 0")


@dataclass
class Usage:
    """What there is of a class: in open segments, and in closed ones. Times are Unix ns.

    Attributes:
        open_rows: connections in the indexes of the open segments.
        open_first_ns: of the first packet; far in the future where there is none.
    """

    open_packets: int = 0
    open_bytes: int = 0
    open_rows: int = 0
    open_first_ns: int = 2**63 - 1
    closed_packets: int = 0
    closed_bytes: int = 0
    closed_first_ns: int = 2**63 - 1


class StoreWriter:
    """The one writer of a store. All methods are to be called from one thread.

    Args:
        folder: of the store; made if it is not there.
        limits: by class; the others get `Limits`' defaults.

    Attributes:
        messages: what had to be put in order at the start.
        stored: packets and captured bytes that were written since, by class.

    Raises:
        InputError: a newer version has written it.
        MeasurementError: another recorder writes to it, or it cannot be written.
    """

    def __init__(self, folder: Path, limits: Mapping[str, Limits] | None = None) -> None:
        self.folder = folder
        self._limits = defaultdict(Limits, limits or {})
        self._open: dict[tuple[str, int], SegmentWriter] = {}
        self.stored: dict[str, Array] = defaultdict(lambda: np.zeros(2, "u8"))
        self._drops = 0
        self._held = contextlib.ExitStack()
        self._held.enter_context(prefix_lock(folder, "recorder", "--store"))
        try:
            self._catalogue, self.messages = recover(folder)
        except InputError:
            self._held.close()
            raise
        except OSError as error:
            self._held.close()
            raise MeasurementError(str(folder), f"cannot be written ({error.strerror})") from error
        self._closed: dict[str, deque[tuple[int, int]]] = defaultdict(deque)
        self._closed_bytes: dict[str, int] = defaultdict(int)
        self._classes: dict[int, str] = {}
        for entry in self._catalogue.segments():
            self._count_closed(entry.summary, entry.file_bytes + entry.index_bytes)
        self._levels = Levels(folder, self._index_path)
        self._next = max(max(self._classes, default=0) + 1, self._levels.covered())
        self._levels.drop(set(self._classes))
        self._background = ThreadPoolExecutor(1, "levels")
        self._merge()

    def _count_closed(self, summary: Summary, size: int) -> None:
        self._closed[summary.class_name].append((summary.number, size))
        self._closed_bytes[summary.class_name] += size
        self._classes[summary.number] = summary.class_name

    def _index_path(self, number: int) -> Path | None:
        class_name = self._classes.get(number)
        if class_name is None:
            return None
        path = segment_path(self.folder, Summary(number, class_name, 0), INDEX_SUFFIX)
        return path if path.exists() else None

    # ---- packets --------------------------------------------------------------------------------

    def append(self, class_name: str, data: Any, frames: Array, packets: Array) -> None:
        """Write packets, in the order of ``frames``, which may have several link types.

        Args:
            class_name: a word that can be the name of a folder.
            data: the buffer that the frames are in.
            frames: dtype `FRAME`, times between 1970 and 2106.
            packets: what `perfmeasure.recorder.core.decode` made of the frames.

        Raises:
            MeasurementError: the disk is full, or cannot be written. What fitted is written.
        """
        links = frames["link"]
        if len(frames) and (links == links[0]).all():
            self._append_link(class_name, data, frames, packets)
            return
        for link in np.unique(links):
            of_it = links == link
            self._append_link(class_name, data, frames[of_it], packets[of_it])

    def _append_link(self, class_name: str, data: Any, frames: Array, packets: Array) -> None:
        limits = self._limits[class_name]
        ends = np.cumsum(frames["captured"].astype("i8") + PCAP_RECORD_BYTES)
        key = (class_name, int(frames["link"][0]))
        done, written = 0, 0
        while done < len(frames):
            segment = self._segment(key)
            room = limits.segment_bytes - segment.size_bytes
            count = int(np.searchsorted(ends, written + room, "right")) - done
            if not segment.summary.packets:
                count = max(count, 1)  # a frame that is larger than a segment has one of its own
                first_ns = int(frames["ts_ns"][done])
            else:
                first_ns = segment.summary.first_ns
            is_late = frames["ts_ns"][done : done + count] >= first_ns + round(
                limits.segment_seconds * 1e9
            )
            if is_late.any():
                count = int(is_late.argmax())
            if count:
                part = slice(done, done + count)
                segment.append(data, frames[part], packets[part])
                captured = frames["captured"][part].sum(dtype="u8")
                self.stored[class_name] += np.array([count, captured], "u8")
                done += count
                written = int(ends[done - 1])
            if done < len(frames) or segment.index.rows >= _MAX_ROWS:
                self._close(key)
            self._keep_budget(class_name)

    def add_drops(self, count: int) -> None:
        """Note that packets were lost on their way, with every open segment, or else the next."""
        if not self._open:
            self._drops += count
        for segment in self._open.values():
            segment.summary.drops += count
            self._catalogue.put(segment.summary, is_open=True)

    # ---- segments -------------------------------------------------------------------------------

    def _segment(self, key: tuple[str, int]) -> SegmentWriter:
        segment = self._open.get(key)
        if segment is None:
            class_name, link = key
            summary = Summary(self._next, class_name, link, drops=self._drops)
            segment = SegmentWriter(self.folder, summary)
            self._drops = 0
            self._catalogue.put(segment.summary, is_open=True)
            self._next += 1
            self._open[key] = segment
        return segment

    def _close(self, key: tuple[str, int]) -> None:
        segment = self._open[key]
        summary = segment.summary
        if not summary.packets:  # its first ones could not be written
            del self._open[key]
            segment.discard()
            self._catalogue.remove(summary.number)
            return
        index_bytes = segment.close()
        del self._open[key]
        self._catalogue.put(
            summary, is_open=False, file_bytes=segment.size_bytes, index_bytes=index_bytes
        )
        self._count_closed(summary, segment.size_bytes + index_bytes)
        self._merge()

    def rotate(self, now_ns: int | None = None) -> None:
        """Close the open segments whose time is over at this Unix time, or all of them."""
        for key, segment in list(self._open.items()):
            length_ns = round(self._limits[key[0]].segment_seconds * 1e9)
            if now_ns is None or segment.summary.first_ns + length_ns <= now_ns:
                self._close(key)

    def usage(self, class_name: str) -> Usage:
        """Return how much there is of a class."""
        usage = Usage()
        for (name, _), segment in self._open.items():
            if name == class_name and (summary := segment.summary).packets:
                usage.open_packets += summary.packets
                usage.open_bytes += segment.size_bytes
                usage.open_rows += segment.index.rows
                usage.open_first_ns = min(usage.open_first_ns, summary.first_ns)
        closed = self._catalogue.closed(class_name)
        usage.closed_packets, usage.closed_bytes, usage.closed_first_ns = closed
        return usage

    def _merge(self) -> None:
        first_open = min((s.summary.number for s in self._open.values()), default=self._next)
        self._background.submit(self._merge_now, set(self._classes), first_open)

    def _merge_now(self, closed: set[int], first_open: int) -> None:
        # A segment may be dropped meanwhile; the next merge makes what this one could not.
        with contextlib.suppress(InputError, FileNotFoundError):
            self._levels.merge(closed, first_open)

    def _keep_budget(self, class_name: str) -> None:
        budget = self._limits[class_name].budget_bytes
        if budget is None:
            return
        growing = sum(
            segment.size_bytes + _INDEX_BYTES_PER_PACKET * segment.summary.packets
            for (name, _), segment in self._open.items()
            if name == class_name
        )
        closed = self._closed[class_name]
        while closed and self._closed_bytes[class_name] + growing > budget:
            number, size = closed.popleft()
            self._closed_bytes[class_name] -= size
            summary = Summary(number, class_name, 0)
            self._catalogue.remove(number)
            for suffix in (PACKETS_SUFFIX, INDEX_SUFFIX):
                segment_path(self.folder, summary, suffix).unlink(missing_ok=True)
            del self._classes[number]
            self._background.submit(self._levels.drop, set(self._classes))

    def snapshot(self) -> Snapshot:
        """Return what there is now, to be asked from any thread."""
        segments = [segment.view() for segment in self._open.values() if segment.summary.packets]
        sizes = {s.summary.number: s.size_bytes for s in self._open.values()}
        return Snapshot(segments, sizes, self._next)

    def close(self) -> None:
        """Close all segments, so that they are visible and indexed, and let go of the store."""
        try:
            self.rotate()
        finally:
            self._background.shutdown()
            self._catalogue.close()
            self._held.close()
