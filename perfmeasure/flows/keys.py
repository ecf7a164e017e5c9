"""The kernel's records of flows as numpy types, and the one table that all else uses.

`KEY`, `VALUE` and `WINDOW_TOTALS` are the structures of ``bpf/records.h``. `TABLE` has one row for
each flow and window, summed over the processors.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

KEY = np.dtype(
    [
        ("src_ip", "V16"),
        ("dst_ip", "V16"),
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("protocol", "u1"),
        ("direction", "u1"),
        ("interface", "u2"),
    ]
)
"""``struct flow_key``: addresses in the wire's byte order, IPv4 mapped into IPv6."""

VALUE = np.dtype(
    [
        ("packets", "u8"),
        ("bytes", "u8"),
        ("segments", "u8"),
        ("first_ns", "u8"),
        ("last_ns", "u8"),
        ("tcp_flags", "u4"),
        ("connects", "u4"),
        ("closes", "u4"),
        ("unused", "u4"),
    ]
)
"""``struct flow_value``: what one processor counted; times are CLOCK_MONOTONIC."""

TABLE = np.dtype(
    [
        *((name, KEY[name]) for name in KEY.names or ()),
        ("packets", "u8"),
        ("bytes", "u8"),
        ("segments", "u8"),
        ("first_ns", "u8"),
        ("last_ns", "u8"),
        ("connects", "u8"),
        ("closes", "u8"),
        ("tcp_flags", "u1"),
    ],
    align=True,
)
"""One flow in one window, or in several: the counts of all processors together."""

TOTALS = np.dtype([("packets", "u8"), ("bytes", "u8")])
"""``struct totals``."""

COUNTED_TERMS = ("seen", "full", "late", "unparsed")
"""The terms of the conservation law that the kernel counts, in the order of the structure."""

WINDOW_TOTALS = np.dtype([(term, TOTALS) for term in COUNTED_TERMS])
"""``struct window_totals``."""

SLOTS = 4
CONTROL_BEGIN_NS = SLOTS
WINDOW_RING = 256
HOOK_INTERFACES = 1024
ERROR_NUMBERS = 256
PROTOCOLS = 256
INGRESS, EGRESS = 0, 1
DIRECTIONS = ("ingress", "egress")
UNPARSED_REASONS = ("", "not_ip", "cut", "tags", "malformed", "extensions")
"""``enum packet_verdict``, why a frame has no key."""

_NEVER_NS = np.uint64(2**64 - 1)
_ONE = np.uint64(1)
_SUMMED = ("packets", "bytes", "segments", "connects", "closes")
# A row of the table begins with its key.
_KEY_OF_ROW = np.dtype(
    {"names": ["key"], "formats": [KEY], "offsets": [0], "itemsize": TABLE.itemsize}
)
_MAPPED = bytes(10) + b"\xff\xff"


class Total(NamedTuple):
    """A number of packets and of their bytes."""

    packets: int = 0
    bytes: int = 0

    def plus(self, other: Total) -> Total:
        """Return the sum of both."""
        return Total(self.packets + other.packets, self.bytes + other.bytes)


def address_text(address: bytes) -> str:
    """Return the usual text of 16 bytes: dotted for a mapped IPv4 address, else RFC 5952's."""
    if address[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def sum_processors(keys: Array, values: Array) -> Array:
    """Return the table of keys (n,) and values (n, processors), summed over the processors."""
    table = np.zeros(len(keys), TABLE)
    table.view(_KEY_OF_ROW)["key"] = keys
    table["first_ns"] = _NEVER_NS
    for column in values.T:
        for name in _SUMMED:
            table[name] += column[name]
        # A processor that did not see the flow has 0, which must not win: less one, it is never.
        np.minimum(table["first_ns"], column["first_ns"] - _ONE, out=table["first_ns"])
        np.maximum(table["last_ns"], column["last_ns"], out=table["last_ns"])
        table["tcp_flags"] |= column["tcp_flags"].astype("u1")
    table["first_ns"] += _ONE
    return table


def total(table: Array) -> Total:
    """Return the packets and bytes of a table."""
    return Total(int(table["packets"].sum()), int(table["bytes"].sum()))


def group(rows: Array) -> tuple[Array, Array]:
    """Tell which rows are the same.

    Args:
        rows: records (n,) of one type, whose size is a multiple of 8 bytes.

    Returns:
        The index of the first row of each group, and for each row the number of its group.
    """
    words = np.ascontiguousarray(rows).view("u8")
    words = words.reshape(len(rows), rows.dtype.itemsize // 8)
    hashes = _hashes(words)
    _, first, groups = np.unique(hashes, return_index=True, return_inverse=True)
    if not np.array_equal(words[first][groups], words):  # two rows have one hash
        _, first, groups = np.unique(words, axis=0, return_index=True, return_inverse=True)
    return first, groups.ravel()


def _hashes(words: Array) -> Array:
    hashes = np.zeros(len(words), "u8")
    for column in words.T:
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def merge(tables: Sequence[Array]) -> Array:
    """Return one table in which each flow of ``tables`` has one row."""
    rows = np.concatenate([np.zeros(0, TABLE), *tables])
    if not len(rows):
        return rows
    first, groups = group(rows.view(_KEY_OF_ROW)["key"])
    merged = rows[first]
    order = np.argsort(groups, kind="stable")
    rows = rows[order]
    begins = np.searchsorted(groups[order], np.arange(len(merged)))
    for name in _SUMMED:
        merged[name] = np.add.reduceat(rows[name], begins)
    merged["first_ns"] = np.minimum.reduceat(rows["first_ns"], begins)
    merged["last_ns"] = np.maximum.reduceat(rows["last_ns"], begins)
    merged["tcp_flags"] = np.bitwise_or.reduceat(rows["tcp_flags"], begins)
    return merged
