"""Loads ``bpf/connections.bpf.c``, attaches it, and takes its records out of the ring.

With a cgroup v2 the hooks are sock_ops and cgroup_skb of that group (``sockops``); without one,
tracepoints for the whole machine (``tracepoints``), which tell less. In both the ends of
connections come from the tracepoint of TCP's states, and snapshots from an iterator.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall, btf, tracing
from perfmeasure.flows.bpfcall import AttachType
from perfmeasure.flows.connections import LAYOUT
from perfmeasure.flows.loader import Program

FILE_NAME = "connections.bpf.c"
RING_BYTES = 4 << 20
"""Room for 19,000 records; the reader looks ten times a second."""

_GROUP_HOOKS = {
    "on_socket_operation": ("SOCK_OPS", AttachType.CGROUP_SOCK_OPS),
    "on_sent": ("CGROUP_SKB", AttachType.CGROUP_INET_EGRESS),
    "on_received": ("CGROUP_SKB", AttachType.CGROUP_INET_INGRESS),
}
_MEMBERS = {
    "SKC_FAMILY": "sock.__sk_common.skc_family",
    "SKC_STATE": "sock.__sk_common.skc_state",
    "SKC_FLAGS": "sock.__sk_common.skc_flags",
    "SKC_DADDR": "sock.__sk_common.skc_daddr",
    "SKC_RCV_SADDR": "sock.__sk_common.skc_rcv_saddr",
    "SKC_DPORT": "sock.__sk_common.skc_dport",
    "SKC_V6_DADDR": "sock.__sk_common.skc_v6_daddr",
    "SKC_V6_RCV_SADDR": "sock.__sk_common.skc_v6_rcv_saddr",
    "SKC_NET": "sock.__sk_common.skc_net.net",
    "SK_ERR": "sock.sk_err",
    "SK_PROTOCOL": "sock.sk_protocol",
    "INET_SPORT": "inet_sock.inet_sport",
    "NET_INUM": "net.ns.inum",
    "SKB_DATA": "sk_buff.data",
    "SKB_LEN": "sk_buff.len",
    "BYTES_ACKED": "tcp_sock.bytes_acked",
    "BYTES_RECEIVED": "tcp_sock.bytes_received",
    "SEGS_IN": "tcp_sock.segs_in",
    "SEGS_OUT": "tcp_sock.segs_out",
    "SND_UNA": "tcp_sock.snd_una",
    "SRTT_US": "tcp_sock.srtt_us",
    "TOTAL_RETRANS": "tcp_sock.total_retrans",
    "WRITE_SEQ": "tcp_sock.write_seq",
}
_IO_TRACEPOINTS = ("sock_send_length", "sock_recv_length")  # from Linux 6.3 on


def offsets(types: btf.Types) -> dict[str, int]:
    """Return the preprocessor symbols that say where the members are.

    Raises:
        MissingError: this kernel lacks a member.
    """
    symbols = {f"OFFSET_{name}": types.member_offset(path) for name, path in _MEMBERS.items()}
    minimum = types.member_offset("tcp_sock.rtt_min") + types.member_offset("minmax_sample.v")
    v6only, bit = types.flag("sock.__sk_common.skc_ipv6only")
    return {
        **symbols,
        "OFFSET_RTT_MIN": minimum,
        "OFFSET_SKC_IPV6ONLY": v6only,
        "SKC_IPV6ONLY_BIT": bit,
    }


class ConnectionSource:
    """The loaded program and what it tells.

    Args:
        cgroup: the group whose sockets are recorded; None is the machine, by tracepoints.

    Raises:
        MissingError: it cannot be compiled, loaded or attached here.
    """

    def __init__(self, cgroup: Path | None) -> None:
        types = btf.running_kernel()
        symbols = {
            "IS_MACHINE_WIDE": int(cgroup is None),
            "RING_PAGES": RING_BYTES // os.sysconf("SC_PAGE_SIZE"),
            **offsets(types),
        }
        kinds = {} if cgroup is None else {name: kind for name, (kind, _) in _GROUP_HOOKS.items()}
        self._program = Program(FILE_NAME, kinds, symbols)
        self.program_fds = {name: self._program.fd(name) for name in kinds}
        """Descriptors of the loaded functions, by name."""
        self._links: list[int] = []
        self._records: list[bytes] = []
        self.storage_fd = self._program.map_fd("storage")
        self._check_layout()
        self._program.table["records"].open_ring_buffer(self._take)
        self._lost_fd = self._program.map_fd("lost")
        self._wants_all_fd = self._program.map_fd("wants_all")
        try:
            self._attach(types, cgroup)
        except OSError as error:
            raise MissingError(
                FILE_NAME,
                f"cannot be attached to {cgroup or 'tracepoints'} ({error.strerror})",
                next_step="run perfmeasure doctor flows",
            ) from error

    def read(self) -> list[bytes]:
        """Return the records that have come since the last call."""
        self._program.table.ring_buffer_consume()
        records, self._records = self._records, []
        return records

    def snapshot(self, *, with_idle: bool = False) -> None:
        """Have a record written of each live connection with new segments, or of all of them.

        Raises:
            OSError: the kernel refused.
        """
        if with_idle:
            bpfcall.update(self._wants_all_fd, bytes(4), struct.pack("=I", 1))
        tracing.iterate(self._iterator)

    def lost(self) -> dict[str, int]:
        """Return what was lost since the start, by kind.

        Raises:
            OSError: the kernel refused.
        """
        values = (
            bpfcall.lookup(self._lost_fd, struct.pack("=I", index), 8) or bytes(8)
            for index in range(2)
        )
        counts = (struct.unpack("=Q", value)[0] for value in values)
        return dict(zip(("ring_reservations", "storage"), counts, strict=True))

    def close(self) -> None:
        """Detach."""
        for link in self._links:
            os.close(link)
        self._links = []

    def _attach(self, types: btf.Types, cgroup: Path | None) -> None:
        points = {"on_state": ["inet_sock_set_state"]}
        points["on_io"] = [name for name in _IO_TRACEPOINTS if types.tracepoint_id(name)]
        if cgroup is None:
            points["on_probe"] = ["tcp_probe"]
        else:
            folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for name, (_, attach_type) in _GROUP_HOOKS.items():
                    fd = self.program_fds[name]
                    self._links.append(bpfcall.link_create(fd, folder, attach_type))
            finally:
                os.close(folder)
        for function, names in points.items():
            for name in names:
                fd = tracing.load_tracepoint(self._program, function, name, types)
                self.program_fds[f"{function}:{name}"] = fd
                self._links.append(tracing.attach_tracepoint(fd))
        iterator = tracing.load_iterator(self._program, "on_snapshot", "bpf_sk_storage_map", types)
        self.program_fds["on_snapshot"] = iterator
        self._iterator = tracing.attach_iterator(iterator, self.storage_fd)
        self._links.append(self._iterator)

    def _take(self, context: object, data: int, size: int) -> int:
        del context
        self._records.append(ctypes.string_at(data, size))
        return 0

    def _check_layout(self) -> None:
        bytes_of_value = bpfcall.map_value_bytes(self.storage_fd)
        if bytes_of_value != LAYOUT.size:
            raise MissingError(
                FILE_NAME,
                f"its records have {bytes_of_value} bytes",
                f"{LAYOUT.size}",
                "install perfmeasure and its bpf folder from the same version",
            )
