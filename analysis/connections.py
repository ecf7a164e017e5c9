"""Reads logs of the kernel's TCP connections (kernel/connections.log), one JSON object a line.

Records that are used: ``start``, ``clock``, ``connection``, ``lost``, ``absent``; ``stop`` is
skipped. Snapshots and close of one connection become one object, by the boot of the machine, the
network namespace and the kernel's cookie, since cookies come again after a reboot.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import TYPE_CHECKING, Any, NoReturn

from perfmeasure import jsonio
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.kernel import (
    COUNTS,
    STAMPS,
    ClockPair,
    KernelConnection,
    KernelLog,
    Run,
    Tuple4,
)
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfmeasure.analysis.source import Counts, Input

_SIDES = frozenset({"active", "passive", "unknown"})
_ENDS = frozenset({
    "fin_local", "fin_remote", "reset_local", "reset_remote", "timeout", "refused", "unknown",
})  # fmt: skip
_START = {
    "program": str, "version": str, "host": str, "kernel": str, "source": str, "scope": str,
    "snapshot_seconds": float,
}  # fmt: skip
_BOOT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_LATEST_UNIX_TS = 1e10
_PORTS = 1 << 16
_NUMBERS = 1 << 63


class ConnectionsScan:
    """The scan of one log: `batch` for its lines in their order, then `end` for what they say."""

    def __init__(self) -> None:
        self.last_ts = 0.0
        self._runs: list[Run] = []
        self._known: dict[tuple[int, int], KernelConnection] = {}

    def batch(self, first: int, lines: list[bytes], counts: Counts) -> None:
        """Read consecutive lines, of which the first has the number ``first``."""
        for number, line in enumerate(lines, first):
            text = line.strip()
            if not text:
                counts.skipped += 1
                continue
            try:
                is_used = self._read(text)
            except RejectedError as error:
                counts.reject(number, str(error))
                continue
            if is_used:
                counts.used += 1
            else:
                counts.skipped += 1

    def end(self) -> list[Run]:
        """Return what the lines say; the first part has no boot if its start is in another log."""
        return self._runs

    def _read(self, line: bytes) -> bool:
        """Read one record; return whether it told us something.

        Raises:
            RejectedError: it cannot be used.
        """
        record = _record(line)
        ts = record.get("unix_ts")
        if not isinstance(ts, float) or not 0 < ts < _LATEST_UNIX_TS:
            raise RejectedError("no time stamp")
        kind = record.get("record")
        if kind == "connection":
            self._connection(_connection(record, ts))
        elif kind == "clock":
            pair = ClockPair(_number(record, "monotonic_ns"), _number(record, "utc_ns"))
            self._run().pairs.append(pair)
        elif kind == "start":
            self._start(record)
        elif kind == "lost":
            what, lost = _text(record, "what"), self._run().lost
            lost[what] = lost.get(what, 0) + _number(record, "count")
        elif kind == "absent":
            self._run().absent.append(_text(record, "reason"))
        elif kind != "stop":
            raise RejectedError("a record of a name that is not known")
        self.last_ts = ts
        return bool(kind != "stop")

    def _run(self) -> Run:
        if not self._runs:
            self._runs.append(Run("", {}, [], [], {}, []))
        return self._runs[-1]

    def _start(self, record: dict[str, Any]) -> None:
        boot_id = _text(record, "boot_id")
        if not _BOOT_ID.match(boot_id):
            _garbled("boot_id")
        facts: dict[str, str | float] = {
            name: record[name] for name, kind in _START.items() if type(record.get(name)) is kind
        }
        self._runs.append(Run(boot_id, facts, [], [], {}, []))
        self._known = {}

    def _connection(self, found: KernelConnection) -> None:
        key = (found.netns, found.cookie)
        known = self._known.get(key)
        if known is None:
            self._known[key] = found
            self._run().connections.append(found)
        elif known.is_closed:
            raise RejectedError("a connection after its close")
        elif known.ends != found.ends:
            raise RejectedError("a connection whose ends are not those of before")
        else:
            known.take(found)


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


def _connection(record: dict[str, Any], ts: float) -> KernelConnection:
    state, side = record.get("state"), record.get("side")
    family = _number(record, "family")
    if side not in _SIDES:
        _garbled("side")
    if state not in {"open", "closed"}:
        _garbled("state")
    existed = record.get("existed_before_start")
    if not isinstance(existed, bool):
        _garbled("existed_before_start")
    end = record.get("end", "")
    if (end not in _ENDS) if state == "closed" else end:
        _garbled("end")
    found = KernelConnection(
        cookie=_number(record, "cookie"),
        netns=_number(record, "netns"),
        ends=Tuple4(
            _address(record, "local_ip", family),
            _number(record, "local_port", _PORTS),
            _address(record, "remote_ip", family),
            _number(record, "remote_port", _PORTS),
        ),
        family=family,
        side=side,
        existed_before_start=existed,
        first_ts=ts,
        last_ts=ts,
        is_closed=state == "closed",
        end=end,
        pid=_number(record, "pid") if "pid" in record else None,
        command=_text(record, "command") if "command" in record else None,
        cgroup_id=_number(record, "cgroup_id") if "cgroup_id" in record else None,
        stamps={
            name: _number(record, field)
            for name in STAMPS
            if (field := f"{name}_monotonic_ns") in record
        },
        counts={name: _number(record, name) for name in COUNTS if name in record},
    )
    _check_order(found.stamps)
    found.add_sample(ts, found.counts)
    return found


def _check_order(stamps: dict[str, int]) -> None:
    """Check what cannot be otherwise.

    Raises:
        RejectedError: an earlier moment has a later stamp.
    """
    for earlier, later in (
        ("connect", "syn_ack"),
        ("connect", "established"),
        ("first_sent", "last_sent"),
        ("first_received", "last_received"),
        ("connect", "closed"),
        ("established", "closed"),
    ):
        if earlier in stamps and later in stamps and stamps[earlier] > stamps[later]:
            raise RejectedError(f"{later} before {earlier}")


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


def read_logs(logs: Iterable[Input]) -> KernelLog:
    """Read the logs of one collector, given in the order of time.

    Raises:
        InputError: a file cannot be read any more.
    """
    found = KernelLog()
    for log in logs:
        scan = ConnectionsScan()
        for first, lines in log.batches():
            scan.batch(first, lines, log.counts)
        log.last_unix_ts = max(log.first_unix_ts, scan.last_ts)
        for run in scan.end():
            found.add(run)
    found.finish()
    return found
