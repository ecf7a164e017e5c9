"""The table of listeners: who listens where, from when to when.

A listener is a socket: TCP's that listens, or UDP's that is bound to a port and to no peer. It is
known by its cookie, which the kernel's list of sockets and the records of the kernel's programs
have in common. What the programs tell is exact; what only the list shows began, or ended, when it
was listed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfmeasure.topology import processes
from perfmeasure.topology.naming import Known
from perfmeasure.topology.processes import Process
from perfmeasure.topology.sockdiag import CONNECTED_UDP, Socket

PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(slots=True)
class Listener:
    """One listening socket."""

    cookie: int
    netns: int
    protocol: str
    ip: str
    port: int
    is_v6only: bool
    process: Process
    name: str
    valid_from_unix_ts: float
    valid_to_unix_ts: float | None = None

    def line(self, instance_id: str, ips: Iterable[str]) -> dict[str, Any]:
        """Return the fields of its line in the log; ``ips`` are those of its namespace."""
        process = self.process
        line: dict[str, Any] = {
            "instance_id": instance_id,
            "instance_ips": [ip for ip in ips if not ip.startswith("127.") and ip != "::1"],
            "netns": self.netns,
            "name": self.name,
            "pid": process.pid,
            "command": process.command,
            "protocol": self.protocol,
            "listen_ip": self.ip,
            "listen_port": self.port,
            "is_v6only": self.is_v6only,
            "valid_from_unix_ts": self.valid_from_unix_ts,
        }
        if process.start_ticks:
            line["process_start_unix_ts"] = process.start_unix_ts()
        if unit := process.unit:
            line["unit"] = unit
        elif process.cgroup:
            line["cgroup"] = process.cgroup
        if self.valid_to_unix_ts is not None:
            line["valid_to_unix_ts"] = self.valid_to_unix_ts
        return line


class ListenerTable:
    """Those that listen now.

    Args:
        known: what processes are called.
        tell: takes a listener when it appears and again when it ends.
    """

    def __init__(self, known: Known, tell: Callable[[Listener], None]) -> None:
        self._known = known
        self._tell = tell
        self._live: dict[int, Listener] = {}
        self._by_port: dict[tuple[int, str, int], list[Listener]] = {}

    @property
    def live(self) -> list[Listener]:
        """Those that listen now, in the order in which they were met."""
        return list(self._live.values())

    def __contains__(self, cookie: object) -> bool:
        return cookie in self._live

    def at(self, netns: int, protocol: str, port: int) -> Listener | None:
        """Return one that listens on a port, whatever its address; None if none does."""
        found = self._by_port.get((netns, protocol, port))
        return found[-1] if found else None

    def opened(self, listener: Listener) -> None:
        """Take one that the kernel told of, or that was found."""
        before = self._live.get(listener.cookie)
        if before is not None:
            self.closed(listener.cookie, listener.valid_from_unix_ts)
        self._known.listens(listener.process, listener.port)
        listener.name = self._known.name(listener.process)
        self._live[listener.cookie] = listener
        place = (listener.netns, listener.protocol, listener.port)
        self._by_port.setdefault(place, []).append(listener)
        self._tell(listener)

    def closed(self, cookie: int, unix_ts: float) -> None:
        """Take the end of one; a socket that is none of them is passed over."""
        listener = self._live.pop(cookie, None)
        if listener is None:
            return
        place = (listener.netns, listener.protocol, listener.port)
        self._by_port[place].remove(listener)
        if not self._by_port[place]:
            del self._by_port[place]
        listener.valid_to_unix_ts = max(unix_ts, listener.valid_from_unix_ts)
        self._tell(listener)

    def reconcile(
        self,
        netns: int,
        sockets: Iterable[Socket],
        holders: dict[int, list[int]],
        unix_ts: float,
    ) -> None:
        """Make the table agree with a list of the listeners of a network namespace.

        Args:
            netns: the namespace.
            sockets: all of its listeners.
            holders: the processes that hold sockets, by inode; of those that are not in it the
                table keeps what it knows, or they are nobody's.
            unix_ts: when the listing began; what was opened since then is left alone.
        """
        listed = set()
        for found in sockets:
            listed.add(found.cookie)
            pids = holders.get(found.inode)
            listener = self._live.get(found.cookie)
            if listener is not None and listener.is_v6only != found.is_v6only:
                listener.is_v6only = found.is_v6only  # which the program for UDP cannot see
                self._tell(listener)
            if listener is None and pids:
                self._found(netns, found, self._known.process(processes.owner(pids)), unix_ts)
            elif listener is not None and pids and listener.process.pid not in pids:
                # It was handed over: by init to a service, say.
                heir = self._known.process(processes.owner(pids))
                if self._known.name(heir) != listener.name:
                    self._found(netns, found, heir, unix_ts)
        for listener in self.live:
            is_ours = listener.netns == netns and listener.valid_from_unix_ts < unix_ts
            if is_ours and listener.cookie not in listed:
                self.closed(listener.cookie, unix_ts)

    def _found(self, netns: int, found: Socket, process: Process, unix_ts: float) -> None:
        protocol = PROTOCOLS[found.protocol]
        self.opened(
            Listener(
                found.cookie, netns, protocol, found.local_ip, found.local_port, found.is_v6only,
                process, "", unix_ts,
            )
        )  # fmt: skip


def is_service(found: Socket, ephemeral: range) -> bool:
    """Whether a UDP socket is one that others send to first, as far as its address tells.

    One that was given its port by the kernel is a client's, if it is not told otherwise.
    """
    is_connected = 1 << found.state == CONNECTED_UDP
    return not is_connected and found.local_port != 0 and found.local_port not in ephemeral


def ephemeral_ports(path: Path = _EPHEMERAL) -> range:
    """Return the ports that the kernel gives to who asks for none in particular."""
    first, last = map(int, path.read_text("ascii").split())
    return range(first, last + 1)
