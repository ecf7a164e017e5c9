"""A store that is being written, as it is at one moment, and what has come since another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perfmeasure.recorder.catalogue import Entry
from perfmeasure.recorder.predicate import Node, find
from perfmeasure.recorder.records import PCAP_HEADER_BYTES, Array
from perfmeasure.recorder.segment import Segment
from perfmeasure.recorder.store import Chunk, Counts, Store, in_order

_END_OF_TIME_NS = 2**63 - 1


@dataclass(frozen=True)
class Snapshot:
    """What the writer of a store had written at one moment.

    Attributes:
        segments: the open ones that have packets.
        sizes: by number of each open segment, how many bytes its file had.
        next_number: of the segment that will be begun next.
    """

    segments: list[Segment]
    sizes: dict[int, int]
    next_number: int


class StoreAt(Store):
    """A store as it was at a snapshot: what was written later is in no answer.

    Args:
        folder: of the store.
        snapshot: the moment.
        is_mem_only: ask only the segments that were open, whose indexes are in memory.

    Raises:
        InputError: there is no store.
    """

    def __init__(self, folder: Path, snapshot: Snapshot, *, is_mem_only: bool = False) -> None:
        super().__init__(folder, snapshot.segments)
        self._at = snapshot
        self._is_mem_only = is_mem_only

    def entries(self) -> list[Entry]:
        """Return the segments that were closed then."""
        if self._is_mem_only:
            return []
        at = self._at
        return [
            entry
            for entry in super().entries()
            if entry.summary.number < at.next_number and entry.summary.number not in at.sizes
        ]


class Follower:
    """What matches a query and was written after a snapshot; each packet once, none left out.

    It reads what the store holds, so it may be slow without anything waiting for it.

    Args:
        folder: of the store.
        node: the query.
        snapshot: what was written by then is not looked at.

    Attributes:
        missed: segments that the budget of the store dropped before they were read.
    """

    def __init__(self, folder: Path, node: Node, snapshot: Snapshot) -> None:
        self._folder = folder
        self._node = node
        self._seen = snapshot
        self.missed = 0

    def advance(self, snapshot: Snapshot, counts: Counts) -> Iterator[Chunk]:
        """Yield, by time, what was written between the last snapshot and this one.

        Raises:
            InputError: a segment does not hold what its index says.
        """
        begun = range(self._seen.next_number, snapshot.next_number)
        sizes = {**self._seen.sizes, **dict.fromkeys(begun, PCAP_HEADER_BYTES)}
        grown = {
            number: size for number, size in sizes.items() if snapshot.sizes.get(number) != size
        }
        self._seen = snapshot
        if not grown:
            return
        found: list[tuple[Segment, Array]] = []
        segments = {s.summary.number: s for s in snapshot.segments if s.summary.number in grown}
        segments |= self._closed(set(grown) - set(snapshot.sizes))
        for number, segment in sorted(segments.items()):
            frames = find(segment.since(grown[number]), self._node)
            found.append((segment, frames[frames["at"] > grown[number]]))
        yield from in_order(found, _END_OF_TIME_NS, counts)

    def _closed(self, numbers: set[int]) -> dict[int, Segment]:
        """Return the segments of these numbers, which have been closed since the last snapshot."""
        if not numbers:
            return {}
        found = {}
        store = Store(self._folder)
        try:
            for entry in store.entries():
                number = entry.summary.number
                if number in numbers and (segment := store.closed_segment(entry.summary)):
                    found[number] = segment
        finally:
            store.close()
        self.missed += len(numbers) - len(found)
        return found
