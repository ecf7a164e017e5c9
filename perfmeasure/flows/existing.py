"""TCP sockets that were open before the kernel program came: found, and given its storage.

The descriptors of each process are looked through, and those that are TCP sockets borrowed for a
moment by pidfd_getfd(2), in whatever network namespace they are. Sockets that no process holds (not
yet accepted, or closed and still sending) are not found.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterable, Iterator
from pathlib import Path

from perfmeasure.flows import bpfcall
from perfmeasure.flows.connections import ORIGINS, SIDES, STATES, Flag, Record

PROC = Path("/proc")

_PIDFD_GETFD = 438  # on every architecture
_SIOCOUTQNSD = 0x894B
_BPF_NOEXIST = 1
_SO_PROTOCOL = 38
_CLOSED_STATES = frozenset(("CLOSE", "TIME_WAIT"))
_FIN_STATES = frozenset(("FIN_WAIT1", "FIN_WAIT2", "CLOSING", "LAST_ACK"))
# struct tcp_info (include/uapi/linux/tcp.h): tcpi_bytes_acked, tcpi_bytes_sent, tcpi_bytes_retrans.
_BYTES_ACKED_AT, _BYTES_SENT_AT = 120, 200
_INFO_BYTES = 256

_libc = ctypes.CDLL(None, use_errno=True)


def adopt(storage_fd: int, pids: Iterable[int]) -> int:
    """Give storage to the TCP sockets of some processes that have none; return to how many.

    A socket that several processes hold belongs to the first of ``pids`` that does.

    Args:
        storage_fd: the map of sockets' storage.
        pids: whose; a process that ends meanwhile, or may not be looked at, is passed over.
    """
    count = 0
    for pid in pids:
        for borrowed in _sockets(pid):
            with borrowed:
                record = describe(borrowed, pid)
                if record is None:
                    continue
                key = struct.pack("=i", borrowed.fileno())
                try:
                    bpfcall.update(storage_fd, key, record.pack(), _BPF_NOEXIST)
                except OSError as error:
                    if error.errno != errno.EEXIST:
                        raise
                else:
                    count += 1
    return count


def describe(sock: socket.socket, pid: int) -> Record | None:
    """Return the record with which a socket of a process begins; None if it is no TCP connection.

    What the kernel counts is not in it, since it is read anew each time.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    if sock.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL) != socket.IPPROTO_TCP:
        return None
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    state = STATES[info[0]]
    if state in _CLOSED_STATES:
        return None
    record = Record(
        pid=pid, origin=ORIGINS.index("scan"), command=_command(pid), flags=Flag.EXISTED_BEFORE
    )
    if state == "LISTEN":
        record.flags = Flag.IS_LISTENER
        record.origin = ORIGINS.index("listen")
        return record
    if state == "SYN_SENT":
        record.side = SIDES.index("active")
        return record
    record.flags |= Flag.WAS_ESTABLISHED
    if state in _FIN_STATES:
        record.flags |= Flag.LOCAL_FIN_SENT
        record.flags |= Flag.REMOTE_FIN_FIRST if state == "LAST_ACK" else Flag.LOCAL_FIN_FIRST
    elif state == "CLOSE_WAIT":
        record.flags |= Flag.REMOTE_FIN_FIRST
    if state not in _FIN_STATES:
        record.side = SIDES.index(_side(sock))
    return record


def _side(sock: socket.socket) -> str:
    """Return which side a socket is, by whether the kernel counted a SYN among what it had acked.

    Payload that was acknowledged is what was sent, less what was repeated and what is on its way.
    These are read one after the other, so between two readings that are alike.
    """
    for _ in range(4):
        before = _sent_and_acknowledged(sock)
        queued, unsent = (_ioctl_int(sock, what) for what in (termios.TIOCOUTQ, _SIOCOUTQNSD))
        after = _sent_and_acknowledged(sock)
        if before is not None and before == after:
            syn = before[1] - (before[0] - (queued - unsent))
            return {0: "passive", 1: "active"}.get(syn, "unknown")
    return "unknown"


def _sent_and_acknowledged(sock: socket.socket) -> tuple[int, int] | None:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _BYTES_SENT_AT + 16:
        return None
    sent, repeated = struct.unpack_from("=QQ", info, _BYTES_SENT_AT)
    return sent - repeated, struct.unpack_from("=Q", info, _BYTES_ACKED_AT)[0]


def _ioctl_int(sock: socket.socket, what: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock, what, bytes(4)), "little")


def _sockets(pid: int) -> Iterator[socket.socket]:
    """Yield our own descriptors of a process's sockets, each to be closed before the next."""
    with contextlib.suppress(OSError):
        descriptors = os.scandir(PROC / str(pid) / "fd")
        with descriptors:
            numbers = [int(entry.name) for entry in descriptors if _is_socket(entry)]
        if not numbers or pid == os.getpid():
            return
        process = os.pidfd_open(pid)
        try:
            for number in numbers:
                fd = _libc.syscall(_PIDFD_GETFD, process, number, 0)
                if fd >= 0:
                    yield socket.socket(fileno=fd)
        finally:
            os.close(process)


def _is_socket(entry: os.DirEntry[str]) -> bool:
    try:
        return str(Path(entry.path).readlink()).startswith("socket:")
    except OSError:
        return False


def _command(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "comm").read_bytes().rstrip(b"\n")[:15]
    except OSError:
        return b""


def pids_of_group(cgroup: Path) -> list[int]:
    """Return the processes of a control group and of those inside it, in order."""
    pids: set[int] = set()
    for file in (cgroup / "cgroup.procs", *cgroup.glob("**/cgroup.procs")):
        with contextlib.suppress(OSError):
            pids.update(map(int, file.read_text(encoding="ascii").split()))
    return sorted(pids)


def pids_of_machine() -> list[int]:
    """Return all processes, in order."""
    return sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
