"""What a query asks, as a tree: keys and times, joined by and, or, not.

A key is decided by the index alone, a time for whole segments by their first and last packet. Only
where a time cuts through a segment are packets looked at, and of those only what the keys leave.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from perfmeasure.recorder.index import IndexView
from perfmeasure.recorder.keys import Address, Connection, Key
from perfmeasure.recorder.records import Array
from perfmeasure.recorder.segment import Segment, Summary

END_OF_TIME_NS = 2**63 - 1


class Holders(Protocol):
    """What knows in which segments an address may be."""

    def holding(self, low: bytes, high: bytes, candidates: Iterable[int]) -> set[int]:
        """Return those of the candidates."""


class Node(Protocol):
    """A part of a query."""

    def decide(self, view: IndexView, summary: Summary) -> tuple[Array, Array]:
        """Return which groups may match, and which do at any time; bool (2, rows) each."""

    def matches(self, view: IndexView, groups: Array, ts_ns: Array) -> Array:
        """Return which packets match, given their groups and times."""

    def may_match(self, first_ns: int, last_ns: int) -> tuple[bool, bool]:
        """Return whether packets of the time may match, and whether they all do."""

    def holders(self, levels: Holders, candidates: set[int]) -> set[int]:
        """Return which of the segments may hold packets that match."""


def _filled(view: IndexView, value: bool) -> Array:
    return np.full((2, len(view.protocol)), value)


@dataclass(frozen=True)
class Match:
    """Packets of a key."""

    key: Key

    def decide(self, view: IndexView, summary: Summary) -> tuple[Array, Array]:
        """See `Node`."""
        del summary
        groups = self.key.groups(view)
        return groups, groups

    def matches(self, view: IndexView, groups: Array, ts_ns: Array) -> Array:
        """See `Node`."""
        del ts_ns
        found: Array = self.key.groups(view)[groups & 1, groups >> 1]
        return found

    def may_match(self, first_ns: int, last_ns: int) -> tuple[bool, bool]:
        """See `Node`."""
        del first_ns, last_ns
        return True, False

    def holders(self, levels: Holders, candidates: set[int]) -> set[int]:
        """See `Node`."""
        if isinstance(self.key, Address):
            return levels.holding(self.key.low, self.key.high, candidates)
        if isinstance(self.key, Connection):
            for end in self.key.ends:
                candidates = levels.holding(end, end, candidates)
        return candidates


@dataclass(frozen=True)
class Times:
    """Packets of a time: Unix ns, both inclusive."""

    first_ns: int = 0
    last_ns: int = END_OF_TIME_NS

    def decide(self, view: IndexView, summary: Summary) -> tuple[Array, Array]:
        """See `Node`."""
        may, must = self.may_match(summary.first_ns, summary.last_ns)
        return _filled(view, may), _filled(view, must)

    def matches(self, view: IndexView, groups: Array, ts_ns: Array) -> Array:
        """See `Node`."""
        del view, groups
        found: Array = (ts_ns >= self.first_ns) & (ts_ns <= self.last_ns)
        return found

    def may_match(self, first_ns: int, last_ns: int) -> tuple[bool, bool]:
        """See `Node`."""
        may = first_ns <= self.last_ns and last_ns >= self.first_ns
        return may, self.first_ns <= first_ns and last_ns <= self.last_ns

    def holders(self, levels: Holders, candidates: set[int]) -> set[int]:
        """See `Node`."""
        del levels
        return candidates


@dataclass(frozen=True)
class Not:
    """Packets that do not match."""

    node: Node

    def decide(self, view: IndexView, summary: Summary) -> tuple[Array, Array]:
        """See `Node`."""
        may, must = self.node.decide(view, summary)
        return ~must, ~may

    def matches(self, view: IndexView, groups: Array, ts_ns: Array) -> Array:
        """See `Node`."""
        return ~self.node.matches(view, groups, ts_ns)

    def may_match(self, first_ns: int, last_ns: int) -> tuple[bool, bool]:
        """See `Node`."""
        may, must = self.node.may_match(first_ns, last_ns)
        return not must, not may

    def holders(self, levels: Holders, candidates: set[int]) -> set[int]:
        """See `Node`: the tree knows where something is, not where nothing else is."""
        del levels
        return candidates


@dataclass(frozen=True)
class And:
    """Packets that match all."""

    nodes: tuple[Node, ...]

    def decide(self, view: IndexView, summary: Summary) -> tuple[Array, Array]:
        """See `Node`."""
        both = [node.decide(view, summary) for node in self.nodes]
        return np.all([may for may, _ in both], axis=0), np.all([must for _, must in both], axis=0)

    def matches(self, view: IndexView, groups: Array, ts_ns: Array) -> Array:
        """See `Node`."""
        found: Array = np.all([node.matches(view, groups, ts_ns) for node in self.nodes], axis=0)
        return found

    def may_match(self, first_ns: int, last_ns: int) -> tuple[bool, bool]:
        """See `Node`."""
        both = [node.may_match(first_ns, last_ns) for node in self.nodes]
        return all(may for may, _ in both), all(must for _, must in both)

    def holders(self, levels: Holders, candidates: set[int]) -> set[int]:
        """See `Node`."""
        for node in self.nodes:
            candidates = node.holders(levels, candidates)
        return candidates


@dataclass(frozen=True)
class Or:
    """Packets that match at least one; none where there is nothing to match."""

    nodes: tuple[Node, ...]

    def decide(self, view: IndexView, summary: Summary) -> tuple[Array, Array]:
        """See `Node`."""
        both = [node.decide(view, summary) for node in self.nodes] or [(_filled(view, False),) * 2]
        return np.any([may for may, _ in both], axis=0), np.any([must for _, must in both], axis=0)

    def matches(self, view: IndexView, groups: Array, ts_ns: Array) -> Array:
        """See `Node`."""
        nothing = np.zeros(len(ts_ns), bool)
        found: Array = np.any(
            [nothing, *(node.matches(view, groups, ts_ns) for node in self.nodes)], axis=0
        )
        return found

    def may_match(self, first_ns: int, last_ns: int) -> tuple[bool, bool]:
        """See `Node`."""
        both = [node.may_match(first_ns, last_ns) for node in self.nodes]
        return any(may for may, _ in both), any(must for _, must in both)

    def holders(self, levels: Holders, candidates: set[int]) -> set[int]:
        """See `Node`."""
        return {number for node in self.nodes for number in node.holders(levels, candidates)}


def _is_decided(may: Array, must: Array) -> bool:
    return may is must or bool((may == must).all())


def find(segment: Segment, node: Node) -> Array:
    """Return the frames of the packets of a segment that match, in the order of the file.

    Raises:
        InputError: the index names a record that is not there.
    """
    may, must = node.decide(segment.view, segment.summary)
    places, groups = segment.view.places(may)
    frames = segment.frames(places)
    if not _is_decided(may, must):
        frames = frames[node.matches(segment.view, groups, frames["ts_ns"])]
    return frames


def count(segment: Segment, node: Node) -> tuple[int, int]:
    """Return packets and captured bytes that match, from the index alone where that is possible.

    Raises:
        InputError: the index names a record that is not there.
    """
    may, must = node.decide(segment.view, segment.summary)
    if _is_decided(may, must) and (totals := segment.view.totals(may)) is not None:
        return totals
    frames = find(segment, node)
    return len(frames), int(frames["captured"].sum(dtype="u8"))
