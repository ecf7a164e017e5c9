"""The index of a segment: its connections, and where the packets of each stand.

A row is a connection with its VLAN numbers; a group is a row and a direction, and its number is
twice the row's plus the direction. Every key that can be asked for (connection4, connection3,
connection2, ip, port, srcip, dstip, srcport, dstport, protocol, VLAN) is a condition on groups, so
that one list of places per group answers them all. `OpenIndex` grows with the segment that is being
written; `ClosedIndex` is the same on disk, sorted and immutable. Both are asked as an `IndexView`.
"""

from __future__ import annotations

import functools
from typing import Protocol

import numpy as np

from perfmeasure.recorder import core
from perfmeasure.recorder.arrays import Arrays
from perfmeasure.recorder.records import IDENTITY, INDEX_ROW, MAPPED, Array

_FIRST_ROOM = 1024
_NO_ADDRESS = 2**32 - 1
"""The number of the address of a row that has none."""
_MAPPED_HIGH, _MAPPED_LOW = 0, 0xFFFF << 32


class IndexView(Protocol):
    """What a query asks of an index. Arrays have one entry a row."""

    @property
    def protocol(self) -> Array:
        """The numbers of the IP protocols, uint8."""

    @property
    def has_addresses(self) -> Array:
        """Bool: all but ARP and whatever else could not be decoded."""

    @property
    def a_port(self) -> Array:
        """The ports of the lower ends, uint16."""

    @property
    def b_port(self) -> Array:
        """The ports of the higher ends, uint16."""

    @property
    def vlan(self) -> Array:
        """VLAN numbers plus 1, 0 for none, uint16 (rows, 2)."""

    def ends_within(self, low: bytes, high: bytes) -> tuple[Array, Array]:
        """Return for which rows the address of ``a``, and of ``b``, is in the range (inclusive).

        Rows without addresses are in none.
        """

    def places(self, groups: Array) -> tuple[Array, Array]:
        """Return places (uint32, ascending) and groups of the packets of the groups.

        Args:
            groups: bool (2, rows), by direction and row.
        """

    def totals(self, groups: Array) -> tuple[int, int] | None:
        """Return packets and captured bytes of the groups, if that needs no packet."""


def address_halves(addresses: Array) -> Array:
    """Return addresses (V16) as two uint64 each, (n, 2), so that they compare as on the wire."""
    return np.ascontiguousarray(addresses).view(">u8").reshape(-1, 2).astype("u8")


def _within(halves: Array, low: bytes, high: bytes) -> Array:
    ends = [address_halves(np.frombuffer(end, "V16"))[0] for end in (low, high)]
    first, second = halves[:, 0], halves[:, 1]
    above = (first > ends[0][0]) | ((first == ends[0][0]) & (second >= ends[0][1]))
    below = (first < ends[1][0]) | ((first == ends[1][0]) & (second <= ends[1][1]))
    found: Array = above & below
    if not (low[:12] == MAPPED and high[:12] == MAPPED):
        found &= ~is_mapped(halves)  # an IPv4 address is in no net of IPv6
    return found


def is_mapped(halves: Array) -> Array:
    """Return which addresses are of IPv4."""
    found: Array = (halves[:, 0] == _MAPPED_HIGH) & (halves[:, 1] >> 32 == _MAPPED_LOW >> 32)
    return found


class OpenIndex:
    """The index of a segment that is being written. What a snapshot of it holds does not change."""

    def __init__(self) -> None:
        self._rows = np.zeros(_FIRST_ROOM, INDEX_ROW)
        self._row_count = 0
        self._table = core.make_table(self._rows, np.zeros(0, "u4"), _FIRST_ROOM)
        self._groups = np.zeros(_FIRST_ROOM, "u4")
        self._places = np.zeros(_FIRST_ROOM, "u4")
        self.packets = 0

    @property
    def rows(self) -> int:
        """How many connections there are."""
        return self._row_count

    def add(self, frames: Array, packets: Array, places: Array) -> None:
        """Add packets whose records begin at ``places`` (uint32) of the segment."""
        groups = np.empty(len(frames), "u4")
        done = 0
        while True:
            count, self._row_count = core.index_packets(
                packets[done:],
                frames[done:],
                len(frames) - done,
                self._table,
                self._rows,
                self._row_count,
                groups[done:],
            )
            done += count
            if done == len(frames):
                break
            self._grow()
        end = self.packets + len(frames)
        if end > len(self._groups):
            room = max(end, 2 * len(self._groups))
            self._groups = _grown(self._groups, room)
            self._places = _grown(self._places, room)
        self._groups[self.packets : end] = groups
        self._places[self.packets : end] = places
        self.packets = end

    def _grow(self) -> None:
        room = 2 * len(self._rows)
        self._rows = _grown(self._rows, room)
        self._table = core.make_table(self._rows, np.arange(self._row_count, dtype="u4"), room)

    def snapshot(self) -> OpenView:
        """Return the index as it is now; what is added later is not in it."""
        # Rows and packets are only ever appended, so the arrays' beginnings stay as they are.
        rows = self._rows[: self._row_count]
        return OpenView(rows, self._groups[: self.packets], self._places[: self.packets])

    def sealed(self) -> dict[str, Array]:
        """Return the arrays of the closed index."""
        rows = self._rows[: self._row_count]
        identities = _identities(rows)
        tables, ends = _numbered_addresses(identities)
        a, b = (np.where(identities["kind"] == 0, end, np.uint32(_NO_ADDRESS)) for end in ends)
        tags, tag = np.unique(_tags(identities), return_inverse=True)
        order = np.lexsort((identities["a_port"], b, a))
        rank = np.empty(2 * len(rows), "u4")
        rank[2 * order] = np.arange(0, 2 * len(rows), 2, dtype="u4")
        rank[2 * order + 1] = rank[2 * order] + 1
        packets = rows["packets"][order].ravel()
        starts = np.zeros(2 * len(rows) + 1, "u4")
        np.cumsum(packets, out=starts[1:])
        sorted_places = np.empty(self.packets, "u4")
        core.sort(
            self._groups, self._places, self.packets, rank, len(rank), starts[:-1].copy(),
            sorted_places,
        )  # fmt: skip
        return {
            **tables,
            "a": a[order],
            "b": b[order],
            "a_port": identities["a_port"][order],
            "b_port": identities["b_port"][order],
            "protocol": identities["protocol"][order],
            "tag": tag[order].astype("u2"),
            "tags": np.stack(
                [tags >> np.uint64(bits) & np.uint64(0xFFFF) for bits in (32, 16, 0)], 1
            ).astype("u2"),
            "bytes": rows["bytes"][order].astype("u4"),
            "starts": starts,
            "places": sorted_places,
        }


def _grown(array: Array, room: int) -> Array:
    larger = np.zeros(room, array.dtype)
    larger[: len(array)] = array
    return larger


def _identities(rows: Array) -> Array:
    return np.ascontiguousarray(rows["identity"]).view(IDENTITY)


def _tags(identities: Array) -> Array:
    """Return kind and VLAN numbers as one value each, uint64, in three times 16 bits."""
    tags = identities["kind"].astype("u8") << np.uint64(32)
    tags |= identities["vlan"][:, 0].astype("u8") << np.uint64(16)
    tags |= identities["vlan"][:, 1]
    return tags


def _numbered_addresses(identities: Array) -> tuple[dict[str, Array], list[Array]]:
    """Return the tables of addresses, and for each end the number of its address.

    Those of IPv4 come first: their numbers are places in ``addresses4``, the others' follow.
    """
    halves = np.concatenate(
        [address_halves(identities["a_ip"]), address_halves(identities["b_ip"])]
    )
    is_4 = is_mapped(halves)
    numbers = np.empty(len(halves), "u4")
    addresses4, numbers[is_4] = np.unique(halves[is_4, 1].astype("u4"), return_inverse=True)
    order = np.lexsort((halves[~is_4, 1], halves[~is_4, 0]))
    others = halves[~is_4][order]
    is_new = np.ones(len(others), bool)
    is_new[1:] = (others[1:] != others[:-1]).any(axis=1)
    numbers6 = np.empty(len(others), "u4")
    numbers6[order] = np.cumsum(is_new, dtype="u4") + np.uint32(len(addresses4)) - 1
    numbers[~is_4] = numbers6
    addresses6 = others[is_new].astype(">u8").view("S16").ravel()
    count = len(identities)
    tables = {"addresses4": addresses4, "addresses6": addresses6}
    return tables, [numbers[:count], numbers[count:]]


def address_range(tables: Arrays, low: bytes, high: bytes) -> tuple[int, int]:
    """Return the numbers, from and below, of the addresses in the range."""
    if low[:12] == MAPPED and high[:12] == MAPPED:
        ends = [int.from_bytes(end[12:], "big") for end in (low, high)]
        addresses = tables["addresses4"]
        first = int(np.searchsorted(addresses, np.uint32(ends[0]), "left"))
        return first, int(np.searchsorted(addresses, np.uint32(ends[1]), "right"))
    addresses, base = tables["addresses6"], len(tables["addresses4"])
    first = int(np.searchsorted(addresses, np.array(low, "S16"), "left"))
    return base + first, base + int(np.searchsorted(addresses, np.array(high, "S16"), "right"))


class OpenView:
    """An `IndexView` of an open index."""

    def __init__(self, rows: Array, groups: Array, places: Array) -> None:
        self._rows = rows
        self._groups = groups
        self._places = places

    @functools.cached_property
    def _identities(self) -> Array:
        return _identities(self._rows)

    @property
    def protocol(self) -> Array:
        """See `IndexView`."""
        found: Array = self._identities["protocol"]
        return found

    @property
    def has_addresses(self) -> Array:
        """See `IndexView`."""
        found: Array = self._identities["kind"] == 0
        return found

    @property
    def a_port(self) -> Array:
        """See `IndexView`."""
        found: Array = self._identities["a_port"]
        return found

    @property
    def b_port(self) -> Array:
        """See `IndexView`."""
        found: Array = self._identities["b_port"]
        return found

    @property
    def vlan(self) -> Array:
        """See `IndexView`."""
        found: Array = self._identities["vlan"]
        return found

    def since(self, place: int) -> OpenView:
        """Return the index of the packets from a place on, at a cost that depends only on them."""
        first = int(np.searchsorted(self._places, np.uint32(place)))
        rows, groups, places = self._rows, self._groups[first:], self._places[first:]
        if len(rows) > len(groups):
            numbers, row = np.unique(groups >> 1, return_inverse=True)
            rows, groups = rows[numbers], (2 * row + (groups & 1)).astype("u4")
        return OpenView(rows, groups, places)

    def ends_within(self, low: bytes, high: bytes) -> tuple[Array, Array]:
        """See `IndexView`."""
        a, b = (
            _within(address_halves(self._identities[name]), low, high) & self.has_addresses
            for name in ("a_ip", "b_ip")
        )
        return a, b

    def places(self, groups: Array) -> tuple[Array, Array]:
        """See `IndexView`."""
        is_in = groups.T.ravel()[self._groups]
        return self._places[is_in], self._groups[is_in]

    def totals(self, groups: Array) -> tuple[int, int] | None:
        """See `IndexView`: the rows' counts may be ahead of the snapshot, so there are none."""
        del groups
        return None


class ClosedIndex:
    """An `IndexView` of the arrays that `OpenIndex.sealed` made."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.protocol = arrays["protocol"]
        self.a_port = arrays["a_port"]
        self.b_port = arrays["b_port"]

    @property
    def has_addresses(self) -> Array:
        """See `IndexView`."""
        found: Array = self._arrays["a"] != _NO_ADDRESS
        return found

    @property
    def vlan(self) -> Array:
        """See `IndexView`."""
        numbers: Array = self._arrays["tags"][:, 1:][self._arrays["tag"]]
        return numbers

    def ends_within(self, low: bytes, high: bytes) -> tuple[Array, Array]:
        """See `IndexView`."""
        first, below = address_range(self._arrays, low, high)
        if first == below:
            nothing = np.zeros(len(self.protocol), bool)
            return nothing, nothing
        a, b = self._arrays["a"], self._arrays["b"]
        if below == first + 1:
            return a == first, b == first
        return (a >= first) & (a < below), (b >= first) & (b < below)

    def places(self, groups: Array) -> tuple[Array, Array]:
        """See `IndexView`."""
        numbers = _group_numbers(groups)
        starts = self._arrays["starts"]
        begins = starts[numbers].astype("i8")
        counts = starts[numbers + 1] - begins
        # For each packet of each group, its place in the list of places.
        firsts = np.cumsum(counts) - counts
        at = np.arange(counts.sum()) + np.repeat(begins - firsts, counts)
        places = self._arrays["places"][at]
        order = np.argsort(places, kind="stable")
        return places[order], np.repeat(numbers, counts)[order]

    def totals(self, groups: Array) -> tuple[int, int] | None:
        """See `IndexView`."""
        numbers = _group_numbers(groups)
        starts = self._arrays["starts"]
        packets = (starts[numbers + 1] - starts[numbers]).sum(dtype="u8")
        return int(packets), int(self._arrays["bytes"].ravel()[numbers].sum(dtype="u8"))


def _group_numbers(groups: Array) -> Array:
    """Return the numbers of the groups that are set in bool (2, rows)."""
    directions, rows = np.divmod(np.flatnonzero(groups), max(groups.shape[1], 1))
    return 2 * rows + directions
