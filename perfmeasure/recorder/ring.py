"""Packets of an interface, by blocks of a ring shared with the kernel (AF_PACKET, TPACKET_V3).

The kernel hands over a block when it is full, or when its first packet has waited for some
milliseconds. Of loopback, where a packet passes once as going out and once as coming in, only the
second is taken. Structures: packet(7), ``include/uapi/linux/if_packet.h``.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import socket
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perfmeasure.errors import MeasurementError, MissingError, UsageError
from perfmeasure.recorder.libpcap import Filter
from perfmeasure.recorder.records import LINK_ETHERNET, LINK_RAW, Array

BLOCK_BYTES = 1 << 20
_RETIRE_MS = 60
LAST_BLOCK_SECONDS = 2.5 * _RETIRE_MS / 1000
"""How long to wait for a block that has a packet in it."""
_FRAME_BYTES = 2048  # only a measure of the ring's size: frames of version 3 have any length
_TAG_BYTES = 4

_SOL_PACKET = 263
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION, _RESERVE, _IGNORE_OUTGOING = 1, 5, 6, 10, 12, 23
_PROMISCUOUS, _TPACKET_V3 = 1, 2
_SO_ATTACH_FILTER, _SO_ATTACH_BPF = 26, 50
_ETH_P_ALL = 3
_SIOCGIFFLAGS, _SIOCGIFHWADDR = 0x8913, 0x8927
_STATUS_KERNEL = 0
_STATUS_WORD = 2  # of a block's words of 32 bits

_ARPHRD_LOOPBACK = 772
_LINKS = {1: LINK_ETHERNET, _ARPHRD_LOOPBACK: LINK_ETHERNET}
# Tunnels whose frames begin with the IP header: none, tunnel, tunnel6, sit, ipgre, raw IP.
_LINKS.update(dict.fromkeys((65534, 768, 769, 776, 778, 519), LINK_RAW))


class RingCounts(NamedTuple):
    """Since the last time: packets that passed the socket's filter, and those of them lost."""

    packets: int
    drops: int


class Ring:
    """A ring on one interface. `start` makes packets flow.

    Args:
        interface: its name.
        block_count: blocks of `BLOCK_BYTES`, which are memory that cannot be swapped.
        is_promiscuous: take frames too that are for other stations.

    Attributes:
        link: the link type of the frames.
        blocks_done: how many blocks were released.

    Raises:
        UsageError: there is no such interface, or its frames are of a kind that is not read.
        MissingError: the user may not capture.
    """

    def __init__(
        self, interface: str, *, block_count: int = 64, is_promiscuous: bool = False
    ) -> None:
        self.interface = interface
        self._count = block_count
        self._at = 0
        self.blocks_done = 0
        self._was_down = False
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise MissingError(
                "capture",
                "the kernel allows no packet socket",
                "the right CAP_NET_RAW",
                "run as root",
            ) from error
        try:
            kind = self._hardware()
            self.link = _LINKS[kind]
            self._index = socket.if_nametoindex(interface)
            if kind == _ARPHRD_LOOPBACK:
                self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            if is_promiscuous:
                request = struct.pack("=iHH8s", self._index, _PROMISCUOUS, 0, b"")
                self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, request)
            self._map = self._make()
        except BaseException:
            self._socket.close()
            raise
        blocks = np.frombuffer(self._map, "u1").reshape(block_count, BLOCK_BYTES)
        self._blocks = blocks
        self._statuses = blocks.view("u4")[:, _STATUS_WORD]

    def _hardware(self) -> int:
        """Return the ARPHRD number of the interface."""
        request = struct.pack("16s24x", self.interface.encode()[:15])
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFHWADDR, request)
        except OSError as error:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise UsageError(
                f"interface {self.interface}", "there is none of this name", f"one of {names}"
            ) from error
        (kind,) = struct.unpack_from("=H", answer, 16)
        if kind not in _LINKS:
            raise UsageError(
                f"interface {self.interface}",
                f"hardware of type {kind}",
                "Ethernet, loopback, or a tunnel of IP packets",
            )
        return int(kind)

    def _make(self) -> mmap.mmap:
        frames = BLOCK_BYTES // _FRAME_BYTES * self._count
        request = struct.pack(
            "=7I", BLOCK_BYTES, self._count, _FRAME_BYTES, frames, _RETIRE_MS, 0, 0
        )
        self._socket.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
        # Room before each frame, where a VLAN tag that the card took out is put back.
        self._socket.setsockopt(_SOL_PACKET, _RESERVE, _TAG_BYTES)
        try:
            self._socket.setsockopt(_SOL_PACKET, _RX_RING, request)
            return mmap.mmap(self._socket.fileno(), BLOCK_BYTES * self._count)
        except OSError as error:
            raise MeasurementError(
                f"ring of {self._count} MiB", f"cannot be made ({error.strerror})"
            ) from error

    def attach_filter(self, compiled: Filter) -> None:
        """Have the kernel take only frames that match."""
        self._attach(_SO_ATTACH_FILTER, compiled.socket_program)

    def attach_program(self, program_fd: int) -> None:
        """Have an eBPF socket filter decide which frames are taken; instead of any other filter."""
        self._attach(_SO_ATTACH_BPF, struct.pack("=I", program_fd))

    def _attach(self, option: int, value: bytes) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, option, value)
        except OSError as error:
            raise MissingError(
                "capture", f"the kernel does not take the filter ({error.strerror})"
            ) from error

    def start(self) -> None:
        """Begin to capture; filters are attached before, so that none slips past them."""
        self._socket.bind((self.interface, _ETH_P_ALL))

    def fileno(self) -> int:
        """Return the socket's descriptor, to poll."""
        return self._socket.fileno()

    def block(self) -> Array | None:
        """Return the next block (uint8, writable) if the kernel has handed it over.

        Raises:
            MeasurementError: the interface is gone.
        """
        if self._statuses[self._at] == _STATUS_KERNEL:
            self._check()
            return None
        block: Array = self._blocks[self._at]
        return block

    def _check(self) -> None:
        """An interface that went down may come up again, but one that is gone does not return."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._was_down |= code == errno.ENETDOWN
        if not self._was_down:
            return
        request = struct.pack("16s24x", self.interface.encode()[:15])
        try:
            fcntl.ioctl(self._socket, _SIOCGIFFLAGS, request)
        except OSError as error:
            raise MeasurementError(
                f"interface {self.interface}", f"capture ended ({error.strerror})"
            ) from error

    def release(self) -> None:
        """Give the block back, whose content is the kernel's again."""
        self._statuses[self._at] = _STATUS_KERNEL
        self._at = (self._at + 1) % self._count
        self.blocks_done += 1

    def blocks_filled(self) -> int:
        """Return how many blocks the kernel has handed over since the ring began."""
        from_here = np.roll(self._statuses, -self._at)
        waiting = np.flatnonzero(from_here == _STATUS_KERNEL)
        return self.blocks_done + (int(waiting[0]) if len(waiting) else self._count)

    def counts(self) -> RingCounts:
        """Return what the kernel counted since the last call."""
        answer = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12)
        packets, drops, _ = struct.unpack("=3I", answer)
        return RingCounts(packets, drops)

    def close(self) -> None:
        """Stop capturing and give the memory back."""
        self._socket.close()
        del self._blocks, self._statuses, self._map  # unmapped when no block is referred to


def interface_drops(interface: str) -> int:
    """Return how many packets the interface itself has dropped on receiving, since it is up."""
    text = Path("/proc/thread-self/net/dev").read_text("ascii")
    for line in text.splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == interface:
            return int(fields.split()[3])
    return 0
