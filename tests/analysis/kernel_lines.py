"""Lines of kernel/connections.log, and what the analysis makes of them, without a file.

Times are seconds after ``DAY``; the kernel's clock is at 1,000 s then.
"""

from __future__ import annotations

from typing import Any

from perfmeasure import jsonio
from perfmeasure.analysis.connections import ConnectionAssembly
from perfmeasure.analysis.connectionscan import ConnectionScan
from perfmeasure.analysis.kernel import KernelLog
from perfmeasure.analysis.source import Counts

DAY = 1795305600.0  # 2026-11-22 00:00:00 UTC
BOOT = "83df3e82-9731-42c8-b042-e6fa74b517fd"
MONOTONIC_NS = 1_000_000_000_000


def monotonic_ns(at: float) -> int:
    """Return the kernel's time."""
    return MONOTONIC_NS + round(at * 1e6) * 1000


def line(record: str, at: float, **fields: Any) -> str:
    """Return a record."""
    return jsonio.compact({"record": record, "unix_ts": DAY + at, **fields}) + "\n"


def start(at: float, boot: str = BOOT, scope: str = "cgroup") -> str:
    """Return the start of a collector."""
    return line(
        "start", at, program="perfmeasure-connections", version="0.1.0", host="vm",
        kernel="6.1.0", boot_id=boot, source="sockops", scope=scope, snapshot_seconds=1.0,
    )  # fmt: skip


def clock(at: float, step: float = 0.0, reason: str = "minute") -> str:
    """Return a clock pair, with UTC set forward by so many seconds."""
    utc_ns = round((DAY + at + step) * 1e6) * 1000
    return line("clock", at + step, utc_ns=utc_ns, monotonic_ns=monotonic_ns(at), reason=reason)


def connection(
    at: float,
    cookie: int,
    *,
    ends: tuple[str, int, str, int] = ("127.0.0.1", 5000, "127.0.0.1", 9050),
    end: str = "",
    stamps: dict[str, float] | None = None,
    **fields: Any,
) -> str:
    """Return a snapshot of a connection, or with an ``end`` its close; stamps by their names."""
    local_ip, local_port, remote_ip, remote_port = ends
    ended = {"end": end} if end else {}
    stamped = {f"{name}_monotonic_ns": monotonic_ns(when) for name, when in (stamps or {}).items()}
    told: dict[str, Any] = {
        "state": "closed" if end else "open", "cookie": cookie, "netns": 1, "side": "active",
        "existed_before_start": False, "family": 6 if ":" in local_ip else 4,
        "local_ip": local_ip, "local_port": local_port,
        "remote_ip": remote_ip, "remote_port": remote_port,
    }  # fmt: skip
    return line("connection", at, **{**told, **stamped, **ended, **fields})


def assembled(*logs: str) -> tuple[KernelLog, Counts]:
    """Return what logs say together; each line of them is counted."""
    assembly, counts = ConnectionAssembly(), Counts()
    for log in logs:
        scan, lines = ConnectionScan(), log.encode().split(b"\n")[:-1]
        counts.lines += len(lines)
        facts = [*scan.batch(1, lines, counts), *scan.end(counts)]
        assembly.take(facts, counts.withdraw)
    assert counts.used + counts.skipped + sum(counts.rejected.values()) == counts.lines
    return assembly.finish(), counts
