"""The reading side of a store: which segments a query concerns, and its packets in time order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from perfmeasure.errors import InputError
from perfmeasure.recorder.catalogue import Catalogue, Entry
from perfmeasure.recorder.levels import Levels
from perfmeasure.recorder.predicate import Node, count, find
from perfmeasure.recorder.records import Array
from perfmeasure.recorder.recovery import entries_of_files
from perfmeasure.recorder.segment import (
    INDEX_SUFFIX,
    OPEN_SUFFIX,
    PACKETS_SUFFIX,
    Segment,
    Summary,
    scan,
    segment_path,
)

_CACHED_SEGMENTS = 256


@dataclass
class Chunk:
    """Packets of an answer, by time; those of one time in the order of segment and place.

    Attributes:
        segments: where they are.
        which: for each packet, the place of its segment in that list.
        frames: dtype `FRAME`; ``at`` counts in the segment's ``data``.
    """

    segments: list[Segment]
    which: Array
    frames: Array

    def records(self) -> Iterator[tuple[Segment, Array]]:
        """Yield each packet's segment and frame."""
        for number, frame in zip(self.which.tolist(), self.frames, strict=True):
            yield self.segments[number], frame


@dataclass
class Counts:
    """How much an answer holds.

    Attributes:
        bytes: captured ones of the frames.
        drops: packets that were lost while the segments were written that the answer looked at: it
            may have gaps.
    """

    packets: int = 0
    bytes: int = 0
    drops: int = 0


@dataclass
class Store:
    """A store that is asked. Any number of these may be open, while a recorder writes too.

    Args:
        folder: of the store.
        open_segments: those that a recorder of this process is writing, of one moment; the open
            ones of another process are read from their files.

    Attributes:
        problems: what could not be used as it is, and how that was made good.

    Raises:
        InputError: there is no store.
    """

    folder: Path
    open_segments: Sequence[Segment] = ()
    problems: list[str] = field(default_factory=list)
    _cache: dict[int, Segment] = field(default_factory=dict)
    _classes: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.folder / "segments").is_dir() and not list(self.folder.glob("catalogue.*")):
            raise InputError(
                str(self.folder), "no store of packets", "a folder that perfmeasure record wrote"
            )
        self._levels = Levels(self.folder, self._index_path)
        self.catalogue: Catalogue | None = None
        try:
            self.catalogue = Catalogue(self.folder)
        except InputError as error:
            self.problems.append(f"{error}. The segments' files were read instead")

    def close(self) -> None:
        """Let go of the catalogue and the segments."""
        if self.catalogue is not None:
            self.catalogue.close()
        self._cache.clear()

    def _index_path(self, number: int) -> Path:
        summary = Summary(number, self._classes[number], 0)
        return segment_path(self.folder, summary, INDEX_SUFFIX)

    def entries(self) -> list[Entry]:
        """Return what the catalogue, or else the files, say of the segments."""
        if self.catalogue is not None:
            try:
                return self.catalogue.segments()
            except InputError as error:
                self.problems.append(f"{error}. The segments' files were read instead")
        return entries_of_files(self.folder)

    # ---- segments that a query concerns ---------------------------------------------------------

    def segments(self, node: Node) -> Iterator[Segment]:
        """Yield the segments that may hold packets of the query, by their first packet's time."""
        opened = {segment.summary.number: segment for segment in self.open_segments}
        entries = [entry for entry in self.entries() if entry.summary.number not in opened]
        for entry in entries:
            if entry.is_open and (segment := self._open_segment(entry.summary)) is not None:
                opened[entry.summary.number] = segment
        closed = {
            entry.summary.number: entry.summary
            for entry in entries
            if not entry.is_open
            and node.may_match(entry.summary.first_ns, entry.summary.last_ns)[0]
        }
        wanted = node.holders(self._levels, set(closed))
        found: list[Summary] = [closed[number] for number in wanted]
        found += [segment.summary for segment in opened.values()]
        for summary in sorted(found, key=lambda s: (s.first_ns, s.number)):
            segment = opened.get(summary.number) or self.closed_segment(summary)
            if segment is not None and node.may_match(summary.first_ns, summary.last_ns)[0]:
                yield segment

    def _open_segment(self, summary: Summary) -> Segment | None:
        """Return a segment that another process writes, or wrote until just now."""
        try:
            return scan(segment_path(self.folder, summary, OPEN_SUFFIX), summary)[0]
        except FileNotFoundError:
            return self.closed_segment(summary)
        except InputError:
            return None  # it was begun just now, and has no packets

    def closed_segment(self, summary: Summary) -> Segment | None:
        """Return a complete segment; None if the budget has dropped it meanwhile."""
        segment = self._cache.get(summary.number)
        if segment is not None:
            return segment
        try:
            segment = Segment.open(self.folder, summary)
        except FileNotFoundError:
            return None
        except InputError as error:
            path = segment_path(self.folder, summary, PACKETS_SUFFIX)
            try:
                segment = scan(path, summary)[0]
            except (FileNotFoundError, InputError):
                self.problems.append(f"{error}. The segment could not be read either")
                return None
            self.problems.append(f"{error}. The segment was indexed anew for this query")
        while len(self._cache) >= _CACHED_SEGMENTS:
            del self._cache[next(iter(self._cache))]
        self._cache[summary.number] = segment
        return segment

    # ---- answers --------------------------------------------------------------------------------

    def count(self, node: Node) -> Counts:
        """Return how many packets match.

        Raises:
            InputError: a segment does not hold what its index says.
        """
        counts = Counts()
        for segment in self.segments(node):
            packets, captured = count(segment, node)
            counts.packets += packets
            counts.bytes += captured
            counts.drops += segment.summary.drops
        return counts

    def packets(self, node: Node, counts: Counts | None = None) -> Iterator[Chunk]:
        """Yield the packets that match, in time order over all segments and classes.

        Memory: 32 bytes for each packet of the answer in segments that overlap in time.

        Args:
            node: the query.
            counts: is added to as chunks come, if given.

        Raises:
            InputError: a segment does not hold what its index says.
        """
        pending: list[tuple[Segment, Array]] = []
        counts = counts or Counts()
        for segment in self.segments(node):
            yield from in_order(pending, segment.summary.first_ns, counts)
            counts.drops += segment.summary.drops
            pending.append((segment, find(segment, node)))
        yield from in_order(pending, 2**63 - 1, counts)

    def intervals(self, node: Node, inactivity_seconds: float) -> list[tuple[int, int]]:
        """Return when there were packets that match: first and last Unix ns of each interval.

        Args:
            node: the query.
            inactivity_seconds: a gap longer than this ends an interval.

        Raises:
            InputError: a segment does not hold what its index says.
        """
        found: list[tuple[int, int]] = []
        longest_ns = round(inactivity_seconds * 1e9)
        for chunk in self.packets(node):
            times = chunk.frames["ts_ns"]
            ends = np.flatnonzero(np.diff(times) > longest_ns)
            firsts = times[np.concatenate([[0], ends + 1])].tolist()
            lasts = times[np.concatenate([ends, [len(times) - 1]])].tolist()
            if found and firsts[0] - found[-1][1] <= longest_ns:
                firsts[0] = found.pop()[0]
            found += zip(firsts, lasts, strict=True)
        return found


def in_order(
    pending: list[tuple[Segment, Array]], until_ns: int, counts: Counts
) -> Iterator[Chunk]:
    """Take packets from before a time out of ``pending`` and yield them in order, if there are."""
    taken = []
    for number, (segment, frames) in enumerate(pending):
        is_before = frames["ts_ns"] < until_ns
        taken.append(frames[is_before])
        pending[number] = (segment, frames[~is_before])
    total = sum(map(len, taken))
    if not total:
        return
    segments = [segment for segment, _ in pending]
    pending[:] = [(segment, frames) for segment, frames in pending if len(frames)]
    which = np.repeat(np.arange(len(taken)), [len(frames) for frames in taken])
    frames = np.concatenate(taken)
    numbers = np.array([segment.summary.number for segment in segments])[which]
    order = np.lexsort((frames["at"], numbers, frames["ts_ns"]))
    counts.packets += total
    counts.bytes += int(frames["captured"].sum(dtype="u8"))
    yield Chunk(segments, which[order], frames[order])
