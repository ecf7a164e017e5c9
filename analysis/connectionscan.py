"""Finds the facts in one log of the kernel's TCP connections (kernel/connections.log), by line.

Each line is one JSON object. Records that are used: ``start``, ``clock``, ``connection``, ``lost``
and ``absent``; ``stop`` is skipped. What the facts mean together, `connections` finds.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from perfmeasure.analysis.clocksteps import ClockPair
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.jsonrecords import (
    RecordScan,
    garbled,
    number,
    numbers,
    parsed_address,
    port,
    text,
)

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


class ConnectionScan(RecordScan):
    """The scan of one log: `batch` for its lines in their order, then `end`."""

    def __init__(self) -> None:
        super().__init__(
            {
                "start": _started,
                "clock": clock_pair,
                "connection": _connection,
                "lost": lost,
                "absent": absent,
                "stop": None,
            }
        )


def clock_pair(record: dict[str, Any]) -> ClockPair:
    """Return what a ``clock`` says."""
    return ClockPair(number(record, "utc_ns"), number(record, "monotonic_ns"))


def lost(record: dict[str, Any]) -> CollectorLost:
    """Return what a ``lost`` says."""
    return CollectorLost(text(record, "what"), number(record, "count"))


def absent(record: dict[str, Any]) -> CollectorAbsent:
    """Return what an ``absent`` says."""
    return CollectorAbsent(text(record, "reason"))


def boot_id_of(record: dict[str, Any]) -> str:
    """Return the boot of the machine that a ``start`` names."""
    boot_id = text(record, "boot_id")
    if not _BOOT_ID.match(boot_id):
        garbled("boot_id")
    return boot_id


def _started(record: dict[str, Any]) -> CollectorStarted:
    seconds = record.get("snapshot_seconds", 0.0)
    if not isinstance(seconds, float) or seconds < 0:
        garbled("snapshot_seconds")
    names = ("version", "host", "kernel", "source", "scope")
    texts = {name: text(record, name, "") for name in names}
    return CollectorStarted(boot_id=boot_id_of(record), snapshot_seconds=seconds, **texts)


def _connection(record: dict[str, Any]) -> ConnectionSeen:
    state, side, end = record.get("state"), record.get("side"), record.get("end", "")
    existed = record.get("existed_before_start")
    if side not in _SIDES:
        garbled("side")
    if not isinstance(existed, bool):
        garbled("existed_before_start")
    if state not in {"open", "closed"}:
        garbled("state")
    if (end not in _ENDS) if state == "closed" else end:
        garbled("end")
    family = number(record, "family")
    stamps = {
        name: number(record, field)
        for name in STAMPS
        if (field := f"{name}_monotonic_ns") in record
    }
    for earlier, later in _IN_ORDER:
        if earlier in stamps and later in stamps and stamps[earlier] > stamps[later]:
            raise RejectedError(f"{later} before {earlier}")
    return ConnectionSeen(
        cookie=number(record, "cookie"),
        netns=number(record, "netns"),
        local_ip=_address(record, "local_ip", family),
        local_port=port(record, "local_port"),
        remote_ip=_address(record, "remote_ip", family),
        remote_port=port(record, "remote_port"),
        family=family,
        side=side,
        existed_before_start=existed,
        ended_by=end,
        command=_command(record),
        stamps=stamps,
        numbers=numbers(record, NUMBERS),
    )


def _command(record: dict[str, Any]) -> str:
    """Return the name that a program goes by, which it may have set to anything."""
    command = record.get("command", "")
    if not isinstance(command, str):
        garbled("command")
    return command


def _address(record: dict[str, Any], field: str, family: int) -> str:
    version, address = parsed_address(text(record, field))
    if not address or version != family:
        garbled(field)
    return address
