"""Connections of services, out of the kernel's records: who it was, with whom, how many bytes.

Their lines are cumulative: a later one of the same ``id`` replaces the earlier.
"""

from __future__ import annotations

from typing import Any

from perfmeasure.clock import ClockPair
from perfmeasure.flows.connections import SIDES, Flag, Record, address
from perfmeasure.topology.listeners import Listener, ListenerTable
from perfmeasure.topology.naming import Known


class ConnectionTable:
    """Makes lines of records; of a live connection only the last record is kept until `flush`.

    Args:
        known: what processes are called.
        listeners: who listens: the service of a connection whose process is not known.
        boot_id: of the machine.
        began_unix_ts: when the records began.
    """

    def __init__(
        self, known: Known, listeners: ListenerTable, boot_id: str, began_unix_ts: float
    ) -> None:
        self._known = known
        self._listeners = listeners
        self._boot = boot_id[:8]
        self._began = began_unix_ts
        self._open: dict[int, Record] = {}

    def take(self, records: list[Record], pair: ClockPair) -> list[dict[str, Any]]:
        """Take records in their order; return the lines of connections that have ended.

        Args:
            records: of connections and of listeners, whose table is brought up to date.
            pair: a moment on both clocks.
        """
        lines = []
        for record in records:
            if record.is_listener:
                self._take_listener(record, pair)
                continue
            if record.origin:  # as early as can be: the process may be a short one
                self._known.process(record.pid, record.command_text(), record.cgroup_id)
            if record.is_closed:
                self._open.pop(record.cookie, None)
                if record.flags & Flag.WAS_ESTABLISHED:
                    lines.append(self._line(record, pair))
            elif record.flags & Flag.WAS_ESTABLISHED:
                self._open[record.cookie] = record
        return lines

    def flush(self, pair: ClockPair) -> list[dict[str, Any]]:
        """Return the lines of live connections of which something new is known."""
        lines = [self._line(record, pair) for record in self._open.values()]
        self._open = {}
        return lines

    def _take_listener(self, record: Record, pair: ClockPair) -> None:
        if record.is_closed:
            self._listeners.closed(record.cookie, _unix(record.closed_ns, pair))
            return
        self._listeners.opened(
            Listener(
                record.cookie,
                record.netns,
                "tcp",
                address(record.family, record.local_address)[1],
                record.local_port,
                bool(record.is_v6only),
                self._known.process(record.pid, record.command_text(), record.cgroup_id),
                "",
                _unix(record.established_ns, pair),
            )
        )

    def _line(self, record: Record, pair: ClockPair) -> dict[str, Any]:
        again = f".{record.reconnects}" if record.reconnects else ""
        line: dict[str, Any] = {
            "netns": record.netns,
            "id": f"{self._boot}-{record.cookie:x}{again}",
        }
        if record.origin:
            command = record.command_text()
            process = self._known.process(record.pid, command, record.cgroup_id)
            line["service"] = self._known.name(process)
            line["pid"] = record.pid
            line["command"] = process.command
        elif listener := self._listeners.at(record.netns, "tcp", record.local_port):
            line["service"] = listener.name
            line["pid"] = listener.process.pid
            line["command"] = listener.process.command
        line["side"] = SIDES[record.side]
        line["protocol"] = "tcp"
        line["src_ip"] = address(record.family, record.local_address)[1]
        line["src_port"] = record.local_port
        line["dst_ip"] = address(record.family, record.remote_address)[1]
        line["dst_port"] = record.remote_port
        line["bytes_sent"] = record.bytes_sent()
        line["bytes_received"] = record.bytes_received()
        began = record.connect_ns or record.established_ns
        line["start_unix_ts"] = _unix(began, pair) if began else self._began
        if record.is_closed:
            line["end_unix_ts"] = _unix(record.closed_ns, pair)
        line["state"] = "closed" if record.is_closed else "open"
        line["source"] = "ebpf"
        return line


def _unix(monotonic_ns: int, pair: ClockPair) -> float:
    return round((monotonic_ns + pair.distance_ns) / 1e9, 6)
