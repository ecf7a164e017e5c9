"""The structures of ``core.h`` as numpy types, and the numbers that both sides know."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Data = bytes | bytearray | memoryview | mmap.mmap | Array
"""What bytes are read from."""

FRAME = np.dtype([
    ("ts_ns", "i8"), ("at", "u8"), ("captured", "u4"), ("original", "u4"), ("link", "u2"),
    ("interface", "u2"), ("unused", "V4"),
])  # fmt: skip
"""``struct frame``: where a frame is in a buffer, its Unix time in ns, its lengths in bytes."""

PACKET = np.dtype([
    ("a_ip", "V16"), ("b_ip", "V16"), ("a_port", "u2"), ("b_port", "u2"), ("protocol", "u1"),
    ("kind", "u1"), ("vlan", "u2", 2), ("direction", "u1"), ("tcp_flags", "u1"),
    ("verdict", "u1"), ("unused", "V3"), ("hash", "u8"),
])  # fmt: skip
"""``struct packet``: what was decoded of a frame; ``a`` is the end with the lower address."""

CONNECTION_IDENTITY = 38
"""The bytes of a packet that say which connection it belongs to."""
ROW_IDENTITY = 42
"""The same with the VLAN numbers."""

IDENTITY = np.dtype([
    ("a_ip", "V16"), ("b_ip", "V16"), ("a_port", "u2"), ("b_port", "u2"), ("protocol", "u1"),
    ("kind", "u1"), ("vlan", "u2", 2),
])  # fmt: skip
"""The first `ROW_IDENTITY` bytes of a packet."""

INDEX_ROW = np.dtype([
    ("identity", f"V{ROW_IDENTITY}"), ("unused", "V6"), ("hash", "u8"), ("packets", "u4", 2),
    ("bytes", "u8", 2),
])  # fmt: skip
"""``struct index_row``: packets and captured bytes by direction."""

CONNECTION = np.dtype([
    ("identity", f"V{CONNECTION_IDENTITY}"), ("state", "u1"), ("unused", "u1"), ("hash", "u8"),
    ("first_ns", "i8"), ("last_ns", "i8"), ("bytes", "u8"), ("cutoff", "u8"), ("packets", "u4"),
    ("class_id", "u4"),
])  # fmt: skip
"""``struct connection``: original bytes so far, and the cutoff that they are compared with."""

NO_CUTOFF = 2**64 - 1
NO_SLOT = 2**32 - 1
"""The slot of a packet that has no addresses, and so no connection."""

FIN_A, FIN_B, RST, FROM_B, CUTOFF_SUSPENDED, TIMEOUT_SUSPENDED, ENDED = 1, 2, 4, 8, 16, 32, 64
IN_KERNEL = 128
"""Bits of a connection's ``state``."""

WALK_MORE, WALK_FULL, WALK_OTHER = 0, 1, 2
"""Why a walk stopped: a record that is not whole, no room, something that is no such record."""

MAX_CAPTURED_BYTES = 262144
PCAP_RECORD_BYTES = 16
PCAP_HEADER_BYTES = 24

PARSED, NOT_IP, CUT, TAGS, MALFORMED, EXTENSIONS, UNKNOWN_LINK = range(7)
"""What decoding came to: ``enum packet_verdict``, and a link type that is not decoded."""

LINK_NULL, LINK_ETHERNET, LINK_RAW, LINK_LOOP = 0, 1, 101, 108
LINK_COOKED, LINK_IPV4, LINK_IPV6, LINK_COOKED2 = 113, 228, 229, 276
LINKS_RAW = (12, 14, LINK_RAW)

MAPPED = bytes(10) + b"\xff\xff"
"""What precedes an IPv4 address that is mapped into IPv6."""
