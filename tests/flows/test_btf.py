from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.errors import MissingError
from perfmeasure.flows import btf


def blob(types: bytes, strings: bytes) -> bytes:
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + (
        types + strings
    )


# "inner" stands within "outer" as an anonymous union, behind a const; the names share their tails.
STRINGS = b"\0int\0a\0outer\0x\0btf_trace_y\0bpf_iter_z\0"
AT = {name: STRINGS.index(b"\0" + name + b"\0") + 1 for name in STRINGS.split(b"\0") if name}
TYPES = b"".join(
    (
        struct.pack("=IIII", AT[b"int"], 1 << 24, 4, 32),  # 1: int
        struct.pack("=III", 0, 5 << 24 | 1, 4) + struct.pack("=III", AT[b"a"], 1, 0),  # 2: union
        struct.pack("=III", 0, 10 << 24, 2),  # 3: const of it
        struct.pack("=III", AT[b"outer"], 4 << 24 | 2, 12)  # 4: struct outer
        + struct.pack("=III", AT[b"x"], 1, 0)
        + struct.pack("=III", 0, 3, 64),
        struct.pack("=III", AT[b"btf_trace_y"], 8 << 24, 1),  # 5: typedef
        struct.pack("=III", AT[b"bpf_iter_z"], 12 << 24, 1),  # 6: function
    )
)


def test_members_are_found_inside_anonymous_ones() -> None:
    types = btf.Types(blob(TYPES, STRINGS))
    assert types.member_offset("outer.x") == 0
    assert types.member_offset("outer.a") == 8


@pytest.mark.parametrize("path", ["outer.b", "other.x", "outer.x.a", "int"])
def test_what_is_not_there_is_said(path: str) -> None:
    with pytest.raises(MissingError, match=r"no (member|structure)"):
        btf.Types(blob(TYPES, STRINGS)).member_offset(path)


def test_a_bit_field_is_its_byte_and_its_bit(require: Callable[..., None]) -> None:
    require("bpf")
    types = btf.running_kernel()
    byte, bit = types.flag("sock_common.skc_ipv6only")
    # struct sock_common: skc_reuse has four bits, skc_reuseport one; then it.
    assert byte == types.member_offset("sock_common.skc_reuse")
    assert bit == (1 << 5 if sys.byteorder == "little" else 1 << 2)


def test_hooks_are_found_by_name_and_kind() -> None:
    types = btf.Types(blob(TYPES, STRINGS))
    assert types.tracepoint_id("y") == 5
    assert types.iterator_id("z") == 6
    assert types.tracepoint_id("z") is types.iterator_id("y") is None


def test_something_else_is_no_btf() -> None:
    for other in (b"", b"\x7fELF" + bytes(100)):
        with pytest.raises(MissingError, match="not BTF"):
            btf.Types(other)
    with pytest.raises(MissingError, match="kind"):
        btf.Types(blob(struct.pack("=III", 0, 31 << 24, 0), b"\0"))


def test_a_kernel_without_btf(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="CONFIG_DEBUG_INFO_BTF"):
        btf.running_kernel(tmp_path / "vmlinux")


def test_the_running_kernel_agrees_with_a_stable_layout(require: Callable[..., None]) -> None:
    require("bpf")

    class Sockaddr(ctypes.Structure):
        _fields_ = (
            ("sin_family", ctypes.c_uint16),
            ("sin_port", ctypes.c_uint16),
            ("sin_addr", ctypes.c_uint32),
        )

    types = btf.running_kernel()
    for name, _ in Sockaddr._fields_:
        assert types.member_offset(f"sockaddr_in.{name}") == getattr(Sockaddr, name).offset
    assert types.tracepoint_id("inet_sock_set_state")
    assert types.tracepoint_id("no_such_event") is None
