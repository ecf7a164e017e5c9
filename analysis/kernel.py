"""TCP connections as the kernel saw them, as objects: what logs of connections say together.

Kernel times stay nanoseconds of the kernel's monotonic clock, which the generator's own
microseconds are of as well; `BootClocks` turns them into Unix time.
"""

from __future__ import annotations

import bisect
import dataclasses
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from perfmeasure.analysis.clocksteps import ClockPair, ClockStep
    from perfmeasure.analysis.connectionscan import CollectorStarted, ConnectionSeen

SAMPLED = (
    "bytes_sent", "bytes_received", "retransmitted_segments", "retransmission_timeouts",
    "smoothed_rtt_us", "minimum_rtt_us",
)  # fmt: skip
"""The numbers that are kept of each snapshot, not only the last ones."""
_STRIDE = 1 + len(SAMPLED)
_UNKNOWN = -1.0


class Ends(NamedTuple):
    """Both ends of a connection, as seen from one of them."""

    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int

    def reversed(self) -> Ends:
        """Return them as seen from the other end."""
        return Ends(self.remote_ip, self.remote_port, self.local_ip, self.local_port)


class Sample(NamedTuple):
    """One snapshot: Unix seconds, and those of `SAMPLED` that were known by then."""

    unix_ts: float
    numbers: dict[str, int]


@dataclasses.dataclass(slots=True, eq=False)
class Collector:
    """One run of a collector, as far as the logs have it.

    ``started`` is None if its beginning is in no log. ``begin`` and ``end`` are the stamps of its
    first and last record, Unix seconds; ``lost`` counts by what was lost.
    """

    started: CollectorStarted | None
    begin: float
    end: float
    lost: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def boot_id(self) -> str:
        """The boot of the machine that it ran in, empty if that is not known."""
        return self.started.boot_id if self.started else ""

    @property
    def is_of_one_cgroup(self) -> bool:
        """Whether it took in no more than the measurement's own connections."""
        return self.started is not None and self.started.scope == "cgroup"


@dataclasses.dataclass(slots=True, eq=False)
class KernelConnection:
    """One end of a TCP connection, merged from its snapshots and the record of its close.

    ``collector`` is the one that saw it first. ``stamps`` (monotonic nanoseconds) and ``numbers``
    are by the names of `connectionscan`, those that are known. ``first_ts`` and ``last_ts`` are
    the arrivals of the first and the last record, ``start_ts`` and ``end_ts`` when it began and
    ended, None while not seen; Unix seconds.
    """

    collector: Collector
    cookie: int
    netns: int
    ends: Ends
    family: int
    side: str
    first_ts: float
    last_ts: float
    existed_before_start: bool = True
    end: str = ""
    command: str = ""
    stamps: dict[str, int] = dataclasses.field(default_factory=dict)
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)
    start_ts: float | None = None
    end_ts: float | None = None
    _samples: array[float] = dataclasses.field(default_factory=lambda: array("d"))

    @property
    def process(self) -> tuple[str, int] | None:
        """Boot and process id of the program that it belongs to, if that is known."""
        pid = self.numbers.get("pid")
        return None if pid is None else (self.collector.boot_id, pid)

    @property
    def began_ns(self) -> int | None:
        """When it began, in monotonic nanoseconds, if that was seen."""
        return self.stamps.get("connect", self.stamps.get("established"))

    def take(self, ts: float, seen: ConnectionSeen) -> None:
        """Take in the next record about it."""
        # One collector may have seen from its beginning what the next one finds there.
        self.existed_before_start = self.existed_before_start and seen.existed_before_start
        self.last_ts = ts
        self.end = seen.ended_by
        self.command = seen.command or self.command
        self.side = seen.side if self.side == "unknown" else self.side
        stay = {name: ns for name, ns in self.stamps.items() if not name.startswith("last_")}
        self.stamps = {**self.stamps, **seen.stamps, **stay}
        self.numbers.update(seen.numbers)
        self._samples.append(ts)
        self._samples.extend(seen.numbers.get(name, _UNKNOWN) for name in SAMPLED)

    def settle_times(self, clocks: BootClocks) -> None:
        """Set ``start_ts`` and ``end_ts``, by the clock as it was at the end."""
        began_ns, closed_ns = self.began_ns, self.stamps.get("closed")
        shift_ns = clocks.shift_ns(self.collector.boot_id, max(self.stamps.values(), default=0))
        if began_ns is not None:
            self.start_ts = self.first_ts if shift_ns is None else (began_ns + shift_ns) / 1e9
        if self.end:
            self.end_ts = self.last_ts
            if closed_ns is not None and shift_ns is not None:
                self.end_ts = (closed_ns + shift_ns) / 1e9

    def lived_at(self, begin: float, end: float) -> bool:
        """Whether it was there at any time from ``begin`` to ``end`` (Unix seconds)."""
        is_begun = self.start_ts is None or self.start_ts <= end
        return is_begun and (self.end_ts is None or self.end_ts >= begin)

    def share(self, begin: float, end: float) -> tuple[Sample, Sample] | None:
        """Return the two snapshots that enclose a time; None if there is none before it.

        The first is the last one not after ``begin``, or zeros at the start of a connection that
        began later; the second is the first one not before ``end``, else the last.
        """
        times = self._samples[::_STRIDE]
        before = bisect.bisect_right(times, begin) - 1
        after = min(bisect.bisect_left(times, end), len(times) - 1)
        if before >= 0:
            return self._sample(before), self._sample(after)
        if self.start_ts is None or self.existed_before_start:
            return None
        return Sample(self.start_ts, dict.fromkeys(SAMPLED, 0)), self._sample(after)

    def _sample(self, index: int) -> Sample:
        values = self._samples[index * _STRIDE : (index + 1) * _STRIDE]
        known = zip(SAMPLED, values[1:], strict=True)
        return Sample(values[0], {name: int(value) for name, value in known if value != _UNKNOWN})


class BootClocks:
    """The clock pairs of each boot of a machine."""

    def __init__(self) -> None:
        self._pairs: dict[str, list[ClockPair]] = {}

    def add(self, boot_id: str, pair: ClockPair) -> None:
        """Take the next pair."""
        self._pairs.setdefault(boot_id, []).append(pair)

    def shift_ns(self, boot_id: str, monotonic_ns: int) -> int | None:
        """Return what to add to a kernel time to get UTC, None without a pair of that boot.

        Both clocks run alike until UTC is set, and then a pair is written. So the pair before a
        moment holds, though the next may be nearer; before the first pair, that one.
        """
        pairs = self._pairs.get(boot_id)
        if not pairs:
            return None
        index = bisect.bisect_right(pairs, monotonic_ns, key=lambda pair: pair.monotonic_ns) - 1
        pair = pairs[max(index, 0)]
        return pair.utc_ns - pair.monotonic_ns


@dataclasses.dataclass(slots=True)
class KernelLog:
    """What the logs of one machine's collectors say, in order of first records.

    ``absent`` are the reasons why there was nothing to record.
    """

    connections: list[KernelConnection] = dataclasses.field(default_factory=list)
    collectors: list[Collector] = dataclasses.field(default_factory=list)
    absent: list[str] = dataclasses.field(default_factory=list)
    clock_steps: list[ClockStep] = dataclasses.field(default_factory=list)

    @property
    def host(self) -> str:
        """The host that the logs name, or nothing."""
        hosts = (run.started.host for run in self.collectors if run.started and run.started.host)
        return next(hosts, "")

    def add(self, other: KernelLog) -> None:
        """Take in what other logs say."""
        self.connections += other.connections
        self.collectors += other.collectors
        self.absent += [reason for reason in other.absent if reason not in self.absent]
        self.clock_steps += other.clock_steps
