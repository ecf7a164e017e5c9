"""Classes: what a connection is kept as, by filters, and by addresses assigned for a time."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perfmeasure.errors import UsageError
from perfmeasure.recorder.libpcap import Filters
from perfmeasure.recorder.records import CONNECTION_IDENTITY, FROM_B, NO_CUTOFF, NO_SLOT, Array
from perfmeasure.recorder.writer import Limits

_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")


@dataclass(frozen=True)
class PacketClass:
    """A class of connections.

    Attributes:
        name: letters, digits, ``_`` and ``-``: it names a folder of the store.
        filter: in pcap's language; the first packet of a connection decides. Empty takes all.
        precedence: of the classes that match, the one with the highest; of equals, the first.
        cutoff_bytes: a packet is kept while the bytes of its connection before it, both directions
            together, are below this; None keeps all.
        limits: how it is stored.
        dynamic_timeout_seconds: how long an address stays assigned to it; 0 for ever.

    Raises:
        UsageError: the name cannot be one.
    """

    name: str
    filter: str = ""
    precedence: int = 0
    cutoff_bytes: int | None = None
    limits: Limits = field(default_factory=Limits)
    dynamic_timeout_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise UsageError(
                f"class {self.name!r}", "not a name", "letters, digits, _ and -, such as all"
            )


class Side(enum.Enum):
    """Which connections of an address are meant."""

    BOTH = "both"
    ORIGINATOR = "orig"
    """Those that it began."""
    RESPONDER = "resp"


@dataclass(frozen=True)
class _Assignment:
    number: int
    side: Side
    until_ns: int


class Classes:
    """All classes, by precedence. The number of a class is its place in ``list``.

    Connections that no class takes have the number ``len(list)``, and a cutoff of 0.

    Args:
        classes: at least one; no name twice.

    Raises:
        UsageError: a filter is no expression, or a name comes twice.
        MissingError: there are filters, and no libpcap.
    """

    def __init__(self, classes: list[PacketClass]) -> None:
        self.list = sorted(classes, key=lambda each: -each.precedence)
        self.none = len(self.list)
        self.numbers = {each.name: number for number, each in enumerate(self.list)}
        if len(self.numbers) < len(self.list):
            names = [each.name for each in classes]
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"class {twice!r}", "defined twice", "one definition")
        kept = [NO_CUTOFF if c.cutoff_bytes is None else c.cutoff_bytes for c in self.list]
        self._cutoffs = np.array([*kept, 0], "u8")
        self._assigned: dict[bytes, _Assignment] = {}
        self._filters = [
            Filters(each.filter, f"class {each.name}") if each.filter else None
            for each in self.list
        ]

    def of_frames(self, data: Any, frames: Array) -> Array:
        """Return the number of the class whose filter takes each frame, uint32.

        Raises:
            UsageError: a filter has no meaning for the frames' link type.
        """
        numbers = np.full(len(frames), self.none, "u4")
        left = np.arange(len(frames))
        for number, filters in enumerate(self._filters):
            found = np.ones(len(left), bool)
            if filters is not None:
                found = filters.matches(data, frames[left])
            numbers[left[found]] = number
            left = left[~found]
        return numbers

    def begin(self, table: Array, first_new: int, data: Any, frames: Array, slots: Array) -> None:
        """Give the connections from ``first_new`` on, which just began, their class and cutoff."""
        new = np.flatnonzero((slots >= first_new) & (slots != NO_SLOT))
        if not len(new):
            return
        _, where = np.unique(slots[new], return_index=True)
        rows = table[first_new:]
        rows["class_id"] = self.of_frames(data, frames[new[where]])
        if self._assigned:
            for row in rows:
                found = self._assignment(row)
                if found is not None:
                    row["class_id"] = found
        rows["cutoff"] = self._cutoffs[rows["class_id"]]

    # ---- addresses that are assigned ------------------------------------------------------------

    def _assignment(self, row: Any) -> int | None:
        """Return the class that an end of a connection is assigned to; the originator is first."""
        ends = [(row["identity"].tobytes()[at : at + 16]) for at in (0, 16)]
        if row["state"] & FROM_B:
            ends.reverse()
        for address, side in zip(ends, (Side.ORIGINATOR, Side.RESPONDER), strict=True):
            assignment = self._assigned.get(address)
            if assignment is None or assignment.side not in (side, Side.BOTH):
                continue
            if int(row["first_ns"]) <= assignment.until_ns:
                return assignment.number
            del self._assigned[address]
        return None

    def assign(self, address: bytes, name: str, side: Side, now_ns: int, table: Array) -> Array:
        """Have the connections of an address be of a class, those under way included.

        Args:
            address: 16 bytes, IPv4 mapped into IPv6.
            name: of the class. What an address was assigned to before no longer holds.
            side: which connections of it.
            now_ns: Unix time from which the timeout of the class counts.
            table: the connections under way, which get class and cutoff.

        Returns:
            Their slots.

        Raises:
            UsageError: there is no such class.
        """
        number = self.numbers.get(name)
        if number is None:
            raise UsageError(
                f"class {name!r}", "no such class", f"one of {', '.join(self.numbers)}"
            )
        timeout_seconds = self.list[number].dynamic_timeout_seconds
        until_ns = now_ns + round(timeout_seconds * 1e9) if timeout_seconds else 2**63 - 1
        self._assigned[address] = _Assignment(number, side, until_ns)
        identities = np.ascontiguousarray(table["identity"]).view("u1")
        identities = identities.reshape(len(table), CONNECTION_IDENTITY)
        wanted = np.frombuffer(address, "u1")
        is_a, is_b = ((identities[:, at : at + 16] == wanted).all(axis=1) for at in (0, 16))
        from_b = table["state"] & FROM_B > 0
        is_originator = np.where(from_b, is_b, is_a)
        is_responder = np.where(from_b, is_a, is_b)
        found = {
            Side.BOTH: is_a | is_b, Side.ORIGINATOR: is_originator, Side.RESPONDER: is_responder,
        }[side]  # fmt: skip
        slots: Array = np.flatnonzero(found)
        table["class_id"][slots] = number
        table["cutoff"][slots] = self._cutoffs[number]
        return slots

    def unassign(self, address: bytes) -> bool:
        """Have the connections of an address that begin from now on be of what filters say.

        Returns:
            Whether it was assigned.
        """
        return self._assigned.pop(address, None) is not None

    @property
    def assigned(self) -> int:
        """How many addresses are assigned."""
        return len(self._assigned)
