"""Two network namespaces with a cable between them, and a sender that is fast and has an end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_BATCH = 512
FRAME_BYTES = 64


@dataclass(frozen=True)
class Cable:
    """Names of the namespaces and of the veth interface in each."""

    left: str
    right: str
    left_interface: str = "pm-left"
    right_interface: str = "pm-right"


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Have this thread, and what it starts, in another network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(f"/run/netns/{namespace}")
        yield
    finally:
        if _libc.setns(home, _CLONE_NEWNET):
            os._exit(70)  # nothing may go on in the wrong network
        os.close(home)


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Make two namespaces with a cable between them, quiet but for the test's own packets."""
    made = Cable(f"pm-{os.getpid()}-l", f"pm-{os.getpid()}-r")
    try:
        for name in (made.left, made.right):
            _ip("netns", "add", name)
            with inside(name):
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        # A queue for each processor, so that what one sends waits for no other.
        count = str(os.cpu_count())
        queues = ("numtxqueues", count, "numrxqueues", count)
        peer = ("peer", "name", made.right_interface, *queues, "netns", made.right)
        _ip("-n", made.left, "link", "add", made.left_interface, *queues, "type", "veth", *peer)
        _ip("-n", made.left, "link", "set", made.left_interface, "up")
        _ip("-n", made.right, "link", "set", made.right_interface, "up")
        yield made
    finally:
        for name in (made.left, made.right):
            subprocess.run(["ip", "netns", "del", name], check=False)


def _ip(*queues: str) -> None:
    subprocess.run(["ip", *queues], check=True, timeout=20)


def sender(made: Cable, flows: int, packets: int, cpu: int = 0) -> subprocess.Popen[bytes]:
    """Start sending from the left: UDP frames of 64 bytes, over the flows in turn."""
    command = [sys.executable, __file__, made.left_interface, str(flows), str(packets), str(cpu)]
    with inside(made.left):
        return subprocess.Popen(command)


class _Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):  # struct mmsghdr
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    ]


def udp_frames(flows: int, cpu: int) -> bytes:
    """Return the frames of all flows, one after another. Another cpu sends others' flows."""
    body = bytes(FRAME_BYTES - 14 - 20 - 8)
    made = []
    for number in range(flows):
        source = socket.inet_aton(f"10.{cpu}.{number // 50000}.1")
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, FRAME_BYTES - 14, 0, 0x4000, 64, 17, 0,
            source, socket.inet_aton("10.9.9.9"),
        )  # fmt: skip
        udp = struct.pack("!HHHH", 1024 + number % 50000, 9, 8 + len(body), 0)
        made.append(bytes.fromhex("0200000000ff0200000000010800") + ip + udp + body)
    return b"".join(made)


def send(interface: str, flows: int, packets: int, cpu: int) -> None:
    """Send, by sendmmsg(2) on a packet socket."""
    os.sched_setaffinity(0, {cpu})
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0))
        count = max(flows, _BATCH)
        data = ctypes.create_string_buffer(udp_frames(flows, cpu), flows * FRAME_BYTES)
        pieces = (_Piece * count)()
        headers = (_Header * count)()
        for number in range(count):
            address = ctypes.addressof(data) + number % flows * FRAME_BYTES
            pieces[number] = _Piece(address, FRAME_BYTES)
            headers[number].pieces = ctypes.addressof(pieces[number])
            headers[number].piece_count = 1
        size, left, at = ctypes.sizeof(_Header), packets, 0
        while left:
            batch = min(_BATCH, left, count - at)
            done = _libc.sendmmsg(
                sock.fileno(), ctypes.c_void_p(ctypes.addressof(headers) + at * size), batch, 0
            )
            if done < 0:
                if ctypes.get_errno() == 105:  # ENOBUFS: the queue was full
                    continue
                raise OSError(ctypes.get_errno(), "sendmmsg")
            left -= done
            at = (at + done) % count


if __name__ == "__main__":
    send(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
