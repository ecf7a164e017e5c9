"""Dumps over netlink: a request, and the messages that answer it.

Sources: the kernel's ``include/uapi/linux/netlink.h`` and ``rtnetlink.h``, netlink(7).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

ROUTE, SOCK_DIAG = 0, 4
"""Families of netlink: interfaces with their addresses, and sockets."""

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type

_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_BUFFER_BYTES = 1 << 16

_GET_ADDRESSES = 22
_ADDRESS_HEADER = struct.Struct("=BBBBI")  # struct ifaddrmsg
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NOT_YET_USABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED


class Netlink:
    """One netlink socket, in the network namespace that it was opened in.

    Args:
        family: `ROUTE` or `SOCK_DIAG`.

    Raises:
        OSError: the kernel has no such family.
    """

    def __init__(self, family: int) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, family)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._sequence = 0

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def dump(self, kind: int, request: bytes) -> Iterator[tuple[bytearray, int, int]]:
        """Ask for everything of a kind; yield buffer, start and end of each message's content.

        What is yielded holds until the next one.

        Raises:
            OSError: the kernel refused.
        """
        self._sequence += 1
        header = HEADER.pack(HEADER.size + len(request), kind, _REQUEST | _DUMP, self._sequence, 0)
        self._socket.send(header + request)
        buffer, unpack = self._buffer, HEADER.unpack_from
        while True:
            count = self._socket.recv_into(buffer)
            at = 0
            while at < count:
                length, answer, _, sequence, _ = unpack(buffer, at)
                if sequence == self._sequence:
                    if answer == _DONE:
                        return
                    if answer == _ERROR:
                        code = -struct.unpack_from("=i", buffer, at + HEADER.size)[0]
                        raise OSError(code, os.strerror(code))
                    yield buffer, at + HEADER.size, at + length
                at += length + 3 & ~3


def attributes(buffer: bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield type, start and end of the content of each attribute."""
    while at + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(buffer, at)
        if length < ATTRIBUTE.size:
            return
        yield kind, at + ATTRIBUTE.size, at + length
        at += length + 3 & ~3


def addresses() -> list[str]:
    """Return the addresses of this network namespace, loopback's too, sorted; one once.

    Raises:
        OSError: the kernel refused.
    """
    found = set()
    with contextlib.closing(Netlink(ROUTE)) as netlink:
        for buffer, at, end in netlink.dump(_GET_ADDRESSES, _ADDRESS_HEADER.pack(0, 0, 0, 0, 0)):
            family, _, flags, _, _ = _ADDRESS_HEADER.unpack_from(buffer, at)
            if flags & _NOT_YET_USABLE:
                continue
            # Of a line from point to point IFA_ADDRESS is the other end; IFA_LOCAL is ours.
            inside = {
                kind: bytes(buffer[start:stop])
                for kind, start, stop in attributes(buffer, at + _ADDRESS_HEADER.size, end)
                if kind in (_IFA_ADDRESS, _IFA_LOCAL)
            }
            address = inside.get(_IFA_LOCAL) or inside.get(_IFA_ADDRESS)
            if address is not None and family in (socket.AF_INET, socket.AF_INET6):
                found.add(socket.inet_ntop(family, address))
    return sorted(found)
