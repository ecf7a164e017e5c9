"""TCP connections as the kernel saw them: what kernel/connections.log says, as objects.

Kernel times stay nanoseconds of the kernel's monotonic clock, which the generator's own
microseconds are of as well; `KernelLog.unix_ns` turns them into Unix time.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from array import array
from typing import NamedTuple

from perfmeasure.analysis.clocksteps import ClockStep

STAMPS = (
    "connect", "syn_ack", "established", "first_sent", "last_sent", "first_received",
    "last_received", "closed",
)  # fmt: skip
"""The moments of a connection that the kernel stamps."""
COUNTS = (
    "bytes_sent", "bytes_received", "segments_sent", "segments_received",
    "retransmitted_segments", "retransmission_timeouts", "smoothed_rtt_us", "minimum_rtt_us",
)  # fmt: skip
"""The numbers of a connection, cumulative but for the round-trip times."""

_LEAST_STEP_NS = 1_000_000
# Of a snapshot: when, and the counts that a transfer's share is made of; -1 is unknown.
_SAMPLED = (
    "bytes_sent", "bytes_received", "retransmitted_segments", "retransmission_timeouts",
    "smoothed_rtt_us", "minimum_rtt_us",
)  # fmt: skip
_STRIDE = 1 + len(_SAMPLED)


class ClockPair(NamedTuple):
    """What both clocks of the machine said at one moment."""

    monotonic_ns: int
    utc_ns: int


class Tuple4(NamedTuple):
    """Both ends of a connection, as seen from one of them."""

    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int

    def reversed(self) -> Tuple4:
        """Return it as seen from the other end."""
        return Tuple4(self.remote_ip, self.remote_port, self.local_ip, self.local_port)


class Sample(NamedTuple):
    """One snapshot: Unix seconds, and the counts known by then."""

    unix_ts: float
    counts: dict[str, int]


@dataclasses.dataclass(slots=True, eq=False)
class KernelConnection:
    """One end of a TCP connection, merged from its snapshots and the record of its close.

    ``stamps`` (of `STAMPS`, monotonic nanoseconds) and ``counts`` (of `COUNTS`) hold what was
    seen. ``boot_id`` is empty until it is known; ``first_ts`` and ``last_ts`` are the arrivals of
    the first and the last record.
    """

    cookie: int
    netns: int
    ends: Tuple4
    family: int
    side: str
    existed_before_start: bool
    first_ts: float
    last_ts: float
    is_closed: bool = False
    end: str = ""
    pid: int | None = None
    command: str | None = None
    cgroup_id: int | None = None
    boot_id: str = ""
    stamps: dict[str, int] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    start_ts: float | None = None
    end_ts: float | None = None
    _samples: array[float] = dataclasses.field(default_factory=lambda: array("d"))

    def add_sample(self, unix_ts: float, counts: dict[str, int]) -> None:
        """Keep the counts of a snapshot, or of the close."""
        self._samples.append(unix_ts)
        self._samples.extend(counts.get(name, -1) for name in _SAMPLED)

    def take(self, later: KernelConnection) -> None:
        """Take in what another part of the log says of the same connection, later."""
        # Who was there before us may have been seen from its beginning by the collector before.
        self.existed_before_start = self.existed_before_start and later.existed_before_start
        self.last_ts = later.last_ts
        self.is_closed = later.is_closed
        self.end = later.end
        for field in ("pid", "command", "cgroup_id"):
            if getattr(self, field) is None:
                setattr(self, field, getattr(later, field))
        if self.side == "unknown":
            self.side = later.side
        stay = {name: ns for name, ns in self.stamps.items() if not name.startswith("last_")}
        self.stamps = {**self.stamps, **later.stamps, **stay}
        self.counts.update(later.counts)
        self._samples.extend(later._samples)

    def begin_ns(self) -> int | None:
        """Return when it began to be, in monotonic nanoseconds, if that was seen."""
        return self.stamps.get("connect", self.stamps.get("established"))

    def settle_times(self, log: KernelLog) -> None:
        """Set ``start_ts`` and ``end_ts``, Unix seconds: by the clock as it was at the end.

        The start is None if it was not seen, the end if the connection had not ended.
        """
        begin_ns = self.begin_ns()
        anchor_ns = self.anchor_ns()
        shift_ns = None if anchor_ns is None else log.shift_ns(self.boot_id, anchor_ns)
        if shift_ns is None:
            self.start_ts = None if begin_ns is None else self.first_ts
            self.end_ts = self.last_ts if self.is_closed else None
            return
        self.start_ts = None if begin_ns is None else (begin_ns + shift_ns) / 1e9
        if self.is_closed:
            closed_ns = self.stamps.get("closed")
            self.end_ts = self.last_ts if closed_ns is None else (closed_ns + shift_ns) / 1e9

    def anchor_ns(self) -> int | None:
        """Return its last stamp, which says by which clock its times are told."""
        return max(self.stamps.values(), default=None)

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether it lived at any time from ``begin`` to ``end`` (Unix seconds)."""
        started = self.start_ts if self.start_ts is not None else min(self.first_ts, begin)
        return started <= end and (self.end_ts is None or self.end_ts >= begin)

    def share(self, begin: float, end: float) -> tuple[Sample, Sample] | None:
        """Return the snapshots that enclose a time, None if the one before it is not known.

        The first is the last one not after ``begin``, or nothing counted at the start of a
        connection that began later; the second the first one not before ``end``, else the last.
        """
        times = self._samples[::_STRIDE]
        before = bisect.bisect_right(times, begin) - 1
        after = min(bisect.bisect_left(times, end), len(times) - 1)
        if after < 0:
            return None
        if before >= 0:
            return self._sample(before), self._sample(after)
        if self.start_ts is None:
            return None
        return Sample(self.start_ts, dict.fromkeys(_SAMPLED, 0)), self._sample(after)

    def _sample(self, index: int) -> Sample:
        values = self._samples[index * _STRIDE : (index + 1) * _STRIDE]
        counts = {
            name: int(value) for name, value in zip(_SAMPLED, values[1:], strict=True) if value >= 0
        }
        return Sample(values[0], counts)


class Run(NamedTuple):
    """What one run of the collector wrote into one log; ``boot_id`` is empty if it began before."""

    boot_id: str
    facts: dict[str, str | float]
    pairs: list[ClockPair]
    connections: list[KernelConnection]
    lost: dict[str, int]
    absent: list[str]


class KernelLog:
    """What the logs of one collector say, given as `Run` in the order of time.

    ``connections`` are in the order of their first records; ``collectors`` says of each kind of
    run what it was; ``lost`` counts by what was lost; ``absent`` are the reasons why there was
    nothing to write.
    """

    def __init__(self) -> None:
        self.connections: list[KernelConnection] = []
        self.collectors: list[dict[str, str | float]] = []
        self.lost: dict[str, int] = {}
        self.absent: list[str] = []
        self.clock_steps: list[ClockStep] = []
        self._pairs: dict[str, list[ClockPair]] = {}
        self._boot_id = ""
        self._known: dict[tuple[str, int, int], KernelConnection] = {}

    @property
    def host(self) -> str:
        """The host that the log names, or nothing."""
        return next((str(f["host"]) for f in self.collectors if f.get("host")), "")

    def add(self, run: Run) -> None:
        """Take the next run, or the next part of one."""
        if run.boot_id:
            self._boot_id = run.boot_id
        if run.facts and run.facts not in self.collectors:
            self.collectors.append(run.facts)
        self._pairs.setdefault(self._boot_id, []).extend(run.pairs)
        for what, count in run.lost.items():
            self.lost[what] = self.lost.get(what, 0) + count
        self.absent += [reason for reason in run.absent if reason not in self.absent]
        for connection in run.connections:
            connection.boot_id = self._boot_id
            key = (self._boot_id, connection.netns, connection.cookie)
            known = self._known.get(key)
            if known is None:
                self._known[key] = connection
                self.connections.append(connection)
            elif not known.is_closed:
                known.take(connection)

    def finish(self) -> None:
        """Tell the time of everything, once all runs have been added."""
        for pairs in self._pairs.values():
            pairs.sort()
            self.clock_steps += _steps(pairs)
        for connection in self.connections:
            connection.settle_times(self)

    def shift_ns(self, boot_id: str, monotonic_ns: int) -> int | None:
        """Return what to add to a kernel time to get UTC, None without a clock pair of that boot.

        Both clocks run alike until UTC is set, and then a pair is written: so the pair before
        holds, and before the first one that one.
        """
        pairs = self._pairs.get(boot_id)
        if not pairs:
            return None
        index = bisect.bisect_right(pairs, monotonic_ns, key=lambda p: p.monotonic_ns) - 1
        pair = pairs[max(index, 0)]
        return pair.utc_ns - pair.monotonic_ns


def _steps(pairs: list[ClockPair]) -> list[ClockStep]:
    found = []
    for last, pair in itertools.pairwise(pairs):
        step_ns = (pair.utc_ns - last.utc_ns) - (pair.monotonic_ns - last.monotonic_ns)
        if abs(step_ns) > _LEAST_STEP_NS:
            found.append(ClockStep(pair.utc_ns / 1e9, step_ns / 1e9))
    return found
