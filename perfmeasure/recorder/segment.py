"""A segment: one file of nanosecond pcap, little-endian, of one link type, and the index beside it.

While it is written its name ends in ``.part``; it loses that when the index is complete.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from perfmeasure.errors import InputError, MeasurementError
from perfmeasure.recorder import core
from perfmeasure.recorder.arrays import Arrays, save
from perfmeasure.recorder.index import ClosedIndex, IndexView, OpenIndex, OpenView
from perfmeasure.recorder.readahead import read_ahead
from perfmeasure.recorder.records import (
    FRAME,
    MAX_CAPTURED_BYTES,
    PCAP_HEADER_BYTES,
    PCAP_RECORD_BYTES,
    Array,
)

PACKETS_SUFFIX, INDEX_SUFFIX, OPEN_SUFFIX = ".pcap", ".npz", ".pcap.part"
MAX_SEGMENT_BYTES = 2**32 - MAX_CAPTURED_BYTES - 64
"""Places in a segment have 32 bits."""

_HEADER = struct.Struct("<IHHiIII")
_MAGIC_NS = 0xA1B23C4D
_WALK_FRAMES = 65536
_AHEAD_BYTES = 2048
"""Of each record, what is asked from the disk before it is looked at: most frames are shorter."""


def header(link: int) -> bytes:
    """Return the first 24 bytes of a file of nanosecond pcap."""
    return _HEADER.pack(_MAGIC_NS, 2, 4, 0, 0, MAX_CAPTURED_BYTES, link)


@dataclass
class Summary:
    """What is known of a segment without its packets; kept in the catalogue and in the index.

    Attributes:
        first_ns: the earliest time of a packet, Unix ns; after ``last_ns`` if there is none.
        drops: packets that were lost on their way into it, as its writer was told.
    """

    number: int
    class_name: str
    link: int
    first_ns: int = 2**63 - 1
    last_ns: int = -(2**63)
    packets: int = 0
    captured_bytes: int = 0
    drops: int = 0

    @property
    def file_bytes(self) -> int:
        """The size of the file of packets."""
        return PCAP_HEADER_BYTES + PCAP_RECORD_BYTES * self.packets + self.captured_bytes

    def add(self, frames: Array) -> None:
        """Count frames in."""
        self.first_ns = min(self.first_ns, int(frames["ts_ns"].min()))
        self.last_ns = max(self.last_ns, int(frames["ts_ns"].max()))
        self.packets += len(frames)
        self.captured_bytes += int(frames["captured"].sum(dtype="u8"))


def segment_path(folder: Path, summary: Summary, suffix: str) -> Path:
    """Return where a file of a segment is in the store."""
    return folder / "segments" / summary.class_name / f"{summary.number:08d}{suffix}"


class SegmentWriter:
    """A segment that grows.

    Args:
        folder: of the store.
        summary: of a segment without packets.

    Raises:
        MeasurementError: the file cannot be made.
    """

    def __init__(self, folder: Path, summary: Summary) -> None:
        self.summary = summary
        self._folder = folder
        self.path = segment_path(folder, summary, OPEN_SUFFIX)
        self.size_bytes = 0
        self.index = OpenIndex()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise MeasurementError(str(self.path), f"cannot be made ({error.strerror})") from error
        self._write(memoryview(header(summary.link)))

    def _write(self, content: memoryview) -> None:
        """Write all, or nothing."""
        done = 0
        try:
            while done < len(content):
                done += os.write(self._fd, content[done:])
        except OSError as error:
            os.ftruncate(self._fd, self.size_bytes)
            os.lseek(self._fd, self.size_bytes, os.SEEK_SET)
            raise MeasurementError(
                str(self.path),
                f"cannot be written ({error.strerror})",
                "room for packets",
                "free some space, or give a smaller budget",
            ) from error
        self.size_bytes += len(content)

    def append(self, data: Any, frames: Array, packets: Array) -> None:
        """Write frames of a buffer, which are at once in the file and then in the index.

        Raises:
            MeasurementError: they could not be written; the segment is as it was.
        """
        records, places = core.pack(data, frames, self.size_bytes)
        self._write(memoryview(records))
        self.index.add(frames, packets, places)
        self.summary.add(frames)

    def view(self) -> Segment:
        """Return the segment as it is now, for queries."""
        summary = Summary(**vars(self.summary))
        return Segment(summary, self.path, _map(self._fd, self.size_bytes), self.index.snapshot())

    def close(self) -> int:
        """Write the index and make the segment visible; return the bytes of its index."""
        size = write_index(self._folder, self.summary, self.index)
        self.path.rename(segment_path(self._folder, self.summary, PACKETS_SUFFIX))
        os.close(self._fd)
        return size

    def discard(self) -> None:
        """Remove a segment that has no packets."""
        self.path.unlink()
        os.close(self._fd)


def write_index(folder: Path, summary: Summary, index: OpenIndex) -> int:
    """Write the index of a segment; return its size in bytes."""
    meta = {"version": 1, **vars(summary)}
    return save(segment_path(folder, summary, INDEX_SUFFIX), index.sealed(), meta)


def _map(fd: int, size: int) -> mmap.mmap:
    mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_RANDOM)
    return mapped


def summary_of_index(path: Path) -> Summary:
    """Return the summary that an index file holds.

    Raises:
        InputError: it is not there, damaged, or of another version.
    """
    return _summary(Arrays(path))


def _summary(arrays: Arrays) -> Summary:
    meta = dict(arrays.meta)
    if meta.pop("version", None) != 1 or set(meta) != {field.name for field in fields(Summary)}:
        raise InputError(str(arrays.path), "an index of another version", "version 1")
    return Summary(**meta)


class Segment:
    """A segment that can be asked: its packets and an index.

    Attributes:
        summary: what is known of it.
        data: the file's bytes.
        view: the index.
    """

    def __init__(self, summary: Summary, path: Path, data: mmap.mmap, view: IndexView) -> None:
        self.summary = summary
        self.path = path
        self.data = data
        self.view = view

    @classmethod
    def open(cls, folder: Path, summary: Summary) -> Segment:
        """Open a segment that is complete.

        Raises:
            FileNotFoundError: its packets are no longer there.
            InputError: its index is not there, damaged, or not of these packets.
        """
        path = segment_path(folder, summary, PACKETS_SUFFIX)
        with path.open("rb") as file:
            data = _map(file.fileno(), 0)
        arrays = Arrays(segment_path(folder, summary, INDEX_SUFFIX))
        summary = _summary(arrays)
        if len(data) != summary.file_bytes:
            raise InputError(
                str(arrays.path),
                f"of a segment of {summary.file_bytes} bytes, which has {len(data)}",
                "the segment's own index",
            )
        return cls(summary, path, data, ClosedIndex(arrays))

    def since(self, size_bytes: int) -> Segment:
        """Return the segment with fewer packets to look at: all from so many bytes of the file on.

        An index on disk is quick as it is, so that a closed segment stays whole.
        """
        if not isinstance(self.view, OpenView):
            return self
        return Segment(self.summary, self.path, self.data, self.view.since(size_bytes))

    def frames(self, places: Array) -> Array:
        """Return the frames of the records at ``places``.

        Raises:
            InputError: there is no whole record at one of them.
        """
        mean_bytes = self.summary.file_bytes // max(self.summary.packets, 1)
        read_ahead(self.path, places, max(_AHEAD_BYTES, 2 * mean_bytes))
        frames = core.headers(self.data, places, self.summary.link)
        if len(frames) < len(places):
            raise InputError(
                str(self.path),
                f"no whole record at offset {places[len(frames)]}",
                "the record that the index names",
                "delete the .npz file beside it: the recorder makes it anew",
            )
        return frames

    def record(self, frame: Array) -> memoryview:
        """Return header and frame of a record, as they are in the file."""
        at = int(frame["at"])
        return memoryview(self.data)[at - 16 : at + int(frame["captured"])]


def scan(path: Path, summary: Summary) -> tuple[Segment, OpenIndex, int]:
    """Read a segment's packets and index them anew.

    Args:
        path: the file.
        summary: of its number and class; link and counts are read.

    Returns:
        The segment, its index, and the bytes up to the end of the last whole record.

    Raises:
        FileNotFoundError: it is not there.
        InputError: it does not begin as a segment does.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < PCAP_HEADER_BYTES:
            raise InputError(str(path), f"{size} bytes", "a segment")
        data = _map(file.fileno(), size)
    magic, *_, link = _HEADER.unpack_from(data)
    if magic != _MAGIC_NS:
        raise InputError(str(path), f"begins with {data[:4].hex(' ')}", "nanosecond pcap")
    found = Summary(summary.number, summary.class_name, link, drops=summary.drops)
    index = OpenIndex()
    end = PCAP_HEADER_BYTES
    for frames, walked in _walk(data, link):
        index.add(frames, core.decode(data, frames), (frames["at"] - 16).astype("u4"))
        found.add(frames)
        end = walked
    return Segment(found, path, data, index.snapshot()), index, end


def _walk(data: mmap.mmap, link: int) -> Iterator[tuple[Array, int]]:
    at = PCAP_HEADER_BYTES
    frames = np.empty(_WALK_FRAMES, FRAME)
    while True:
        count, at, _ = core.walk_pcap(data, at, False, 1, link, frames)
        if not count:
            return
        yield frames[:count], at
