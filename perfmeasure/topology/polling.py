"""Connections where the kernel lets nobody record them: listed now and then, and their ends told.

What lives between two listings is seen by its end alone, which says neither process nor side. That
is why every line says where it is from: ``polling`` for what was listed while it lived, ``destroy``
for what was not.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perfmeasure.flows.connections import STATES
from perfmeasure.topology import processes
from perfmeasure.topology.listeners import ListenerTable
from perfmeasure.topology.naming import Known
from perfmeasure.topology.processes import Process
from perfmeasure.topology.sockdiag import CONNECTIONS, DestroyWatch, Socket, SocketLister

_FIN_ARRIVED = frozenset(STATES.index(name) for name in ("CLOSE_WAIT", "LAST_ACK", "CLOSING"))
_CONNECTING = frozenset(STATES.index(name) for name in ("SYN_SENT", "SYN_RECV"))


@dataclass(slots=True)
class _Live:
    """A connection that was listed."""

    first_unix_ts: float
    process: Process | None = None
    bytes_told: tuple[int, int] = (-1, -1)
    """As the kernel counted them: with the peer's FIN, if that had arrived."""
    has_fin: bool = True


class ConnectionPoll:
    """Follows the TCP connections of the network namespace that it is made in.

    Args:
        lister: lists sockets.
        known: what processes are called.
        listeners: who listens; a connection to such a port is a passive one.
        boot_id: of the machine.
        pids: gives the processes whose connections are told of.
        is_ours_only: leave out connections that none of them holds.

    Raises:
        OSError: the kernel does not tell of sockets that have gone.
    """

    def __init__(
        self,
        lister: SocketLister,
        known: Known,
        listeners: ListenerTable,
        boot_id: str,
        pids: Callable[[], list[int]],
        *,
        is_ours_only: bool,
    ) -> None:
        self._lister = lister
        self._known = known
        self._listeners = listeners
        self._boot = boot_id[:8]
        self._netns = processes.network_namespace()
        self._pids = pids
        self._is_ours_only = is_ours_only
        self._live: dict[int, _Live] = {}
        self._had_strangers = True
        self._gone = DestroyWatch()
        self._ends: list[Socket] = []

    def close(self) -> None:
        """Close what is open."""
        self._gone.close()

    def lost(self) -> dict[str, int]:
        """Return how often ends of connections were lost since the start."""
        return {"destroy_overruns": self._gone.overruns}

    def read(self) -> bool:
        """Read which sockets have gone; return whether there are connections that were not listed.

        Who listens should be listed then, before `ended` asks for it.
        """
        self._ends += self._gone.read()
        return any(one.remote_port and one.cookie not in self._live for one in self._ends)

    def ended(self, unix_ts: float) -> list[dict[str, Any]]:
        """Return the lines of the connections that `read` found gone."""
        lines = []
        ends, self._ends = self._ends, []
        for gone in ends:
            if gone.protocol != socket.IPPROTO_TCP or not gone.remote_port:
                continue
            live = self._live.pop(gone.cookie, None)
            is_from_list = live is not None
            if live is None:
                # One that was refused has sent and received nothing, not even the peer's FIN.
                if self._is_ours_only or not (gone.bytes_sent or gone.bytes_received):
                    continue
                live = _Live(unix_ts)
            line = self._line(gone, live)
            # A FIN counts as a byte; of one that came since the listing is only known that it is
            # likely: a socket that was closed before may have gone without it.
            is_as_listed = gone.bytes_received == live.bytes_told[1]
            has_fin = live.has_fin if is_as_listed else True
            line["bytes_received"] = max(0, gone.bytes_received - has_fin)
            line["end_unix_ts"] = unix_ts
            line["state"] = "closed"
            line["source"] = "polling" if is_from_list else "destroy"
            lines.append(line)
        for gone in ends:  # after their connections, which they say the side of
            self._listeners.closed(gone.cookie, unix_ts)
        return lines

    def poll(self, unix_ts: float) -> list[dict[str, Any]]:
        """List the connections; return the lines of those with new bytes."""
        # Who holds a socket is looked up before the listing as well as after it: one that is closed
        # in between is held by nobody. But only where there is something new.
        holders = processes.holders(self._pids()) if self._had_strangers else {}
        found = self._lister.list(socket.IPPROTO_TCP, CONNECTIONS, with_bytes=True)
        strangers = [one for one in found if one.cookie not in self._live]
        self._had_strangers = bool(strangers)
        if any(one.inode and one.inode not in holders for one in strangers):
            holders |= processes.holders(self._pids())
        for one in strangers:
            pids = holders.get(one.inode)
            if pids:
                process = self._known.process(processes.owner(pids))
                self._live[one.cookie] = _Live(unix_ts, process)
            elif not self._is_ours_only:
                self._live[one.cookie] = _Live(unix_ts)
        lines = []
        for one in found:
            live = self._live.get(one.cookie)
            numbers = (one.bytes_sent, one.bytes_received)
            if live is None or one.state in _CONNECTING or live.bytes_told == numbers:
                continue
            live.bytes_told = numbers
            live.has_fin = one.state in _FIN_ARRIVED
            line = self._line(one, live)
            line["bytes_received"] = one.bytes_received - live.has_fin
            line["state"] = "open"
            line["source"] = "polling"
            lines.append(line)
        if self._gone.overruns:
            listed = {one.cookie for one in found}
            for cookie in self._live.keys() - listed:
                del self._live[cookie]  # its end may have been lost
        return lines

    def _line(self, one: Socket, live: _Live) -> dict[str, Any]:
        listener = self._listeners.at(self._netns, "tcp", one.local_port)
        process = live.process
        line: dict[str, Any] = {"netns": self._netns, "id": f"{self._boot}-{one.cookie:x}"}
        if process is None and listener is not None:
            process = listener.process
        if process is not None:
            line["service"] = self._known.name(process)
            line["pid"] = process.pid
            line["command"] = process.command
        line["side"] = "active" if listener is None else "passive"
        line["protocol"] = "tcp"
        line["src_ip"] = one.local_ip
        line["src_port"] = one.local_port
        line["dst_ip"] = one.remote_ip
        line["dst_port"] = one.remote_port
        line["bytes_sent"] = one.bytes_sent
        line["bytes_received"] = one.bytes_received
        line["start_unix_ts"] = live.first_unix_ts
        return line
