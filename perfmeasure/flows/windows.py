"""Windows of time, counted in the kernel and drained exactly.

The program puts a packet into the table of its window's slot if that slot is armed for the window,
and counts it as late if it is not. A window is swept when it has ended and no program that began
in it is still running: its table is read and emptied in batches, its counters are read, the slot
is armed for the window `SLOTS` later. All this is per processor in the kernel, so that nothing
there is locked and nothing is lost between a look and a deletion.
"""

from __future__ import annotations

import errno
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perfmeasure.clock import ClockPair, read_pair
from perfmeasure.flows import bpfcall, keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.bpfcall import BatchReader
from perfmeasure.flows.interfaces import FUNCTIONS
from perfmeasure.flows.keys import Array, Total
from perfmeasure.flows.loader import Program

if TYPE_CHECKING:
    from collections.abc import Iterable

MARGIN_NS = 2_000_000
"""How long after its end a window is swept: what the processors' clocks may differ by, and more."""

_NEVER_NS = 2**64 - 1
_BATCH_BYTES = 4 * 2**20
DEFAULT_FLOWS = 65536


@dataclass(frozen=True)
class Overflow:
    """Packets of one protocol and direction that found no room in the table of a window."""

    direction: int
    protocol: int
    total: Total


@dataclass(frozen=True)
class Window:
    """One window that has been swept."""

    number: int
    """Its beginning in monotonic time, divided by its length."""
    length_ns: int
    flows: Array
    """One row of `keys.TABLE` for each flow."""
    terms: Terms
    overflow: tuple[Overflow, ...]
    clock: ClockPair
    """Read at the sweep; it turns the window's monotonic times into UTC."""

    @property
    def begin_ns(self) -> int:
        """Its beginning in monotonic time."""
        return self.number * self.length_ns

    @property
    def begin_unix_ts(self) -> float:
        """Its beginning in UTC."""
        return (self.begin_ns + self.clock.distance_ns) / 1e9


class Windows:
    """The counting program, loaded, and the sweeping of its windows.

    Args:
        length_ns: length of a window.
        max_flows: how many flows the table of a window has room for.
        is_service_key: leave the client's port out of the key.
        functions: which functions of the program to load, and as what.
        file_name: the program.

    Raises:
        MissingError: this machine cannot load it.
    """

    def __init__(
        self,
        length_ns: int,
        max_flows: int = DEFAULT_FLOWS,
        *,
        is_service_key: bool = False,
        functions: Iterable[str] = FUNCTIONS,
        file_name: str = "flows.bpf.c",
    ) -> None:
        self.length_ns = length_ns
        definitions = {"WINDOW_NS": length_ns, "MAX_FLOWS": max_flows}
        if is_service_key:
            definitions["SERVICE_KEY"] = 1
        self.program = Program(
            file_name, {name: FUNCTIONS[name] for name in functions}, definitions
        )
        self._processors = bpfcall.possible_processors()
        entry_bytes = keys.KEY.itemsize + keys.VALUE.itemsize * self._processors
        self._reader = BatchReader(
            keys.KEY, keys.VALUE, self._processors, max(512, _BATCH_BYTES // entry_bytes)
        )
        self._slots_fd = self.program.map_fd("slots")
        self._control_fd = self.program.map_fd("control")
        self._table_fds = [self.program.map_fd(f"flows_{slot}") for slot in range(keys.SLOTS)]
        for slot in range(keys.SLOTS):
            self._set_slot(slot)
        self._control(keys.CONTROL_BEGIN_NS, _NEVER_NS)
        self._totals_before = np.zeros(keys.WINDOW_RING, keys.WINDOW_TOTALS)
        self._overflow_before = np.zeros((keys.SLOTS, 2, keys.PROTOCOLS), keys.TOTALS)
        self._has_barrier = True
        self._armed = [-1] * keys.SLOTS
        self._next = 0  # the first window that has not been swept

    def begin(self) -> int:
        """Count from now on, on all hooks alike; return that moment in monotonic time."""
        now_ns = time.monotonic_ns()
        self._next = now_ns // self.length_ns
        for number in range(self._next, self._next + keys.SLOTS):
            self._arm(number)
        self._control(keys.CONTROL_BEGIN_NS, now_ns)
        return now_ns

    def wait_ns(self) -> int:
        """Return how long to wait for the next window that can be swept; it may be negative."""
        return (self._next + 1) * self.length_ns + MARGIN_NS - time.monotonic_ns()

    def sweep(self) -> list[Window]:
        """Return the windows that have ended since the last sweep, in order."""
        last = (time.monotonic_ns() - MARGIN_NS) // self.length_ns - 1
        return self._sweep_to(last) if last >= self._next else []

    def finish(self) -> list[Window]:
        """Return all windows that are left, the current one too.

        Nothing may be attached any more. Counting can begin again after it.
        """
        self._control(keys.CONTROL_BEGIN_NS, _NEVER_NS)
        return self._sweep_to((time.monotonic_ns() + MARGIN_NS) // self.length_ns)

    def hook_total(self, interface_index: int, direction: int) -> Total:
        """Return what was seen at one hook, counted by itself."""
        at = interface_index % keys.HOOK_INTERFACES * 2 + direction
        return self._totals("hooks", at)

    def unparsed_by_reason(self) -> dict[str, int]:
        """Return the packets that no key could be made of, by the reason."""
        counts = {
            reason: self._totals("unparsed_reasons", number).packets
            for number, reason in enumerate(keys.UNPARSED_REASONS)
            if reason
        }
        return {reason: count for reason, count in counts.items() if count}

    def full_by_error(self) -> dict[str, int]:
        """Return the packets that found no room, by the name of the kernel's error."""
        counts = {
            name: self._totals("full_errors", number).packets
            for number, name in errno.errorcode.items()
            if number < keys.ERROR_NUMBERS
        }
        return {name: count for name, count in counts.items() if count}

    def _sweep_to(self, last: int) -> list[Window]:
        self._wait_for_programs()
        clock = read_pair()
        swept = []
        for number in range(self._next, last + 1):
            slot = number % keys.SLOTS
            flows = np.zeros(0, keys.TABLE)
            if self._armed[slot] == number:
                flows = self._drain(slot)
                # For the first window of this slot that has not ended: after a lag, not the next.
                first = max(last + 1, time.monotonic_ns() // self.length_ns)
                self._arm(first + (number - first) % keys.SLOTS)
            elif number <= last - keys.WINDOW_RING:
                continue  # its counters have become part of a later window's
            terms = self._terms(number).with_drained(keys.total(flows))
            overflow = self._overflow(slot) if terms.full.packets else ()
            swept.append(Window(number, self.length_ns, flows, terms, overflow, clock))
        self._next = last + 1
        return swept

    def _drain(self, slot: int) -> Array:
        batches = self._reader.drained_batches(self._table_fds[slot])
        tables = [keys.sum_processors(*batch) for batch in batches]
        return np.concatenate(tables)

    def _arm(self, number: int) -> None:
        self._control(number % keys.SLOTS, number)
        self._armed[number % keys.SLOTS] = number

    def _terms(self, number: int) -> Terms:
        at = number % keys.WINDOW_RING
        raw = self._per_processor("windows", at, keys.WINDOW_TOTALS)
        counted = []
        for term in keys.COUNTED_TERMS:
            now = (int(raw[term]["packets"].sum()), int(raw[term]["bytes"].sum()))
            before = self._totals_before[at][term]
            counted.append(Total(now[0] - int(before["packets"]), now[1] - int(before["bytes"])))
            self._totals_before[term][at] = now
        return Terms(**dict(zip(keys.COUNTED_TERMS, counted, strict=True)))

    def _overflow(self, slot: int) -> tuple[Overflow, ...]:
        found = []
        for direction in range(2):
            for protocol in range(keys.PROTOCOLS):
                at = (slot * 2 + direction) * keys.PROTOCOLS + protocol
                now = self._totals("overflow", at)
                before = self._overflow_before[slot, direction, protocol]
                total = Total(
                    now.packets - int(before["packets"]), now.bytes - int(before["bytes"])
                )
                self._overflow_before[slot, direction, protocol] = now
                if total.packets:
                    found.append(Overflow(direction, protocol, total))
        return tuple(found)

    def _totals(self, map_name: str, at: int) -> Total:
        raw = self._per_processor(map_name, at, keys.TOTALS)
        return Total(int(raw["packets"].sum()), int(raw["bytes"].sum()))

    def _per_processor(self, map_name: str, at: int, dtype: np.dtype[np.void]) -> Array:
        value = bpfcall.lookup(
            self.program.map_fd(map_name), struct.pack("=I", at), dtype.itemsize * self._processors
        )
        assert value is not None  # noqa: S101 - an array has all its entries
        return np.frombuffer(value, dtype)

    def _set_slot(self, slot: int) -> None:
        bpfcall.update(
            self._slots_fd, struct.pack("=I", slot), struct.pack("=I", self._table_fds[slot])
        )

    def _control(self, at: int, value: int) -> None:
        bpfcall.update(self._control_fd, struct.pack("=I", at), struct.pack("=Q", value))

    def _wait_for_programs(self) -> None:
        """Return when every program that runs now has ended."""
        if self._has_barrier:
            try:
                bpfcall.wait_for_programs()
            except OSError:
                self._has_barrier = False  # nohz_full, or a filter of system calls
            else:
                return
        # To replace a map in a map of maps waits for the programs, too.
        self._set_slot(0)
