"""What the logs of one tor say, as objects that refer to one another.

Times are Unix seconds. ``events`` are (name, time) in order of the log, named as OnionPerf does.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfmeasure.analysis.clocksteps import ClockStep
    from perfmeasure.analysis.guards import Launch

HOP = re.compile(r"\$([0-9A-F]{40})(?:[~=](\w{1,19}))?\Z", re.IGNORECASE | re.ASCII)
"""A relay in a path: group 1 is its fingerprint, 2 its nickname."""


def address_of(endpoint: str) -> tuple[str, int]:
    """Return the address and the port, 0 if there is none, of ``ADDRESS:PORT``."""
    address, _, port = endpoint.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return address.strip("[]"), number


def _shifted(ts: float | None, seconds: float) -> float | None:
    return None if ts is None else ts + seconds


@dataclasses.dataclass(slots=True, eq=False)
class Circuit:
    """One circuit. Times are Unix seconds, None while not seen.

    ``events`` are (name, time) in order, named as OnionPerf does; ``path`` is one [hop, time] per
    relay, where time is None if its EXTENDED was not seen. ``current_guards`` are those at the
    launch, with their times as of the end.
    """

    number: int
    first_seen: float
    last_seen: float
    launched: float | None = None
    created: float | None = None
    built: float | None = None
    ended: float | None = None
    events: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    path: list[tuple[str, float | None]] = dataclasses.field(default_factory=list)
    time_created: str = ""
    conflux_id: str = ""
    failure_reason_local: str = ""
    failure_reason_remote: str = ""
    build_timeout_ms: int | None = None
    build_quantile: float | None = None
    is_cbt_set: bool = False
    launch: Launch | None = None
    current_guards: list[tuple[Guard, dict[str, float]]] = dataclasses.field(default_factory=list)

    def shift(self, seconds: float) -> None:
        """Bring what was stamped before a step of the clock to the time after it."""
        self.first_seen += seconds
        self.last_seen += seconds
        self.launched = _shifted(self.launched, seconds)
        self.created = _shifted(self.created, seconds)
        self.built = _shifted(self.built, seconds)
        self.events = [(name, ts + seconds) for name, ts in self.events]
        self.path = [(hop, _shifted(ts, seconds)) for hop, ts in self.path]

    @property
    def start(self) -> float | None:
        """When it was launched, by our clock; by tor's TIME_CREATED if we were not there."""
        if self.launched is not None or self.created is None:
            return self.launched
        return min(self.created, self.first_seen)  # stamps are rounded, and digits may be damaged

    @property
    def guard_fingerprint(self) -> str:
        """The fingerprint of the first hop, or nothing."""
        match = HOP.match(self.path[0][0]) if self.path else None
        return match[1].upper() if match else ""


@dataclasses.dataclass(slots=True, eq=False)
class Stream:
    """One stream. ``circuit`` is the last one that an event named.

    ``succeeded_on`` and ``sent_on`` are the circuits of the last SUCCEEDED and SENTCONNECT, since
    tor may detach a stream and try another circuit.
    """

    number: int
    first_seen: float
    last_seen: float
    started: float | None = None
    ended: float | None = None
    events: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    purpose: str = ""
    source: str = ""
    target: str = ""
    circuit: Circuit | None = None
    succeeded_on: Circuit | None = None
    sent_on: Circuit | None = None
    failure_reason_local: str = ""
    failure_reason_remote: str = ""

    def shift(self, seconds: float) -> None:
        """Bring what was stamped before a step of the clock to the time after it."""
        self.first_seen += seconds
        self.last_seen += seconds
        self.started = _shifted(self.started, seconds)
        self.events = [(name, ts + seconds) for name, ts in self.events]

    @property
    def source_port(self) -> int:
        """The port of the program that asked for it, 0 if unknown."""
        return address_of(self.source)[1]


@dataclasses.dataclass(slots=True, eq=False)
class Guard:
    """One time of being an entry guard, from the first event to DROPPED.

    ``times`` are the first NEW, UP, DOWN and DROPPED; it is never changed, but replaced.
    ``address`` is the last that the logs gave in that time, ``country`` its country; "" if unknown.
    """

    fingerprint: str
    nickname: str
    times: dict[str, float] = dataclasses.field(default_factory=dict)
    address: str = ""
    country: str = ""


@dataclasses.dataclass(slots=True, eq=False)
class Connection:
    """One connection of tor to a relay. ``number`` is tor's ID, or the endpoint if it has none."""

    number: str
    endpoint: str
    first_seen: float
    events: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    ended: float | None = None


class Gap(NamedTuple):
    """A time of which events may be missing; ``end`` is None while it lasts.

    ``lost_entries`` is how many were read and could not be written, where the reader says so.
    """

    begin: float
    end: float | None = None
    lost_entries: int | None = None


@dataclasses.dataclass(slots=True)
class TorLog:
    """What the logs of one tor's control port say. Lists are in order of first mention.

    ``bytes_read`` and ``bytes_written`` are by Unix second; ``gaps`` are in order of time;
    ``relays`` are the addresses and ports that each relay, by fingerprint, has had.
    """

    host: str = ""
    tor_versions: list[str] = dataclasses.field(default_factory=list)
    streams: list[Stream] = dataclasses.field(default_factory=list)
    circuits: list[Circuit] = dataclasses.field(default_factory=list)
    guards: list[Guard] = dataclasses.field(default_factory=list)
    connections: list[Connection] = dataclasses.field(default_factory=list)
    bytes_read: dict[int, int] = dataclasses.field(default_factory=dict)
    bytes_written: dict[int, int] = dataclasses.field(default_factory=dict)
    gaps: list[Gap] = dataclasses.field(default_factory=list)
    relays: dict[str, set[tuple[str, int]]] = dataclasses.field(default_factory=dict)
    clock_steps: list[ClockStep] = dataclasses.field(default_factory=list)

    def add(self, other: TorLog) -> None:
        """Take in what other logs say."""
        self.streams += other.streams
        self.circuits += other.circuits
        self.guards += other.guards
        self.connections += other.connections
        self.gaps += other.gaps
        for mine, others in (
            (self.bytes_read, other.bytes_read),
            (self.bytes_written, other.bytes_written),
        ):
            for second, count in others.items():
                mine[second] = mine.get(second, 0) + count


def shift_open(records: Iterable[Circuit | Stream], seconds: float) -> None:
    """Bring the circuits and streams that are open over a step of the clock by ``seconds``."""
    for record in records if seconds else ():
        if record.ended is None:
            record.shift(seconds)
