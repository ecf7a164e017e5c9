"""The recorder's logs: what came, what was lost, what was kept, by the original's field names.

Three logs in the store's folder ``log``, tab-separated, a line that begins with ``#`` naming the
fields: ``stats.log``, one line an interval; ``classes.log``, one a class and interval;
``indexes.log``, one an index and interval. docs/formats.md has the meaning of each field.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from perfmeasure.logfile import LogFile
from perfmeasure.recorder.keys import INDEXES
from perfmeasure.recorder.recording import Recording
from perfmeasure.recorder.records import Array
from perfmeasure.recorder.writer import StoreWriter, Usage

STATS = (
    "timestamp", "conns", "dyn_class", "pcap_recv", "pcap_drop", "drop_ratio", "d_drop", "totPkts",
    "totBytes", "link_rate_mbit", "uncutPkts", "uncutBytes", "uncut_rate_mbit", "utime", "stime",
    "mem_os", "mem", "queryPkts", "queryBytes", "p_ifdrop", "unstored_pkts", "kernel_conns",
    "state",
)  # fmt: skip
CLASSES = (
    "timestamp", "class", "stored_bytes", "stored_pkts", "cut_bytes", "cut_pkts", "mem_bytes",
    "mem_pkts", "mem_dt", "disk_bytes", "disk_pkts", "disk_dt", "unstored_pkts",
)  # fmt: skip
INDEX_FIELDS = ("timestamp", "index", "entries_mem", "qlen")

Figures = tuple[object, ...]
"""The values of a line."""

_MOST_WAITING = 10_000
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Losses:
    """What was counted outside of the recording, in all.

    Attributes:
        received: packets that passed the socket's filter.
        dropped: those of them for which the ring had no room.
        interface_drops: what the interface itself dropped.
    """

    received: int = 0
    dropped: int = 0
    interface_drops: int = 0


class Statistics:
    """The three logs.

    Args:
        folder: of the store.

    Attributes:
        query_packets: packets that queries of this process have delivered.
        query_bytes: their captured bytes.

    Raises:
        MeasurementError: they cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._logs: dict[str, LogFile] = {}
        self._waiting: dict[str, deque[bytes]] = {}
        for name, fields in (("stats", STATS), ("classes", CLASSES), ("indexes", INDEX_FIELDS)):
            path = folder / "log" / f"{name}.log"
            is_new = not path.exists() or not path.stat().st_size
            self._logs[name] = LogFile(path)
            # What a full disk does not take now is written when there is room.
            self._waiting[name] = deque(maxlen=_MOST_WAITING)
            if is_new:
                self._line(name, "#" + "\t".join(fields), time.time())
        self.query_packets = 0
        self.query_bytes = 0
        self._last = (time.monotonic(), 0, 0, 0)  # when, drops, all bytes, stored bytes

    def add_query(self, packets: int, size: int) -> None:
        """Count what a query has delivered."""
        self.query_packets += packets
        self.query_bytes += size

    def write(self, recording: Recording, writer: StoreWriter, losses: Losses) -> None:
        """Write one interval's lines, and begin another interval."""
        now = time.time()
        for name, lines in self.figures(recording, writer, losses, now).items():
            for values in lines:
                self._line(name, "\t".join(map(str, values)), now)
        _, size = recording.seen()
        self._last = (time.monotonic(), losses.dropped, size, _stored(recording, writer)[1])

    def figures(
        self, recording: Recording, writer: StoreWriter, losses: Losses, now: float
    ) -> dict[str, list[Figures]]:
        """Return the lines of each log as they would be written now; no interval ends.

        Args:
            recording: what is recorded.
            writer: of the store.
            losses: what was counted outside of the recording.
            now: Unix time.
        """
        usages = [writer.usage(each.name) for each in recording.classes.list]
        rows = sum(usage.open_rows for usage in usages)
        return {
            "stats": [self._stats(recording, writer, losses, usages, now)],
            "classes": [
                _class(now, number, usage, recording, writer.stored)
                for number, usage in enumerate(usages)
            ],
            "indexes": [(f"{now:.6f}", index, rows, 0) for index in INDEXES],
        }

    def _stats(
        self,
        recording: Recording,
        writer: StoreWriter,
        losses: Losses,
        usages: list[Usage],
        now: float,
    ) -> Figures:
        packets, size = recording.seen()
        conns = len(recording.connections.table)
        in_kernel = recording.kernel.count if recording.kernel is not None else 0
        stored, stored_bytes = _stored(recording, writer)
        then, drops, last_size, last_stored = self._last
        seconds = max(time.monotonic() - then, 1e-6)
        used = resource.getrusage(resource.RUSAGE_SELF)
        came = losses.received + losses.dropped
        return (
            f"{now:.6f}", conns, recording.classes.assigned, losses.received,
            losses.dropped, f"{losses.dropped / came if came else 0:.6f}", losses.dropped - drops,
            packets, size, f"{(size - last_size) * 8e-6 / seconds:.3f}", stored, stored_bytes,
            f"{(stored_bytes - last_stored) * 8e-6 / seconds:.3f}", f"{used.ru_utime:.3f}",
            f"{used.ru_stime:.3f}", resident_bytes(), sum(u.open_bytes for u in usages),
            self.query_packets, self.query_bytes, losses.interface_drops,
            int(recording.totals.unstored[:, 0].sum()), in_kernel,
            "paused" if recording.is_paused else "recording",
        )  # fmt: skip

    def _line(self, name: str, text: str, now: float) -> None:
        waiting = self._waiting[name]
        waiting.append(text.encode() + b"\n")
        with contextlib.suppress(OSError):
            while waiting:
                self._logs[name].write(waiting[0], now)
                waiting.popleft()

    def close(self) -> None:
        """Close the logs."""
        for log in self._logs.values():
            log.close()


def _stored(recording: Recording, writer: StoreWriter) -> tuple[int, int]:
    """Return packets and bytes that were stored of all classes."""
    each = [writer.stored[one.name] for one in recording.classes.list]
    return sum(int(packets) for packets, _ in each), sum(int(size) for _, size in each)


def _class(
    now: float,
    number: int,
    usage: Usage,
    recording: Recording,
    stored: dict[str, Array],
) -> Figures:
    name = recording.classes.list[number].name
    cut = recording.cut(number)
    packets, size = stored[name]
    ages = [
        f"{max(0.0, now - first_ns / 1e9):.3f}" if count else "0.000"
        for first_ns, count in (
            (usage.open_first_ns, usage.open_packets),
            (usage.closed_first_ns, usage.closed_packets),
        )
    ]
    return (
        f"{now:.6f}", name, size, packets, cut[1], cut[0], usage.open_bytes, usage.open_packets,
        ages[0], usage.closed_bytes, usage.closed_packets, ages[1],
        recording.totals.unstored[number, 0],
    )  # fmt: skip


def resident_bytes() -> int:
    """Return the memory that this process has, the ring not included where it is the kernel's."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
