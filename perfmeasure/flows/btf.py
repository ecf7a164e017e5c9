"""Reads the kernel's own description of its types (BTF): where members are, and what ids are.

Source: ``/sys/kernel/btf/vmlinux``; the format is the kernel's ``Documentation/bpf/btf.rst``.
A program that looks at a kernel structure is compiled with the offsets found here, so that a
member that moved is found again, and one that is gone is an error instead of a wrong number.
"""

from __future__ import annotations

import struct
import sys
from array import array
from pathlib import Path

from perfmeasure.errors import MissingError

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_PTR, _ARRAY, _STRUCT, _UNION, _TYPEDEF, _FUNC = 2, 3, 4, 5, 8, 12
_MODIFIERS = frozenset((_TYPEDEF, 9, 10, 11, 18))  # typedef, volatile, const, restrict, type tag
# Bytes that follow a type's head, by kind: a fixed number, and so many for each of vlen.
_FIXED = {1: 4, _ARRAY: 12, 14: 4, 17: 4}
_EACH = {_STRUCT: 12, _UNION: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_LAST_KIND = 19


class Types:
    """The types of one BTF blob.

    Args:
        blob: its bytes.
        where: what it is called in errors.

    Raises:
        MissingError: it is not BTF, or of a newer kind.
    """

    def __init__(self, blob: bytes, where: str = "BTF") -> None:
        self._blob = blob
        self._where = where
        try:
            magic, _, _, head, type_at, type_bytes, string_at, string_bytes = _HEADER.unpack_from(
                blob
            )
        except struct.error:
            magic = 0
        if magic != _MAGIC:
            raise self._missing("not BTF in this machine's byte order")
        self._strings = blob[head + string_at : head + string_at + string_bytes]
        self._offsets = array("Q", [0])
        self._by_name: dict[int, list[int]] = {}
        self._index(head + type_at, head + type_at + type_bytes)

    def member_offset(self, path: str) -> int:
        """Return where a member is, in bytes from the start: ``sock.__sk_common.skc_family``.

        Members of anonymous structures and unions inside are found as in C.

        Raises:
            MissingError: there is no such structure or member.
        """
        return self._member_bits(path) // 8

    def flag(self, path: str) -> tuple[int, int]:
        """Return where a bit field of one bit is: its byte, and the bit's value in that.

        Raises:
            MissingError: there is no such structure or member.
        """
        byte, bit = divmod(self._member_bits(path), 8)
        return byte, 1 << bit if sys.byteorder == "little" else 0x80 >> bit

    def _member_bits(self, path: str) -> int:
        name, *members = path.split(".")
        type_id = self._named(name, _STRUCT)
        bits = 0
        for member in members:
            found = self._member(type_id, member) if type_id is not None else None
            if found is None:
                raise self._missing(f"no member {path}")
            bits += found[0]
            type_id = self._structure(found[1])
        if not members and type_id is None:
            raise self._missing(f"no structure {name}")
        return bits

    def tracepoint_id(self, name: str) -> int | None:
        """Return the id that a program names to run at a tracepoint; None if there is none."""
        return self._named(f"btf_trace_{name}", _TYPEDEF)

    def iterator_id(self, name: str) -> int | None:
        """Return the id that a program names to be run by an iterator; None if there is none."""
        return self._named(f"bpf_iter_{name}", _FUNC)

    def _missing(self, got: str) -> MissingError:
        return MissingError(
            self._where, got, "the types of Linux 5.10 or later", "use a kernel that has them"
        )

    def _index(self, at: int, end: int) -> None:
        """Note where each type is, and the ids of each name."""
        blob, offsets, by_name = self._blob, self._offsets, self._by_name
        unpack = _TYPE.unpack_from
        while at < end:
            name, info, _ = unpack(blob, at)
            if name:
                by_name.setdefault(name, []).append(len(offsets))
            offsets.append(at)
            kind = info >> 24 & 31
            if kind > _LAST_KIND:
                raise self._missing(f"types of a kind ({kind}) that is not known")
            at += 12 + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)

    def _named(self, name: str, kind: int) -> int | None:
        # Strings may share their tails, so one text may stand at several places.
        text = b"\0" + name.encode() + b"\0"
        at = self._strings.find(text)
        while at >= 0:
            for type_id in self._by_name.get(at + 1, ()):
                if self._head(type_id)[1] >> 24 & 31 == kind:
                    return type_id
            at = self._strings.find(text, at + 1)
        return None

    def _head(self, type_id: int) -> tuple[int, int, int]:
        name, info, size_or_type = _TYPE.unpack_from(self._blob, self._offsets[type_id])
        return name, info, size_or_type

    def _structure(self, type_id: int) -> int | None:
        """Return the structure or union behind names and modifiers, None if it is another kind."""
        while type_id:
            _, info, target = self._head(type_id)
            kind = info >> 24 & 31
            if kind in (_STRUCT, _UNION):
                return type_id
            if kind not in _MODIFIERS:
                return None
            type_id = target
        return None

    def _member(self, type_id: int, wanted: str) -> tuple[int, int] | None:
        """Return the offset in bits and the type of a member."""
        info = self._head(type_id)[1]
        # With the flag, the upper byte of an offset is the width of a bit field.
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        for number in range(info & 0xFFFF):
            at = self._offsets[type_id] + 12 + 12 * number
            name, member_type, bits = _MEMBER.unpack_from(self._blob, at)
            bits &= mask
            if not name:
                inside = self._structure(member_type)
                found = self._member(inside, wanted) if inside is not None else None
                if found is not None:
                    return bits + found[0], found[1]
            elif self._text(name) == wanted:
                return bits, member_type
        return None

    def _text(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()


def running_kernel(path: Path = VMLINUX) -> Types:
    """Return the types of the running kernel.

    Raises:
        MissingError: it does not tell them (built without ``CONFIG_DEBUG_INFO_BTF``).
    """
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise MissingError(
            str(path),
            f"cannot be read ({error.strerror})",
            "the kernel's own description of its types",
            "use a kernel that was built with CONFIG_DEBUG_INFO_BTF",
        ) from error
    return Types(blob, str(path))
