"""Finds the facts in one log of the kernel's TCP connections (kernel/connections.log), by line.

Each line is one JSON object. Records that are used: ``start``, ``clock``, ``connection``, ``lost``
and ``absent``; ``stop`` is skipped. What the facts mean together, `connections` finds.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from perfmeasure import jsonio
from perfmeasure.analysis.clocksteps import ClockPair
from perfmeasure.analysis.events import RejectedError
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfmeasure.analysis.source import Counts, Fact

STAMPS = (
    "connect", "syn_ack", "established", "first_sent", "last_sent", "first_received",
    "last_received", "closed",
)  # fmt: skip
"""The moments of a connection that the kernel stamps."""
NUMBERS = (
    "pid", "cgroup_id", "bytes_sent", "bytes_received", "segments_sent", "segments_received",
    "retransmitted_segments", "retransmission_timeouts", "smoothed_rtt_us", "minimum_rtt_us",
)  # fmt: skip
"""The numbers of a connection, each absent while it is not known."""

_SIDES = frozenset({"active", "passive", "unknown"})
_ENDS = frozenset({
    "fin_local", "fin_remote", "reset_local", "reset_remote", "timeout", "refused", "unknown",
})  # fmt: skip
_IN_ORDER = (
    ("connect", "syn_ack"), ("connect", "established"), ("established", "closed"),
    ("connect", "closed"), ("first_sent", "last_sent"), ("first_received", "last_received"),
)  # fmt: skip
_BOOT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_LATEST_UNIX_TS = 1e10
_PORTS = 1 << 16
_NUMBERS = 1 << 63


class CollectorStarted(NamedTuple):
    """A collector began; a fact that it did not tell is empty, the seconds are 0."""

    boot_id: str
    version: str
    host: str
    kernel: str
    source: str
    scope: str
    snapshot_seconds: float


class CollectorLost(NamedTuple):
    """So much was lost since the last such record, of what."""

    what: str
    lost_count: int


class CollectorAbsent(NamedTuple):
    """Nothing is recorded, and why."""

    reason: str


class ConnectionSeen(NamedTuple):
    """A snapshot of a connection, or its close.

    ``stamps`` are monotonic nanoseconds by name (`STAMPS`), ``numbers`` those of `NUMBERS`; what
    is not known is not in them. ``ended_by`` is empty while the connection is open, ``command``
    while it is unknown.
    """

    cookie: int
    netns: int
    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int
    family: int
    side: str
    existed_before_start: bool
    ended_by: str
    command: str
    stamps: dict[str, int]
    numbers: dict[str, int]


class ConnectionScan:
    """The scan of one log: `batch` for its lines in their order, then `end`."""

    def __init__(self) -> None:
        self.last_ts = 0.0
        self._readers: dict[str, Callable[[dict[str, Any]], NamedTuple] | None] = {
            "start": _started,
            "clock": lambda record: ClockPair(
                _number(record, "utc_ns"), _number(record, "monotonic_ns")
            ),
            "connection": _connection,
            "lost": lambda record: CollectorLost(_text(record, "what"), _number(record, "count")),
            "absent": lambda record: CollectorAbsent(_text(record, "reason")),
            "stop": None,
        }

    def batch(self, first: int, lines: list[bytes], counts: Counts) -> list[Fact]:
        """Return the facts in consecutive lines, of which the first has the number ``first``."""
        facts: list[Fact] = []
        for number, line in enumerate(lines, first):
            try:
                fact = self._fact(line)
            except RejectedError as error:
                counts.reject(number, str(error))
                continue
            if fact is None:
                counts.skipped += 1
            else:
                counts.used += 1
                facts.append((number, self.last_ts, fact))
        return facts

    def end(self, _counts: Counts) -> list[Fact]:
        """Return what is known only at the end of the log: nothing."""
        return []

    def _fact(self, line: bytes) -> NamedTuple | None:
        """Return the fact in a line, None if it is of no use.

        Raises:
            RejectedError: it cannot be used.
        """
        record = _record(line)
        ts = record.get("unix_ts")
        if not isinstance(ts, float) or not 0 < ts < _LATEST_UNIX_TS:
            raise RejectedError("no time stamp")
        kind = record.get("record")
        if not isinstance(kind, str) or kind not in self._readers:
            raise RejectedError("a record of a name that is not known")
        reader = self._readers[kind]
        fact = reader(record) if reader else None
        self.last_ts = ts
        return fact


def _record(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"}"):
        raise RejectedError("line is cut")
    try:
        record = jsonio.loads(line)
    except InputError:
        record = None
    if not isinstance(record, dict):
        raise RejectedError("no JSON object")
    return record


def _started(record: dict[str, Any]) -> CollectorStarted:
    boot_id = _text(record, "boot_id")
    if not _BOOT_ID.match(boot_id):
        _garbled("boot_id")
    seconds = record.get("snapshot_seconds", 0.0)
    if not isinstance(seconds, float) or seconds < 0:
        _garbled("snapshot_seconds")
    names = ("version", "host", "kernel", "source", "scope")
    texts = {name: _text(record, name) if name in record else "" for name in names}
    return CollectorStarted(boot_id=boot_id, snapshot_seconds=seconds, **texts)


def _connection(record: dict[str, Any]) -> ConnectionSeen:
    state, side, end = record.get("state"), record.get("side"), record.get("end", "")
    existed = record.get("existed_before_start")
    if side not in _SIDES:
        _garbled("side")
    if not isinstance(existed, bool):
        _garbled("existed_before_start")
    if state not in {"open", "closed"}:
        _garbled("state")
    if (end not in _ENDS) if state == "closed" else end:
        _garbled("end")
    family = _number(record, "family")
    stamps = {
        name: _number(record, field)
        for name in STAMPS
        if (field := f"{name}_monotonic_ns") in record
    }
    for earlier, later in _IN_ORDER:
        if earlier in stamps and later in stamps and stamps[earlier] > stamps[later]:
            raise RejectedError(f"{later} before {earlier}")
    return ConnectionSeen(
        cookie=_number(record, "cookie"),
        netns=_number(record, "netns"),
        local_ip=_address(record, "local_ip", family),
        local_port=_number(record, "local_port", _PORTS),
        remote_ip=_address(record, "remote_ip", family),
        remote_port=_number(record, "remote_port", _PORTS),
        family=family,
        side=side,
        existed_before_start=existed,
        ended_by=end,
        command=_command(record),
        stamps=stamps,
        numbers={name: _number(record, name) for name in NUMBERS if name in record},
    )


def _garbled(field: str) -> NoReturn:
    raise RejectedError(f"{field} is missing or garbled")


def _number(record: dict[str, Any], field: str, limit: int = _NUMBERS) -> int:
    value = record.get(field)
    if type(value) is not int or not 0 <= value < limit:
        _garbled(field)
    return value


def _text(record: dict[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value or not value.isprintable():
        _garbled(field)
    return value


def _command(record: dict[str, Any]) -> str:
    """Return the name that a program goes by, which it may have set to anything."""
    command = record.get("command", "")
    if not isinstance(command, str):
        _garbled("command")
    return command


def _address(record: dict[str, Any], field: str, family: int) -> str:
    version, address = _parsed(_text(record, field))
    if not address or version != family:
        _garbled(field)
    return address


@functools.lru_cache(4096)
def _parsed(text: str) -> tuple[int, str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 0, ""
    return address.version, str(address)
