"""Writes ``kernel/connections.log``: the records of connections, and what is needed to read them.

One JSON object a line; ``docs/formats.md`` describes them.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import perfmeasure
from perfmeasure import jsonio
from perfmeasure.clock import ClockWatch, read_pair
from perfmeasure.flows.connections import Record
from perfmeasure.logfile import LogFile

PROGRAM = "perfmeasure-connections"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HOUSEKEEPING_SECONDS = 1.0


class Source(Protocol):
    """What a recorder reads; see `perfmeasure.flows.connection_source.ConnectionSource`."""

    def read(self) -> list[bytes]:
        """Return the records that have come."""

    def snapshot(self, *, with_idle: bool = False) -> None:
        """Have records of live connections made."""

    def lost(self) -> dict[str, int]:
        """Return what was lost since the start, by kind."""


class ConnectionRecorder:
    """Moves records from the kernel into the log.

    Args:
        source: where they come from.
        log: where they go.
        snapshot_seconds: how often live connections are told of.
        start_fields: ``source`` and ``scope`` of the start line.
        report: takes one sentence for people.
    """

    def __init__(
        self,
        source: Source,
        log: LogFile,
        snapshot_seconds: float,
        start_fields: dict[str, Any],
        report: Callable[[str], None],
    ) -> None:
        self._source = source
        self._log = log
        self._every = snapshot_seconds
        self._report = report
        self._clock = ClockWatch()
        self._lost: dict[str, int] = {}
        self._unwritten = 0
        self._next_snapshot = time.monotonic() + snapshot_seconds
        self._next_housekeeping = 0.0
        self._write(
            [
                {
                    "record": "start",
                    "unix_ts": _now(),
                    "program": PROGRAM,
                    "version": perfmeasure.__version__,
                    "host": platform.node(),
                    "kernel": platform.release(),
                    "boot_id": BOOT_ID.read_text(encoding="ascii").strip(),
                    **start_fields,
                    "snapshot_seconds": snapshot_seconds,
                }
            ]
        )
        self._keep_house()

    def look(self) -> None:
        """Write what has come; to be called about ten times a second."""
        now = time.monotonic()
        if now >= self._next_snapshot:
            self._source.snapshot()
            # A reader that was held up does not make up for it.
            self._next_snapshot = max(self._next_snapshot + self._every, now)
        self._take()
        if now >= self._next_housekeeping:
            self._keep_house()
            self._next_housekeeping = now + _HOUSEKEEPING_SECONDS

    def stop(self, reason: str) -> None:
        """Write the last state of every live connection and an orderly end."""
        self._source.snapshot(with_idle=True)
        self._take()
        self._keep_house()
        self._write([{"record": "stop", "unix_ts": _now(), "reason": reason}])
        self._log.close()

    def _take(self) -> None:
        records = self._source.read()
        if records:
            unix_ts = _now()
            self._write([Record.unpack(data).line(unix_ts) for data in records])

    def _keep_house(self) -> None:
        """Write a clock pair and losses when they are due; rotate a log that nothing is said in."""
        pair = read_pair()
        reason = self._clock.due(pair)
        unix_ts = _now()
        lines: list[dict[str, Any]] = []
        if reason is not None:
            pair_fields = {"utc_ns": pair.utc_ns, "monotonic_ns": pair.monotonic_ns}
            lines.append({"record": "clock", "unix_ts": unix_ts, **pair_fields, "reason": reason})
        lost = self._source.lost()
        for what, total in lost.items():
            if count := total - self._lost.get(what, 0):
                lines.append({"record": "lost", "unix_ts": unix_ts, "count": count, "what": what})
        self._lost = lost
        if lines:
            self._write(lines)
        try:
            self._log.rotate_if_due(unix_ts)
        except OSError as error:
            self._report(f"{self._log.path}: cannot be rotated ({error.strerror})")

    def _write(self, lines: list[dict[str, Any]]) -> None:
        entry = "".join(f"{jsonio.compact(line)}\n" for line in lines).encode()
        try:
            self._log.write(entry, lines[0]["unix_ts"])
        except OSError as error:
            if not self._unwritten:
                self._report(
                    f"{self._log.path}: cannot be written ({error.strerror}); records are being "
                    "lost. Free space on the disk"
                )
            self._unwritten += len(lines)
            return
        if self._unwritten:
            self._report(f"{self._log.path}: written again, {self._unwritten} lines were lost")
            count, self._unwritten = self._unwritten, 0
            line = {"record": "lost", "unix_ts": _now(), "count": count, "what": "lines"}
            self._write([line])


def _now() -> float:
    return round(time.time(), 6)
