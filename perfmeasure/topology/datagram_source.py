"""Loads ``bpf/datagrams.bpf.c``, attaches it to a control group, and takes out what it counts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

import numpy as np

from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall, btf
from perfmeasure.flows.bpfcall import AttachType, BatchReader
from perfmeasure.flows.loader import Program
from perfmeasure.topology.datagrams import EVENT, NUMBERS, OWNER, PEER, Event, Owner, Peer

FILE_NAME = "datagrams.bpf.c"
RING_BYTES = 1 << 20
"""Room for 10,000 sockets that are bound or closed between two readings."""

_HOOKS = {
    "on_made": ("CGROUP_SOCK", AttachType.CGROUP_SOCK_CREATE),
    "on_bound4": ("CGROUP_SOCK", AttachType.CGROUP_INET4_POST_BIND),
    "on_bound6": ("CGROUP_SOCK", AttachType.CGROUP_INET6_POST_BIND),
    "on_closed": ("CGROUP_SOCK", AttachType.CGROUP_SOCK_RELEASE),
    "on_sent": ("CGROUP_SKB", AttachType.CGROUP_INET_EGRESS),
    "on_received": ("CGROUP_SKB", AttachType.CGROUP_INET_INGRESS),
}
_MEMBERS = {
    "TASK_NSPROXY": "task_struct.nsproxy",
    "NSPROXY_NET": "nsproxy.net_ns",
    "NET_INUM": "net.ns.inum",
}
_BPF_NOEXIST = 1
_LOST = ("datagram_sockets", "datagrams", "datagram_events")


class DatagramSource:
    """The loaded program and what it counts.

    Args:
        group: the control group (v2) whose sockets are counted.

    Raises:
        MissingError: it cannot be compiled, loaded or attached here.
    """

    def __init__(self, group: Path) -> None:
        types = btf.running_kernel()
        symbols = {f"OFFSET_{name}": types.member_offset(path) for name, path in _MEMBERS.items()}
        symbols["RING_PAGES"] = RING_BYTES // os.sysconf("SC_PAGE_SIZE")
        self._program = Program(
            FILE_NAME,
            {name: kind for name, (kind, _) in _HOOKS.items()},
            symbols,
            {name: hook for name, (kind, hook) in _HOOKS.items() if kind == "CGROUP_SOCK"},
        )
        self._events: list[bytes] = []
        self._program.table["events"].open_ring_buffer(self._take)
        self._owners_fd = self._program.map_fd("owners")
        self._peers_fd = self._program.map_fd("peers")
        self._lost_fd = self._program.map_fd("lost")
        self._reader = BatchReader(np.dtype(f"V{PEER.size}"), np.dtype(f"V{NUMBERS.size}"), 1, 4096)
        self._links: list[int] = []
        self._attach(group)

    def close(self) -> None:
        """Detach."""
        for link in self._links:
            os.close(link)
        self._links = []

    def adopt(self, cookie: int, owner: Owner) -> None:
        """Say whose a socket is that was there before; of one that was not, all is known.

        Raises:
            OSError: the kernel refused.
        """
        with contextlib.suppress(FileExistsError):
            key = struct.pack("=Q", cookie)
            bpfcall.update(self._owners_fd, key, OWNER.pack(*owner), _BPF_NOEXIST)

    def events(self) -> list[Event]:
        """Return which sockets were bound and closed since the last call."""
        self._program.table.ring_buffer_consume()
        events, self._events = self._events, []
        return [Event.unpack(data) for data in events]

    def peers(self) -> list[tuple[bytes, Peer]]:
        """Return all peers of all sockets with their numbers so far, each with its key.

        Raises:
            OSError: the kernel refused.
        """
        keys, values = self._reader.peek(self._peers_fd)
        raw_keys, raw_values = keys.tobytes(), values.tobytes()
        return [
            (key, Peer.unpack(key, raw_values[at * NUMBERS.size : (at + 1) * NUMBERS.size]))
            for at in range(len(keys))
            for key in (raw_keys[at * PEER.size : (at + 1) * PEER.size],)
        ]

    def take(self, key: bytes) -> Peer | None:
        """Take a peer out of the table; return its last numbers.

        Raises:
            OSError: the kernel refused.
        """
        value = bpfcall.take(self._peers_fd, key, NUMBERS.size)
        return None if value is None else Peer.unpack(key, value)

    def lost(self) -> dict[str, int]:
        """Return what was lost since the start, by kind.

        Raises:
            OSError: the kernel refused.
        """
        values = (
            bpfcall.lookup(self._lost_fd, struct.pack("=I", index), 8) or bytes(8)
            for index in range(len(_LOST))
        )
        return {
            what: struct.unpack("=Q", value)[0] for what, value in zip(_LOST, values, strict=True)
        }

    def _attach(self, group: Path) -> None:
        try:
            folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for name, (_, hook) in _HOOKS.items():
                    self._links.append(bpfcall.link_create(self._program.fd(name), folder, hook))
            finally:
                os.close(folder)
        except OSError as error:
            self.close()
            raise MissingError(
                FILE_NAME,
                f"cannot be attached to {group} ({error.strerror})",
                next_step="run perfmeasure doctor flows",
            ) from error

    def _take(self, context: object, data: int, size: int) -> int:
        del context, size
        self._events.append(ctypes.string_at(data, EVENT.size))
        return 0
