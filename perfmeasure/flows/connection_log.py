"""Writes ``kernel/connections.log``: the records of connections, and what is needed to read them.

One JSON object a line; ``docs/formats.md`` describes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from perfmeasure.flows.connections import Record
from perfmeasure.logfile import LogFile
from perfmeasure.recordlog import RecordLog, now, start_line

PROGRAM = "perfmeasure-connections"
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
        tap: is shown all records, those of listeners too, which are not in this log.
    """

    def __init__(
        self,
        source: Source,
        log: LogFile,
        snapshot_seconds: float,
        start_fields: dict[str, Any],
        report: Callable[[str], None],
        *,
        tap: Callable[[list[Record]], None] = lambda _records: None,
    ) -> None:
        self._source = source
        self._every = snapshot_seconds
        self._tap = tap
        self._next_snapshot = time.monotonic() + snapshot_seconds
        self._next_housekeeping = 0.0
        self._log = RecordLog(log, report)
        self._log.write([start_line(PROGRAM, **start_fields, snapshot_seconds=snapshot_seconds)])
        self._log.keep_house(source.lost())

    def look(self) -> None:
        """Write what has come; to be called about ten times a second."""
        moment = time.monotonic()
        if moment >= self._next_snapshot:
            self._source.snapshot()
            # A reader that was held up does not make up for it.
            self._next_snapshot = max(self._next_snapshot + self._every, moment)
        self._take()
        if moment >= self._next_housekeeping:
            self._log.keep_house(self._source.lost())
            self._next_housekeeping = moment + _HOUSEKEEPING_SECONDS

    def stop(self, reason: str) -> None:
        """Write the last state of every live connection and an orderly end."""
        self._source.snapshot(with_idle=True)
        self._take()
        self._log.keep_house(self._source.lost())
        self._log.stop(reason)

    def _take(self) -> None:
        records = [Record.unpack(data) for data in self._source.read()]
        if not records:
            return
        self._tap(records)
        unix_ts = now()
        lines = [record.line(unix_ts) for record in records if not record.is_listener]
        if lines:
            self._log.write(lines)
