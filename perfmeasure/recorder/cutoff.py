"""The cutoff in the kernel: connections that are past theirs are dropped before they are copied.

User space decides about every packet that it sees, whether the kernel helps or not, so the packets
that are kept are the same. The kernel's table (``bpf/cutoff.bpf.c``) only spares the copies:

- A connection goes in when a packet of it was cut. The kernel then watches it, but cuts nothing
  until user space has done every block of the ring that may hold packets from before: had one of
  those ended the connection, the entry would be gone again. All that go in together are of one
  epoch, and the kernel is told up to which epoch it may cut.
- FIN and RST always come to user space. A SYN, and a pause as long as the timeout, lift the entry:
  all comes to user space again, which ends the connection or enters it anew.
- When the entry is taken out, its counts go into the connection's row.
"""

from __future__ import annotations

import errno
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from perfmeasure.clock import read_pair
from perfmeasure.flows import bpfcall
from perfmeasure.flows.loader import Program
from perfmeasure.recorder.records import (
    CONNECTION_IDENTITY,
    ENDED,
    FIN_A,
    FIN_B,
    IN_KERNEL,
    LINK_ETHERNET,
    RST,
    TIMEOUT_SUSPENDED,
    Array,
)

MAX_CLASSES = 64
"""How many counters of what was cut there are."""
_MAX_FLOWS = 65536
_KEY_BYTES = 40

CUT_FLOW = np.dtype([
    ("epoch", "u8"), ("last_ns", "u8"), ("timeout_ns", "u8"), ("packets", "u8"),
    ("bytes", "u8"), ("hash", "u8"), ("class_id", "u4"), ("is_lifted", "u4"),
])  # fmt: skip
"""``struct cut_flow``."""
_TOTALS = np.dtype([("packets", "u8"), ("bytes", "u8")])


class KernelCutoff:
    """The table of connections that are past their cutoff, and the program that uses it.

    Args:
        link: of the frames.
        timeout_seconds: after which idle connections end; 0 for never.
        blocks_filled: tells how many blocks the kernel has filled since the ring began.
        wanted: drops all that does not match it; what `filter_source` returns.

    Attributes:
        count: connections in the table.
        refused: connections that found no room in the table; user space cuts them.

    Raises:
        MissingError: the program cannot be compiled or loaded here.
    """

    def __init__(
        self,
        link: int,
        timeout_seconds: float,
        blocks_filled: Callable[[], int],
        wanted: str = "",
    ) -> None:
        definitions: dict[str, int | str] = {"MAX_FLOWS": _MAX_FLOWS, "MAX_CLASSES": MAX_CLASSES}
        if link != LINK_ETHERNET:
            definitions["RAW_IP"] = 1
        if wanted:
            definitions["FILTER"] = wanted
        self._program = Program("cutoff.bpf.c", {"cutoff": "SOCKET_FILTER"}, definitions)
        self._flows = self._program.map_fd("cut_flows")
        self._processors = bpfcall.possible_processors()
        self._reader = bpfcall.BatchReader(np.dtype(f"V{_KEY_BYTES}"), CUT_FLOW)
        self._timeout_ns = round(timeout_seconds * 1e9)
        self._blocks_filled = blocks_filled
        self._epoch = 0
        self._waiting: deque[tuple[int, int]] = deque()  # epochs, and blocks to be done before
        self.count = 0
        self.refused = 0

    @property
    def program_fd(self) -> int:
        """The descriptor of the socket filter."""
        return self._program.fd("cutoff")

    def blocks_done(self, count: int) -> None:
        """Take in how many blocks of the ring have been done with since it began."""
        epoch = 0
        while self._waiting and self._waiting[0][1] <= count:
            epoch, _ = self._waiting.popleft()
        if epoch:
            content = epoch.to_bytes(8, sys.byteorder)
            bpfcall.update(self._program.map_fd("epochs_done"), bytes(4), content)

    def enter(self, table: Array, slots: Array) -> None:
        """Enter connections that are past their cutoff, but those that are ending."""
        state = table["state"][slots]
        is_closing = (state & RST > 0) | (state & (FIN_A | FIN_B) == FIN_A | FIN_B)
        wanted = slots[(state & (IN_KERNEL | ENDED) == 0) & ~is_closing]
        if not len(wanted):
            return
        rows = table[wanted]
        values = np.zeros(len(rows), CUT_FLOW)
        self._epoch += 1
        values["epoch"] = self._epoch
        # In the kernel's time, so that a pause is measured from the last packet on.
        values["last_ns"] = rows["last_ns"] - read_pair().distance_ns
        values["timeout_ns"] = np.where(rows["state"] & TIMEOUT_SUSPENDED, 0, self._timeout_ns)
        values["hash"] = rows["hash"]
        values["class_id"] = rows["class_id"]
        for slot, row, value in zip(wanted.tolist(), rows, values, strict=True):
            try:
                bpfcall.update(self._flows, _key(row), value.tobytes())
            except OSError as error:
                if error.errno != errno.E2BIG:
                    raise
                self.refused += 1
                continue
            table["state"][slot] |= IN_KERNEL
            self.count += 1
        # What the filter let through before now is in a block that is full, in the one that is
        # being filled, or, if it is on its way just now, in the next.
        self._waiting.append((self._epoch, self._blocks_filled() + 2))

    def take_out(self, table: Array, slot: int) -> None:
        """Remove a connection's entry; what was cut of it goes into its row, as does when."""
        row = table[slot]
        content = bpfcall.take(self._flows, _key(row), CUT_FLOW.itemsize)
        row["state"] &= ~np.uint8(IN_KERNEL)
        if content is None:
            return
        self.count -= 1
        (value,) = np.frombuffer(content, CUT_FLOW)
        last_ns = int(value["last_ns"]) + read_pair().distance_ns
        row["last_ns"] = max(row["last_ns"], last_ns)
        row["packets"] += value["packets"]
        row["bytes"] += value["bytes"]

    def drop(self, rows: Array) -> None:
        """Remove the entries of connections that are no more."""
        for row in rows:
            if bpfcall.take(self._flows, _key(row), CUT_FLOW.itemsize) is not None:
                self.count -= 1

    def refresh(self, table: Array) -> None:
        """Bring the time of all entered connections up to date, and take out those in doubt."""
        if not self.count:
            return
        slots = np.flatnonzero(table["state"] & IN_KERNEL)
        hashes = table["hash"][slots]
        order = np.argsort(hashes)
        _, values = self._reader.peek(self._flows)
        entries = values[:, 0]
        places = np.searchsorted(hashes[order], entries["hash"])
        found = places < len(slots)
        entries, rows = entries[found], slots[order[places[found]]]
        is_one = table["hash"][rows] == entries["hash"]
        entries, rows = entries[is_one], rows[is_one]
        last_ns = entries["last_ns"].astype("i8") + read_pair().distance_ns
        table["last_ns"][rows] = np.maximum(table["last_ns"][rows], last_ns)
        for slot in rows[entries["is_lifted"] > 0].tolist():
            self.take_out(table, slot)

    def seen(self) -> Array:
        """Return packets and bytes that came to the socket, cut ones included, in all."""
        return self._totals("seen", 0)

    def cut(self, class_id: int) -> Array:
        """Return packets and bytes that were cut of a class, in all."""
        return self._totals("cut", class_id)

    def all_cut(self) -> tuple[int, int]:
        """Return packets and bytes that were cut of all classes, in all."""
        each = [self.cut(number) for number in range(MAX_CLASSES)]
        return sum(int(packets) for packets, _ in each), sum(int(size) for _, size in each)

    def _totals(self, name: str, number: int) -> Array:
        size = _TOTALS.itemsize * self._processors
        content = bpfcall.lookup(
            self._program.map_fd(name), number.to_bytes(4, sys.byteorder), size
        )
        counts = np.frombuffer(content or bytes(size), "u8").reshape(-1, 2)
        total: Array = counts.sum(axis=0)
        return total


def _key(row: Any) -> bytes:
    """Return the ``struct flow_key`` of a row: its identity, and no direction and interface."""
    identity: bytes = row["identity"].tobytes()
    return identity[:CONNECTION_IDENTITY].ljust(_KEY_BYTES, b"\0")
