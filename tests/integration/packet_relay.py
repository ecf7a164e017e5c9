"""Two network namespaces with a relay of packets between them, which delays and keeps a log.

The kernel here has no netem, so the relay is a process of its own with a TUN device in either
namespace: ``packet_relay.py NAMESPACE_A NAMESPACE_B DELAY_MS LOG``. Its log has, for each packet,
when it came to the relay's device, by the kernel's own stamp, which does not wait for the relay to
be scheduled, and the moments before and after the relay wrote it to the other device. Writing to a
TUN hands the packet to the receiving socket within the call, so what the receiver's kernel does on
arrival lies between those two moments, however long the relay was kept from running.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import ipaddress
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ADDRESSES = {4: ("10.91.0.1", "10.91.0.2"), 6: ("fd91::1", "fd91::2")}
DEVICE = "relay0"

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_HEAD_BYTES = 128
_ENTRY = struct.Struct(f"=QQQH{_HEAD_BYTES}s")
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35
_ETH_P_ALL = 3
# Classic BPF: load the packet's kind; if it is PACKET_OUTGOING, keep its head.
_OUTGOING_ONLY = ((0x20, 0, 0, 0xFFFFF004), (0x15, 0, 1, 4), (6, 0, 0, _HEAD_BYTES), (6, 0, 0, 0))
_QUICK_NS = 5000
_libc = ctypes.CDLL(None, use_errno=True)


class Packet(NamedTuple):
    """What the relay, or a capture, says of one TCP segment."""

    source: tuple[str, int]
    target: tuple[str, int]
    sequence: int
    is_syn: bool
    is_ack: bool
    payload_bytes: int
    arrived_ns: int = 0
    before_ns: int = 0
    after_ns: int = 0


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Have this thread make its sockets in a namespace."""
    with Path("/proc/thread-self/ns/net").open("rb") as own, Path(namespace).open("rb") as other:
        _setns(other.fileno())
        try:
            yield
        finally:
            _setns(own.fileno())


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class RelayedNetwork:
    """Namespaces ``a`` and ``b`` (paths for `inside`), joined by the relay until `close`."""

    def __init__(self, folder: Path, delay_ms: float) -> None:
        self._names = [f"perfmeasure-test-{os.getpid()}-{side}" for side in "ab"]
        self.a, self.b = (f"/run/netns/{name}" for name in self._names)
        self._log = folder / "relay.log"
        self._relay: subprocess.Popen[str] | None = None
        try:
            for name in self._names:
                subprocess.run(["ip", "netns", "add", name], check=True)
            argv = [sys.executable, __file__, self.a, self.b, str(delay_ms), str(self._log)]
            self._relay = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            assert self._relay.stdout is not None
            assert self._relay.stdout.readline() == "READY\n"
            for side, name in enumerate(self._names):
                self._set_up(name, side)
        except BaseException:
            self.close()
            raise

    def _set_up(self, name: str, side: int) -> None:
        def ip(*arguments: str) -> None:
            subprocess.run(["ip", "-n", name, *arguments], check=True)

        ip("link", "set", "lo", "up")
        ip("addr", "add", ADDRESSES[4][side], "peer", ADDRESSES[4][1 - side], "dev", DEVICE)
        ip("addr", "add", f"{ADDRESSES[6][side]}/64", "nodad", "dev", DEVICE)
        ip("link", "set", DEVICE, "up")

    def packets(self) -> list[Packet]:
        """End the relay and return what it saw, in the order of forwarding."""
        assert self._relay is not None
        self._relay.terminate()
        assert self._relay.wait(30) == 0
        found = []
        for arrived, before, after, length, head in _ENTRY.iter_unpack(self._log.read_bytes()):
            packet = parse(head, length)
            if packet is not None:
                found.append(packet._replace(arrived_ns=arrived, before_ns=before, after_ns=after))
        return found

    def close(self) -> None:
        """Remove all of it."""
        if self._relay is not None:
            if self._relay.poll() is None:
                self._relay.kill()
            self._relay.wait(10)
            assert self._relay.stdout is not None
            self._relay.stdout.close()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def parse(head: bytes, length: int) -> Packet | None:
    """Read a packet that begins with its IP header; None if it is not TCP."""
    if head[0] >> 4 == 4:
        protocol, at = head[9], (head[0] & 15) * 4
        addresses = [str(ipaddress.ip_address(head[i : i + 4])) for i in (12, 16)]
    else:
        protocol, at = head[6], 40
        addresses = [str(ipaddress.ip_address(head[i : i + 16])) for i in (8, 24)]
    if protocol != 6:
        return None
    source, target, sequence, _, words, flags = struct.unpack_from(">HHIIBB", head, at)
    payload = length - at - (words >> 4) * 4
    return Packet(
        (addresses[0], source), (addresses[1], target), sequence,
        bool(flags & 2), bool(flags & 16), payload,
    )  # fmt: skip


def captured(path: Path) -> list[Packet]:
    """Read a pcap file of packets without a link layer."""
    data = path.read_bytes()
    found = []
    at = 24
    while at < len(data):
        kept, length = struct.unpack_from("=II", data, at + 8)
        packet = parse(data[at + 16 : at + 16 + kept], length)
        if packet is not None:
            found.append(packet)
        at += 16 + kept
    return found


# ---- the relay's own process --------------------------------------------------------------------


def _open_tun(namespace: str) -> int:
    with inside(namespace):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


class _Arrivals:
    """The kernel's stamps of the packets that a namespace sends into its device, in their order."""

    def __init__(self, namespace: str) -> None:
        with inside(namespace):
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        program = b"".join(struct.pack("=HBBI", *words) for words in _OUTGOING_ONLY)
        buffer = ctypes.create_string_buffer(program)
        filter_ = struct.pack("@HP", len(_OUTGOING_ONLY), ctypes.addressof(buffer))  # sock_fprog
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._tap.bind((DEVICE, _ETH_P_ALL))
        self._tap.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # that the device is not up yet

    def of(self, packet: bytes) -> int:
        """Return when a packet came, on CLOCK_REALTIME; earlier ones were dropped by the device."""
        while True:
            head, ancillary, _, _ = self._tap.recvmsg(_HEAD_BYTES, 64)
            if head == packet[:_HEAD_BYTES]:
                ((_, _, stamp),) = ancillary
                seconds, nanoseconds = struct.unpack("=qq", stamp)
                return int(seconds * 10**9 + nanoseconds)


def _distance_ns() -> int:
    """Return CLOCK_REALTIME minus CLOCK_MONOTONIC, read without an interruption."""
    while True:
        first, utc, last = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if last - first < _QUICK_NS:
            return utc - first


def relay(namespaces: list[str], delay_ms: float, log: Path) -> None:
    """Forward packets until SIGTERM, then write the log."""
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
    tuns = [_open_tun(namespace) for namespace in namespaces]
    arrivals = [_Arrivals(namespace) for namespace in namespaces]
    # What is measured here is the kernel, not how soon the scheduler comes round to the relay.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    gc.disable()
    print("READY", flush=True)  # noqa: T201
    waiting: deque[tuple[int, int, int, bytes]] = deque()
    entries = []
    delay_ns = int(delay_ms * 1e6)

    def read() -> None:
        for side, tun in enumerate(tuns):
            while True:
                try:
                    packet = os.read(tun, 65536)
                except BlockingIOError:
                    break
                arrived = arrivals[side].of(packet) - _distance_ns()
                waiting.append((time.monotonic_ns() + delay_ns, arrived, side, packet))

    while not stops:
        wait = 0.2 if not waiting else max(0.0, (waiting[0][0] - time.monotonic_ns()) / 1e9)
        select.select(tuns, [], [], wait)
        read()
        while waiting and waiting[0][0] <= time.monotonic_ns():
            _, arrived, side, packet = waiting.popleft()
            before = time.monotonic_ns()
            with contextlib.suppress(OSError):  # the other device is not up yet
                os.write(tuns[1 - side], packet)
            entries.append((arrived, before, time.monotonic_ns(), packet))
            read()  # a write takes as long as the receiver does, and the next packet is there
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with log.open("wb") as file:
        for arrived, before, after, packet in entries:
            file.write(_ENTRY.pack(arrived, before, after, len(packet), packet[:_HEAD_BYTES]))


if __name__ == "__main__":
    relay(sys.argv[1:3], float(sys.argv[3]), Path(sys.argv[4]))
