"""From batches of frames to a store: decode, follow connections, classify, cut, write."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.recorder import core
from perfmeasure.recorder.classes import Classes, Side
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.connections import Connections, connection_identity
from perfmeasure.recorder.cutoff import KernelCutoff
from perfmeasure.recorder.keys import Connection
from perfmeasure.recorder.records import (
    CUTOFF_SUSPENDED,
    IN_KERNEL,
    NO_SLOT,
    TIMEOUT_SUSPENDED,
    Array,
)
from perfmeasure.recorder.writer import StoreWriter

_ROOM_BYTES = 8 << 20
"""Free disk space above which a recording that was paused goes on: segments need an index too."""

_NOT_WRITTEN = (MeasurementError, OSError, sqlite3.Error)


@dataclass
class Totals:
    """What came; packets and bytes of whole frames, as on the wire. What is stored is the writer's.

    Attributes:
        cut: by class, (classes + 1, 2): what user space left out. The last is of no class.
        unstored: by class, what came while the recording was paused.
    """

    packets: int
    bytes: int
    cut: Array
    unstored: Array


class Recording:
    """Packets, by class, each kept up to the cutoff of its connection.

    Args:
        writer: of the store, with the limits of the classes.
        setup: classes, and when connections end.
        tell: is given a message when the disk is full, and when there is room again. Without it, a
            full disk is an error: what is read from a file must not be left out.
        kernel: drops in the kernel what is past its cutoff, if given.

    Attributes:
        classes: all of them.
        connections: those under way.
        totals: what came to user space.
        is_paused: whether the disk is full.
        now_ns: the time of the latest packet.
    """

    def __init__(
        self,
        writer: StoreWriter,
        setup: Setup,
        tell: Callable[[str], None] | None = None,
        kernel: KernelCutoff | None = None,
    ) -> None:
        self._writer = writer
        self._tell = tell
        self.kernel = kernel
        self.classes = Classes(list(setup.classes))
        only = self.classes.list[0]
        # Without a cutoff, a filter or addresses to assign, nothing depends on connections.
        self._is_plain = len(setup.classes) == 1 and only.cutoff_bytes is None and not only.filter
        self.connections = Connections(setup.rules, self._catch_up)
        shape = (len(setup.classes) + 1, 2)
        self.totals = Totals(0, 0, np.zeros(shape, "u8"), np.zeros(shape, "u8"))
        self.is_paused = False
        self._noted = 0  # what was left out while it was paused, and is noted with segments
        self.now_ns = 0

    # ---- packets --------------------------------------------------------------------------------

    def add(self, data: Any, frames: Array) -> None:
        """Record frames of a buffer.

        Args:
            data: the buffer.
            frames: dtype `perfmeasure.recorder.records.FRAME`, at least one.

        Raises:
            UsageError: the filter of a class has no meaning for the frames' link type.
            MeasurementError: the disk is full, and the recording may not pause.
        """
        packets = core.decode(data, frames)
        self.totals.packets += len(frames)
        self.totals.bytes += int(frames["original"].sum(dtype="u8"))
        self.now_ns = max(self.now_ns, int(frames["ts_ns"][-1]))
        if self._is_plain:
            self._store(0, data, frames, packets)
            return
        if self.connections.is_full:
            self._forget()
        slots, first_new = self.connections.follow(frames, packets)
        table = self.connections.table
        self.classes.begin(table, first_new, data, frames, slots)
        if self.kernel is not None and len(begun := table[first_new:]):
            replaced = begun["state"] & IN_KERNEL > 0
            if replaced.any():
                self.kernel.drop(begun[replaced])
                begun["state"][replaced] &= ~np.uint8(IN_KERNEL)
        keep = self.connections.account(frames, slots)
        numbers = self._numbers(data, frames, slots, keep)
        if not keep.all():
            is_cut = ~keep
            _add(self.totals.cut, numbers[is_cut], frames["original"][is_cut])
            if self.kernel is not None:
                cut = slots[is_cut]
                self.kernel.enter(table, np.unique(cut[cut != NO_SLOT]))
        for number in range(self.classes.none):
            of_it = keep & (numbers == number)
            if of_it.all():
                self._store(number, data, frames, packets)
            elif of_it.any():
                self._store(number, data, frames[of_it], packets[of_it])

    def _numbers(self, data: Any, frames: Array, slots: Array, keep: Array) -> Array:
        """Return the class of each packet; what has no addresses is classified by itself."""
        is_lone = slots == NO_SLOT
        class_ids = self.connections.table["class_id"]
        if not is_lone.any():
            numbers: Array = class_ids[slots]
            return numbers
        numbers = np.empty(len(frames), "u4")
        numbers[~is_lone] = class_ids[slots[~is_lone]]
        numbers[is_lone] = self.classes.of_frames(data, frames[is_lone])
        keep &= numbers != self.classes.none
        return numbers

    def _store(self, number: int, data: Any, frames: Array, packets: Array) -> None:
        name = self.classes.list[number].name
        before = int(self._writer.stored[name][0])
        if not self.is_paused:
            try:
                self._writer.append(name, data, frames, packets)
            except _NOT_WRITTEN as error:
                self._pause(error)
            else:
                return
        written = int(self._writer.stored[name][0]) - before
        self.totals.unstored[number] += np.array(
            [len(frames) - written, frames["original"][written:].sum(dtype="u8")], "u8"
        )

    # ---- the disk -------------------------------------------------------------------------------

    def _pause(self, error: Exception) -> None:
        if self._tell is None:
            raise error
        self.is_paused = True
        self._tell(f"{error}. Recording pauses until there is room")

    def tidy(self, now_ns: int) -> None:
        """Do what is due from time to time, at this Unix time."""
        if self.kernel is not None:
            self.kernel.refresh(self.connections.table)
        if self.is_paused and self._tell is not None:
            free = shutil.disk_usage(self._writer.folder).free
            if free < _ROOM_BYTES:
                return
            self.is_paused = False
            self._tell(f"{self._writer.folder}: there is room again, recording goes on")
        try:
            if missed := int(self.totals.unstored[:, 0].sum()) - self._noted:
                self._writer.add_drops(missed)
                self._noted += missed
            self._writer.rotate(now_ns)
        except _NOT_WRITTEN as error:
            self._pause(error)

    # ---- connections ----------------------------------------------------------------------------

    def _catch_up(self, slot: int) -> None:
        if self.kernel is not None:
            self.kernel.take_out(self.connections.table, slot)

    def _forget(self) -> None:
        if self.kernel is not None:
            self.kernel.refresh(self.connections.table)
        gone = self.connections.forget()
        if self.kernel is not None:
            self.kernel.drop(gone[gone["state"] & IN_KERNEL > 0])

    def seen(self) -> tuple[int, int]:
        """Return packets and bytes that came, those that the kernel cut included."""
        cut = self.kernel.all_cut() if self.kernel is not None else (0, 0)
        return self.totals.packets + cut[0], self.totals.bytes + cut[1]

    def cut(self, number: int) -> Array:
        """Return packets and bytes of a class that were past their cutoff (2,)."""
        total: Array = self.totals.cut[number].copy()
        if self.kernel is not None:
            total += self.kernel.cut(number)
        return total

    def find(self, key: Connection) -> int:
        """Return the slot of a connection that is under way, brought up to date.

        Raises:
            UsageError: it is in no table.
        """
        slot = None
        if key.protocol is not None and None not in key.ports:
            first, second = ((ip, port or 0) for ip, port in zip(key.ends, key.ports, strict=True))
            slot = self.connections.find(connection_identity(key.protocol, first, second))
        if slot is None:
            raise UsageError("connection", "not in the connection table", "one that is under way")
        self._withdraw(np.array([slot]))
        return slot

    def _withdraw(self, slots: Array) -> None:
        """Have the kernel cut nothing of these connections, until a packet is cut again."""
        table = self.connections.table
        for slot in slots[table["state"][slots] & IN_KERNEL > 0].tolist():
            self._catch_up(slot)

    def suspend_cutoff(self, key: Connection, *, is_suspended: bool = True) -> None:
        """Keep all packets of a connection from now on, or obey its cutoff again.

        Raises:
            UsageError: it is in no table.
        """
        self._set(self.find(key), CUTOFF_SUSPENDED, is_suspended=is_suspended)

    def suspend_timeout(self, key: Connection, *, is_suspended: bool = True) -> None:
        """Have a connection not end by inactivity, or end so again.

        Raises:
            UsageError: it is in no table.
        """
        self._set(self.find(key), TIMEOUT_SUSPENDED, is_suspended=is_suspended)

    def _set(self, slot: int, bit: int, *, is_suspended: bool) -> None:
        states = self.connections.table["state"]
        states[slot] = states[slot] | bit if is_suspended else states[slot] & ~np.uint8(bit)

    def assign(self, address: bytes, name: str, side: Side = Side.BOTH) -> None:
        """Have the connections of an address be of a class; see `Classes.assign`."""
        table = self.connections.table
        self._withdraw(self.classes.assign(address, name, side, self.now_ns, table))


def _add(totals: Array, numbers: Array, sizes: Array) -> None:
    count = len(totals)
    totals[:, 0] += np.bincount(numbers, minlength=count).astype("u8")
    totals[:, 1] += np.bincount(numbers, sizes, minlength=count).astype("u8")
