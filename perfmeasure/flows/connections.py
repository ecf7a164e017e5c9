"""Records of TCP connections: the layout that the kernel program writes, and the line of the log.

The layout is ``struct connection`` of ``bpf/connections.bpf.c``; the line is described in
``docs/formats.md``. What is not known is left out of a line.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import socket
import struct
from typing import Any

LAYOUT = struct.Struct("=12Q12I4H5B3x16s16s16s")
"""The fields of `Record`, in its order."""

_INET6 = 10
_NOT_MEASURED = 0xFFFFFFFF
_MAPPED = bytes(10) + b"\xff\xff"
_SOCK_DONE = 1 << 1  # enum sock_flags: set when a FIN arrives

STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
    "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV",
)  # fmt: skip
"""TCP's states by number (the kernel's ``include/net/tcp_states.h``)."""

SIDES = ("unknown", "active", "passive")
ORIGINS = ("", "connect", "listen", "first_io", "scan")


class Flag(enum.IntFlag):
    """The bits of `Record.flags`."""

    IS_LISTENER = 1
    EXISTED_BEFORE = 2
    COUNTS_TIMEOUTS = 4
    LOCAL_FIN_FIRST = 8
    REMOTE_FIN_FIRST = 16
    LOCAL_FIN_SENT = 32
    WAS_ESTABLISHED = 64
    IS_CLOSED = 128


@dataclasses.dataclass(slots=True)
class Record:
    """One record as the kernel program keeps it; zero is what has not been seen."""

    cookie: int = 0
    connect_ns: int = 0
    syn_ack_ns: int = 0
    established_ns: int = 0
    first_sent_ns: int = 0
    last_sent_ns: int = 0
    first_received_ns: int = 0
    last_received_ns: int = 0
    closed_ns: int = 0
    acknowledged: int = 0
    received: int = 0
    cgroup_id: int = 0
    segments_sent: int = 0
    segments_received: int = 0
    retransmitted: int = 0
    timeouts: int = 0
    srtt_us_times_8: int = 0
    minimum_rtt_us: int = 0
    unacknowledged: int = 0
    pid: int = 0
    netns: int = 0
    error: int = 0
    segments_told: int = 0
    socket_flags: int = 0
    flags: int = 0
    family: int = 0
    local_port: int = 0
    remote_port: int = 0
    side: int = 0
    origin: int = 0
    state: int = 0
    is_v6only: int = 0
    reconnects: int = 0
    """How many connections of the same socket were before this one."""
    local_address: bytes = b""
    remote_address: bytes = b""
    command: bytes = b""

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """Read a record from the kernel.

        Raises:
            struct.error: it has another size.
        """
        return cls(*LAYOUT.unpack(data))

    def pack(self) -> bytes:
        """Return the record as the kernel keeps it."""
        return LAYOUT.pack(*(getattr(self, name) for name in self.__slots__))

    def line(self, unix_ts: float) -> dict[str, Any]:
        """Return the record as it stands in the log, at the time of its arrival."""
        is_closed = self.is_closed
        existed = bool(self.flags & Flag.EXISTED_BEFORE)
        family, local = address(self.family, self.local_address)
        _, remote = address(self.family, self.remote_address)
        line: dict[str, Any] = {
            "record": "connection",
            "unix_ts": unix_ts,
            "state": "closed" if is_closed else "open",
            "cookie": self.cookie,
            "netns": self.netns,
            "side": SIDES[self.side],
            "existed_before_start": existed,
            "family": family,
            "local_ip": local,
            "local_port": self.local_port,
            "remote_ip": remote,
            "remote_port": self.remote_port,
        }
        if self.origin:
            line["pid"] = self.pid
            line["command"] = self.command_text()
            line["process_seen_at"] = ORIGINS[self.origin]
            if self.cgroup_id:
                line["cgroup_id"] = self.cgroup_id
        for name in _TIMES:
            # The first byte since we look is not the connection's first.
            if (stamp := getattr(self, f"{name}_ns")) and not (existed and name in _FIRST):
                line[f"{name}_monotonic_ns"] = stamp
        line |= self._counts()
        line["tcp_state" if not is_closed else "last_tcp_state"] = STATES[self.state]
        if is_closed:
            line["end"] = self.end()
            if self.error:
                line["error"] = errno.errorcode.get(self.error, str(self.error))
        return line

    def _counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = {}
        if self.side or not self.flags & Flag.EXISTED_BEFORE:
            counts["bytes_sent"] = self.bytes_sent()
        counts["bytes_received"] = self.bytes_received()
        counts["segments_sent"] = self.segments_sent
        counts["segments_received"] = self.segments_received
        counts["retransmitted_segments"] = self.retransmitted
        if self.flags & Flag.COUNTS_TIMEOUTS:
            counts["retransmission_timeouts"] = self.timeouts
        if self.srtt_us_times_8:
            counts["smoothed_rtt_us"] = self.srtt_us_times_8 >> 3
        if self.minimum_rtt_us != _NOT_MEASURED:
            counts["minimum_rtt_us"] = self.minimum_rtt_us
        return counts

    def bytes_sent(self) -> int:
        """Return the payload that the peer acknowledged.

        The kernel counts as one byte the SYN of the active side, once it is acknowledged, and a
        FIN that is.
        """
        is_active = self.side == SIDES.index("active")
        syn = is_active and bool(self.flags & Flag.WAS_ESTABLISHED)
        fin = bool(self.flags & Flag.LOCAL_FIN_SENT) and self.unacknowledged == 0
        return max(0, self.acknowledged - syn - fin)

    def bytes_received(self) -> int:
        """Return the payload that arrived; the kernel counts a FIN as a byte."""
        return self.received - bool(self.socket_flags & _SOCK_DONE)

    @property
    def is_listener(self) -> bool:
        """Whether it is of a socket that listens, and no connection."""
        return bool(self.flags & Flag.IS_LISTENER)

    @property
    def is_closed(self) -> bool:
        """Whether it is the last one of its socket."""
        return bool(self.flags & Flag.IS_CLOSED)

    def command_text(self) -> str:
        """Return what the process called itself."""
        return self.command.partition(b"\0")[0].decode("utf-8", "replace")

    def end(self) -> str:
        """Return how a closed connection ended: a word of ``end`` in the log."""
        state = STATES[self.state]
        if self.error or state == "SYN_SENT":
            return _END_BY_ERROR.get(self.error, "unknown")
        if state in ("ESTABLISHED", "CLOSE_WAIT", "SYN_RECV", "FIN_WAIT1"):
            # It went without waiting for the peer: a reset was sent.
            return "reset_local"
        if self.flags & Flag.LOCAL_FIN_FIRST:
            return "fin_local"
        return "fin_remote" if self.flags & Flag.REMOTE_FIN_FIRST else "unknown"


_TIMES = (
    "connect", "syn_ack", "established", "first_sent", "last_sent", "first_received",
    "last_received", "closed",
)  # fmt: skip
_END_BY_ERROR = {
    errno.ETIMEDOUT: "timeout",
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset_remote",
    errno.EPIPE: "reset_remote",
}
_FIRST = frozenset(("first_sent", "first_received"))


def address(family: int, raw: bytes) -> tuple[int, str]:
    """Return 4 or 6, and the address as text; one mapped into IPv6 is an IPv4 address.

    Args:
        family: the kernel's number of it, 2 or 10.
        raw: 16 bytes, of which IPv4 uses the first four.
    """
    if family != _INET6:
        return 4, socket.inet_ntop(socket.AF_INET, raw[:4])
    if raw[:12] == _MAPPED:
        return 4, socket.inet_ntop(socket.AF_INET, raw[12:])
    return 6, socket.inet_ntop(socket.AF_INET6, raw)
