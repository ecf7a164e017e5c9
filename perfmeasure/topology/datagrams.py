"""Who sends datagrams to whom: the layouts of the kernel program, and the lines of the log.

The layouts are the structures of ``bpf/datagrams.bpf.c``. UDP has no connections: here one is what
a socket and one peer exchange until the socket is closed, or both have been silent for a minute.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from perfmeasure.clock import ClockPair
from perfmeasure.flows.connections import address
from perfmeasure.topology.listeners import Listener, ListenerTable
from perfmeasure.topology.naming import Known

OWNER = struct.Struct("=QIII16s4x")
PEER = struct.Struct("=Q16s16sHH4x")
NUMBERS = struct.Struct("=QQQQI4x40s")
EVENT = struct.Struct("=QQII16s40s")

_QUIET_NS = 60 * 10**9
_MOST_BOUND = 4096
_INET6 = 10


class Owner(NamedTuple):
    """The process of a socket."""

    cgroup_id: int
    pid: int
    netns: int
    existed_before: int
    command: bytes

    def command_text(self) -> str:
        """Return what it called itself."""
        return self.command.partition(b"\0")[0].decode("utf-8", "replace")


class Event(NamedTuple):
    """A socket was bound, or closed."""

    cookie: int
    time_ns: int
    is_closed: bool
    port: int
    ip: str
    owner: Owner

    @classmethod
    def unpack(cls, data: bytes) -> Event:
        """Read one from the kernel."""
        cookie, time_ns, is_closed, port, raw, owner = EVENT.unpack(data)
        ip = address(_INET6, raw)[1]
        return cls(cookie, time_ns, bool(is_closed), port, ip, Owner(*OWNER.unpack(owner)))


class Peer(NamedTuple):
    """A socket, its peer, and what passed between them."""

    cookie: int
    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int
    bytes_sent: int
    bytes_received: int
    first_ns: int
    last_ns: int
    is_first_sent: bool
    owner: Owner

    @classmethod
    def unpack(cls, key: bytes, value: bytes) -> Peer:
        """Read one from the kernel."""
        cookie, local, remote, local_port, remote_port = PEER.unpack(key)
        sent, received, first_ns, last_ns, is_first_sent, owner = NUMBERS.unpack(value)
        return cls(
            cookie, address(_INET6, local)[1], local_port, address(_INET6, remote)[1], remote_port,
            sent, received, first_ns, last_ns, bool(is_first_sent), Owner(*OWNER.unpack(owner)),
        )  # fmt: skip


class Source(Protocol):
    """Where they come from; see `perfmeasure.topology.datagram_source.DatagramSource`."""

    def events(self) -> list[Event]:
        """Return which sockets were bound and closed since the last call."""

    def peers(self) -> list[tuple[bytes, Peer]]:
        """Return all peers, each with its key."""

    def take(self, key: bytes) -> Peer | None:
        """Take a peer out of the table."""


class DatagramTable:
    """Makes lines of what the kernel counted, and brings the table of listeners up to date.

    Args:
        source: what it counted.
        known: what processes are called.
        listeners: those that are bound to a port are noted there.
        boot_id: of the machine.
        netns: the network namespace that is told of.
        is_service: whether a socket that is bound to a port is a service's, by its number.
    """

    def __init__(
        self,
        source: Source,
        known: Known,
        listeners: ListenerTable,
        *,
        boot_id: str,
        netns: int,
        is_service: Callable[[int], bool],
    ) -> None:
        self._source = source
        self._known = known
        self._listeners = listeners
        self._boot = boot_id[:8]
        self._netns = netns
        self._is_service = is_service
        self._bound: dict[int, tuple[Event, float]] = {}
        self._closed_ns: dict[int, int] = {}
        self._told_ns: dict[bytes, int] = {}

    def take_events(self, pair: ClockPair) -> None:
        """Take note of sockets that were bound or closed."""
        for event in self._source.events():
            if event.is_closed:
                self._bound.pop(event.cookie, None)
                self._closed_ns[event.cookie] = event.time_ns
                self._listeners.closed(event.cookie, _unix(event.time_ns, pair))
            elif event.owner.netns == self._netns:
                bound_at = _unix(event.time_ns, pair)
                owner = event.owner
                self._known.process(owner.pid, owner.command_text(), owner.cgroup_id)
                if self._is_service(event.port):
                    self._serves(event, bound_at)
                elif len(self._bound) < _MOST_BOUND:
                    self._bound[event.cookie] = event, bound_at

    def flush(self, pair: ClockPair) -> list[dict[str, Any]]:
        """Return the lines of all exchanges in which something happened, or that are over."""
        closed, self._closed_ns = self._closed_ns, {}
        lines = []
        told: dict[bytes, int] = {}
        for key, peer in self._source.peers():
            if peer.owner.netns != self._netns:
                if peer.cookie in closed or pair.monotonic_ns - peer.last_ns > _QUIET_NS:
                    self._source.take(key)
                continue
            if not peer.is_first_sent and (bound := self._bound.pop(peer.cookie, None)):
                self._serves(*bound)  # on a port of the kernel's choice, but others send first
            end_ns = closed.get(peer.cookie)
            if end_ns is None and pair.monotonic_ns - peer.last_ns > _QUIET_NS:
                end_ns = peer.last_ns
            if end_ns is not None:
                last = self._source.take(key) or peer
                lines.append(self._line(last, pair, max(end_ns, last.last_ns)))
                continue
            if self._told_ns.get(key) != peer.last_ns:
                lines.append(self._line(peer, pair, None))
            told[key] = peer.last_ns
        self._told_ns = told
        return lines

    def _serves(self, event: Event, bound_at: float) -> None:
        owner = event.owner
        process = self._known.process(owner.pid, owner.command_text(), owner.cgroup_id)
        self._listeners.opened(
            Listener(
                event.cookie, self._netns, "udp", event.ip, event.port, False, process, "", bound_at
            )
        )

    def _line(self, peer: Peer, pair: ClockPair, end_ns: int | None) -> dict[str, Any]:
        owner = peer.owner
        line: dict[str, Any] = {
            "netns": self._netns,
            "id": f"{self._boot}-{peer.cookie:x}-{peer.first_ns:x}",
        }
        process = self._known.process(owner.pid, owner.command_text(), owner.cgroup_id)
        line["service"] = self._known.name(process)
        line["pid"] = owner.pid
        line["command"] = process.command
        line["side"] = self._side(peer)
        line["protocol"] = "udp"
        line["src_ip"] = peer.local_ip
        line["src_port"] = peer.local_port
        line["dst_ip"] = peer.remote_ip
        line["dst_port"] = peer.remote_port
        line["bytes_sent"] = peer.bytes_sent
        line["bytes_received"] = peer.bytes_received
        line["start_unix_ts"] = _unix(peer.first_ns, pair)
        if end_ns is not None:
            line["end_unix_ts"] = _unix(end_ns, pair)
        line["state"] = "open" if end_ns is None else "closed"
        line["source"] = "ebpf"
        return line

    def _side(self, peer: Peer) -> str:
        """Return who began it: who sent first, if we were there when the socket was made."""
        if not peer.owner.existed_before:
            return "active" if peer.is_first_sent else "passive"
        if peer.cookie not in self._listeners:
            return "active"
        return "unknown" if peer.is_first_sent else "passive"


def _unix(monotonic_ns: int, pair: ClockPair) -> float:
    return round((monotonic_ns + pair.distance_ns) / 1e9, 6)
