"""The connections that are under way: which packet belongs to which, and how much of each is kept.

A connection is what has one pair of ends and one protocol, in both directions. It ends when nothing
came for a while, or when a SYN comes after RST or after FIN in both directions; the same ends then
begin a new one, with a cutoff of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from perfmeasure.recorder import core
from perfmeasure.recorder.records import (
    CONNECTION,
    CONNECTION_IDENTITY,
    ENDED,
    IDENTITY,
    NO_CUTOFF,
    TIMEOUT_SUSPENDED,
    Array,
)

_FIRST_ROOM = 4096


@dataclass(frozen=True)
class Rules:
    """When connections end.

    Attributes:
        timeout_seconds: of inactivity, after which a connection has ended; 0 for never.
        ends_by_flags: whether RST, or FIN in both directions, ends a connection.
    """

    timeout_seconds: float = 1800.0
    ends_by_flags: bool = True


class Connections:
    """The table of connections.

    What is known of each is a row of `table`, dtype `perfmeasure.recorder.records.CONNECTION`;
    ``cutoff``, ``class_id`` and the bits that suspend may be set there between two calls. A slot is
    the number of a row, good until the next `forget`.

    Args:
        rules: what holds for all.
        catch_up: is called with the slot of a connection with the bit `IN_KERNEL` that seems to
            have been idle for too long. It brings the row up to date and takes the bit away.
        max_connections: above which those that were idle longest are forgotten: their packets would
            then begin a new connection.
    """

    def __init__(
        self, rules: Rules, catch_up: Callable[[int], None], max_connections: int = 1 << 20
    ) -> None:
        self._catch_up = catch_up
        self._rules = rules
        self._max = max_connections
        self._rows = np.zeros(_FIRST_ROOM, CONNECTION)
        self._used = 0
        self._index = core.make_table(self._rows, np.zeros(0, "u4"), _FIRST_ROOM)

    @property
    def table(self) -> Array:
        """The rows in use; those with the bit `ENDED` are found no more."""
        return self._rows[: self._used]

    def follow(self, frames: Array, packets: Array) -> tuple[Array, int]:
        """Find or begin the connection of each packet.

        Returns:
            Slots (uint32, `NO_SLOT` for packets without addresses), and the first slot of the
            connections that have begun: all from there on are new, and have no cutoff yet. A new
            one has the bit `IN_KERNEL` if the kernel's table still has an entry of the one before.
        """
        rules = self._rules
        slots = np.empty(len(frames), "u4")
        first_new = self._used
        done = 0
        while True:
            count, self._used = core.follow(
                packets[done:],
                frames[done:],
                len(frames) - done,
                self._index,
                self._rows,
                self._used,
                round(rules.timeout_seconds * 1e9),
                rules.ends_by_flags,
                NO_CUTOFF,
                slots[done:],
            )
            done += count
            if done == len(frames):
                return slots, first_new
            if self._used < len(self._rows):
                self._catch_up(int(slots[done]))
                continue
            rows = np.zeros(2 * len(self._rows), CONNECTION)
            rows[: self._used] = self._rows[: self._used]
            self._set(rows, self._used)

    def account(self, frames: Array, slots: Array) -> Array:
        """Count packets into their connections; return whether each is kept, bool."""
        keep = np.empty(len(frames), "u1")
        core.account(frames, slots, len(frames), self._rows, self._used, keep)
        return keep.view(bool)

    def find(self, identity: bytes) -> int | None:
        """Return the slot of a connection, given what `connection_identity` returns."""
        rows = self.table
        found = np.flatnonzero(
            (rows["identity"] == np.void(identity)) & (rows["state"] & ENDED == 0)
        )
        return int(found[0]) if len(found) else None

    @property
    def is_full(self) -> bool:
        """Whether it is time to `forget`."""
        return self._used > self._max

    def forget(self) -> Array:
        """Forget connections that have ended, and more if there are too many; renumbers slots.

        Returns:
            The rows that are no more.
        """
        rows = self.table
        idle_ns = rows["last_ns"].max(initial=0) - rows["last_ns"]
        is_kept = rows["state"] & ENDED == 0
        if self._rules.timeout_seconds:
            is_suspended = rows["state"] & TIMEOUT_SUSPENDED > 0
            is_kept &= is_suspended | (idle_ns <= round(self._rules.timeout_seconds * 1e9))
        kept = np.flatnonzero(is_kept)
        if len(kept) > self._max // 2:
            latest = np.argsort(idle_ns[kept], kind="stable")[: self._max // 2]
            kept = np.sort(kept[latest])
        room = max(_FIRST_ROOM, 1 << (2 * len(kept)).bit_length())
        fresh = np.zeros(room, CONNECTION)
        fresh[: len(kept)] = rows[kept]
        self._set(fresh, len(kept))
        return np.delete(rows, kept)

    def _set(self, rows: Array, used: int) -> None:
        self._rows, self._used = rows, used
        alive = np.flatnonzero(rows["state"][:used] & ENDED == 0).astype("u4")
        self._index = core.make_table(rows, alive, len(rows))


def connection_identity(protocol: int, one: tuple[bytes, int], other: tuple[bytes, int]) -> bytes:
    """Return the identity of a connection from its protocol and its ends (16 bytes, port)."""
    a, b = sorted((one, other))
    row = np.zeros(1, IDENTITY)
    row["a_ip"], row["a_port"] = np.void(a[0]), a[1]
    row["b_ip"], row["b_port"] = np.void(b[0]), b[1]
    row["protocol"] = protocol
    return row.tobytes()[:CONNECTION_IDENTITY]
