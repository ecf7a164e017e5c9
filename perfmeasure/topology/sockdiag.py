"""The sockets of a network namespace, as the kernel lists them (sock_diag(7)), and their ends.

A listing costs a fraction of reading ``/proc/net/tcp``, and has what that has not: the bytes of
each connection, the socket's cookie (its number until the next boot) and its control group. No
right is needed for it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import NamedTuple

from perfmeasure.flows.connections import STATES
from perfmeasure.topology.netlink import HEADER, SOCK_DIAG, Netlink, attributes

LISTENING = 1 << STATES.index("LISTEN")
"""TCP sockets that listen, as a set of states."""
UNCONNECTED = 1 << STATES.index("CLOSE")
"""UDP sockets that belong to no one peer."""
CONNECTED_UDP = 1 << STATES.index("ESTABLISHED")
"""UDP sockets that were connected."""
CONNECTIONS = (
    (1 << len(STATES)) - 2
    - sum(1 << STATES.index(name) for name in ("LISTEN", "TIME_WAIT", "CLOSE", "NEW_SYN_RECV"))
)  # fmt: skip
"""TCP sockets that are connections; those that nobody holds any more (TIME_WAIT) have no bytes."""

_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2
_MESSAGE = struct.Struct("=BBBB2H16s16sI2IIIIII")  # struct inet_diag_msg
_INFO, _PROTOCOL, _V6ONLY, _CGROUP = 2, 10, 11, 21  # INET_DIAG_*
# struct tcp_info: bytes_received; data_segs_in; bytes_sent, bytes_retrans.
_RECEIVED_AT, _DATA_SEGMENTS_AT, _SENT_AT = 128, 152, 200
_INFO_NEEDED = _SENT_AT + 16
_MAPPED = bytes(10) + b"\xff\xff"
_DESTROY_GROUPS = 0b1111  # SKNLGRP_INET_TCP_DESTROY and its like for UDP and IPv6
_BUFFER_BYTES = 8 << 20
_SO_RCVBUFFORCE = 33


class Socket(NamedTuple):
    """One socket of TCP or UDP; an IPv4 address in an IPv6 socket is written as IPv4."""

    protocol: int
    family: int
    state: int
    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int
    cookie: int
    inode: int
    """0 when no process holds it: not yet accepted, or closed and still sending."""
    is_v6only: bool
    cgroup_id: int
    """Of the cgroup v2 that its process was in when it was opened; 0 where the kernel is silent."""
    bytes_sent: int
    """Payload of TCP that was sent, repeated segments once; 0 if it was not asked for."""
    bytes_received: int
    """Payload of TCP that arrived, with 1 for a FIN."""
    data_segments_received: int


class SocketLister:
    """Lists the sockets of the network namespace that it was made in.

    Raises:
        OSError: the kernel has no sock_diag.
    """

    def __init__(self) -> None:
        self._netlink = Netlink(SOCK_DIAG)
        self._reader = _Reader()

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    def list(self, protocol: int, states: int, *, with_bytes: bool = False) -> list[Socket]:
        """Return the sockets of IPv4 and IPv6 in some states.

        Args:
            protocol: ``socket.IPPROTO_TCP`` or ``IPPROTO_UDP``.
            states: a bit for each of TCP's states, which UDP uses, too.
            with_bytes: ask for the bytes of TCP.

        Raises:
            OSError: the kernel refused.
        """
        found = []
        read = self._reader.read
        for family in (socket.AF_INET, socket.AF_INET6):
            extensions = 1 << _INFO - 1 if with_bytes else 0
            request = _REQUEST.pack(family, protocol, extensions, states)
            try:
                for buffer, at, end in self._netlink.dump(_BY_FAMILY, request):
                    found.append(read(buffer, at, end, protocol))
            except OSError as error:
                # ENOENT: the module (tcp_diag, udp_diag) or IPv6 is not there.
                if error.errno != errno.ENOENT or family == socket.AF_INET:
                    raise
        return found


class DestroyWatch:
    """Tells which sockets of this network namespace have gone, with their last numbers.

    Raises:
        OSError: the kernel does not let us.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, SOCK_DIAG)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        try:
            self._socket.bind((0, _DESTROY_GROUPS))
        except OSError:
            self._socket.close()
            raise
        self._reader = _Reader()
        self._buffer = bytearray(1 << 16)
        self.overruns = 0
        """How often the kernel had no room for some of them (ENOBUFS)."""

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()

    def read(self) -> list[Socket]:
        """Return those that have gone since the last call."""
        gone = []
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    count = self._socket.recv_into(self._buffer)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self.overruns += 1
                    continue
                at = 0
                while at + HEADER.size <= count:
                    length = HEADER.unpack_from(self._buffer, at)[0]
                    gone.append(self._reader.read(self._buffer, at + HEADER.size, at + length, 0))
                    at += length + 3 & ~3
        return gone


class _Reader:
    """Reads messages; remembers where attributes are in those of a length, which are alike."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int, int], dict[int, tuple[int, int, int]]] = {}
        self._texts: dict[bytes, str] = {}

    def read(self, buffer: bytearray, at: int, end: int, protocol: int) -> Socket:
        (
            family, state, _, _, local_port, remote_port, local, remote, _, low, high,
            _, _, _, _, inode,
        ) = _MESSAGE.unpack_from(buffer, at)  # fmt: skip
        where = self._where(buffer, at, end, family, state)
        sent = received = segments = cgroup_id = 0
        is_v6only = False
        if (place := where.get(_INFO)) and place[2] >= _INFO_NEEDED:
            info = at + place[1]
            total, repeated = struct.unpack_from("=QQ", buffer, info + _SENT_AT)
            received, segments = _RECEIVED.unpack_from(buffer, info + _RECEIVED_AT)
            sent = max(0, total - repeated)
        if place := where.get(_CGROUP):
            cgroup_id = _U64.unpack_from(buffer, at + place[1])[0]
        if place := where.get(_V6ONLY):
            is_v6only = buffer[at + place[1]] != 0
        if not protocol and (place := where.get(_PROTOCOL)):
            protocol = buffer[at + place[1]]
        return Socket(
            protocol, family, state,
            self._text(family, local), socket.ntohs(local_port),
            self._text(family, remote), socket.ntohs(remote_port),
            low | high << 32, inode, is_v6only, cgroup_id, sent, received, segments,
        )  # fmt: skip

    def _where(
        self, buffer: bytearray, at: int, end: int, family: int, state: int
    ) -> dict[int, tuple[int, int, int]]:
        """Return, for each kind of attribute, its head, where its content is, and its length."""
        alike = (end - at, family, state)
        known = self._places.get(alike)
        if known is not None and all(
            _U32.unpack_from(buffer, at + start - 4)[0] == head for head, start, _ in known.values()
        ):
            return known
        found = {
            kind: (_U32.unpack_from(buffer, start - 4)[0], start - at, stop - start)
            for kind, start, stop in attributes(buffer, at + _MESSAGE.size, end)
            if kind in (_INFO, _PROTOCOL, _V6ONLY, _CGROUP)
        }
        self._places[alike] = found
        return found

    def _text(self, family: int, address: bytes) -> str:
        if family != socket.AF_INET6:
            address = address[:4]
        text = self._texts.get(address)
        if text is not None:
            return text
        if family != socket.AF_INET6:
            text = socket.inet_ntop(socket.AF_INET, address)
        elif address[:12] == _MAPPED:
            text = socket.inet_ntop(socket.AF_INET, address[12:])
        else:
            text = socket.inet_ntop(socket.AF_INET6, address)
        if len(self._texts) >= _MOST_TEXTS:
            self._texts.clear()
        self._texts[address] = text
        return text


_MOST_TEXTS = 65536
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
_RECEIVED = struct.Struct(f"=Q{_DATA_SEGMENTS_AT - _RECEIVED_AT - 8}xI")
