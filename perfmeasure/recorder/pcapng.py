"""Blocks of pcapng: sections, interfaces, and the three kinds of packet block.

Format: draft-ietf-opsawg-pcapng. The native core walks runs of enhanced packet blocks; whatever
else stands in the file is read here. A simple packet block has no time: it gets that of the packet
before it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from perfmeasure.recorder import core
from perfmeasure.recorder.records import (
    FRAME,
    MAX_CAPTURED_BYTES,
    WALK_FULL,
    Array,
)
from perfmeasure.recorder.window import Window

SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_READ_BLOCKS = (_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET)
"""All others are passed over, however long they are."""
_MAX_BLOCK_BYTES = 16 << 20
_OPTION_RESOLUTION, _OPTION_OFFSET = 9, 14
_MAX_TICKS_IN_NUMPY = 2**34
"""Above this many ticks a second, a fraction times 10⁹ no longer fits 64 bits."""


@dataclass(frozen=True)
class Interface:
    """What an interface description block says.

    Attributes:
        ticks_per_second: of the packets' times.
        offset_seconds: to be added to them.
        captured_limit_bytes: what was captured at most of a packet, 0 for no limit.
    """

    link: int
    captured_limit_bytes: int
    ticks_per_second: int = 10**6
    offset_seconds: int = 0

    def unix_ns(self, ticks: Array) -> Array:
        """Return Unix times in ns (int64) of ticks (uint64); -1 where it is not 1970 to 2106."""
        if self.ticks_per_second > _MAX_TICKS_IN_NUMPY:
            exact = [
                self.offset_seconds * 10**9 + tick * 10**9 // self.ticks_per_second
                for tick in ticks.tolist()
            ]
            return np.array([ns if 0 <= ns < 2**32 * 10**9 else -1 for ns in exact], "i8")
        per_second = np.uint64(self.ticks_per_second)
        seconds = ticks // per_second
        ns = (ticks % per_second) * np.uint64(10**9) // per_second
        # Seconds beyond 2^34 could not come back into range by an offset that is believable.
        whole = np.minimum(seconds, np.uint64(2**34)).astype("i8") + self.offset_seconds
        is_good = (whole >= 0) & (whole < 2**32) & (seconds < 2**34)
        return np.where(is_good, whole * 10**9 + ns.astype("i8"), -1)


@dataclass
class _Section:
    order: str = "<"
    interfaces: list[Interface] = field(default_factory=list)
    last_ns: int = 0

    @property
    def is_big(self) -> bool:
        return self.order == ">"

    def numbers(self, data: memoryview, at: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self.order}{count}I", data, at)


class Walk:
    """One pass over a file of pcapng.

    Args:
        window: stands at the beginning of the file.
        problem: is called with offset and message where something cannot be used.
        max_frames: how many frames a batch has at most.
    """

    def __init__(
        self, window: Window, problem: Callable[[int, str], None], max_frames: int
    ) -> None:
        self._window = window
        self._problem = problem
        self._frames = np.empty(max_frames, FRAME)
        self._section = _Section()

    def batches(self) -> Iterator[Array]:
        """Yield arrays of frames, valid until the next is asked for."""
        window = self._window
        while True:
            section = self._section
            count, window.at, stop = core.walk_pcapng(
                window.data, window.at, section.is_big, len(section.interfaces), self._frames
            )
            if count:
                yield self._timed(self._frames[:count])
            if stop == WALK_FULL:
                continue
            kind, length = self._next_block()
            if not length:
                return
            if kind == _PACKET and stop:
                self._problem(window.offset(window.at), self._what_is_wrong(length))
                window.at += length
            elif kind in (_OLD_PACKET, _SIMPLE_PACKET):
                frame = self._other_packet(kind, length)
                # The packet's place in the buffer is still true: nothing was read since.
                window.at += length
                if frame is not None:
                    yield frame
            elif kind != _PACKET and not self._other_block(kind, length):
                return

    def _timed(self, frames: Array) -> Array:
        """Put times and link types in the place of ticks and interfaces."""
        interfaces = self._section.interfaces
        numbers = frames["interface"]
        used = {int(numbers[0])} if len(interfaces) == 1 else set(numbers.tolist())
        for number in used:
            of_it = numbers == number
            ticks = frames["ts_ns"][of_it].view("u8")
            frames["ts_ns"][of_it] = interfaces[number].unix_ns(ticks)
            frames["link"][of_it] = interfaces[number].link
        self._section.last_ns = int(frames["ts_ns"][-1])
        return frames

    def _next_block(self) -> tuple[int, int]:
        """Bring the next block into the buffer; return its type and length, 0 at the end."""
        window = self._window
        if window.left < 12 and not window.fill(12):
            if window.left:
                self._cut(12)
            return 0, 0
        data, at = window.data, window.at
        if bytes(data[at : at + 4]) == SECTION_MAGIC:
            self._section = _Section(
                "<" if bytes(data[at + 8 : at + 12]) == b"\x4d\x3c\x2b\x1a" else ">"
            )
        kind, length = self._section.numbers(data, at, 2)
        if length < 12 or length % 4 or (length > _MAX_BLOCK_BYTES and kind in _READ_BLOCKS):
            self._problem(
                window.offset(at),
                f"a block of type {kind} says that it is {length} bytes long. "
                "What follows is not read",
            )
            return 0, 0
        if length <= _MAX_BLOCK_BYTES and window.left < length and not window.fill(length):
            self._cut(length)
            return 0, 0
        return kind, length

    def _cut(self, wanted: int) -> None:
        window = self._window
        self._problem(
            window.offset(window.at),
            f"the file ends within a block, after {window.left} of {wanted} bytes",
        )

    def _what_is_wrong(self, length: int) -> str:
        """Return why the enhanced packet block at the window's place is not used."""
        window = self._window
        if length < 32:
            return f"an enhanced packet block is {length} bytes long; wanted at least 32. Left out"
        interface, _, _, captured = self._section.numbers(window.data, window.at + 8, 4)
        (again,) = self._section.numbers(window.data, window.at + length - 4, 1)
        if again != length:
            return f"a block has two lengths, {length} and {again}. Left out"
        if interface >= len(self._section.interfaces):
            return f"a packet of interface {interface}, which nothing describes. Left out"
        return (
            f"a packet block of {length} bytes says that {captured} bytes were captured. Left out"
        )

    def _other_packet(self, kind: int, length: int) -> Array | None:
        """Return the frame of a simple or an obsolete packet block, or say what is wrong."""
        window, section = self._window, self._section
        data, at = window.data, window.at
        offset = window.offset(at)
        least = 16 if kind == _SIMPLE_PACKET else 32
        if length < least:
            self._problem(offset, f"a packet block is {length} bytes long. Left out")
            return None
        number = 0
        if kind == _OLD_PACKET:
            (number,) = struct.unpack_from(f"{section.order}H", data, at + 8)
        if number >= len(section.interfaces):
            self._problem(
                offset, f"a packet of interface {number}, which nothing describes. Left out"
            )
            return None
        interface = section.interfaces[number]
        frame = np.zeros(1, FRAME)
        if kind == _SIMPLE_PACKET:
            (original,) = section.numbers(data, at + 8, 1)
            limit = interface.captured_limit_bytes or original
            captured = min(original, limit, length - least)
            frame[0] = (section.last_ns, at + 12, captured, original, interface.link, 0, b"")
        else:
            high, low, captured, original = section.numbers(data, at + 12, 4)
            unix_ns = interface.unix_ns(np.array([high << 32 | low], "u8"))[0]
            frame[0] = (unix_ns, at + 28, captured, original, interface.link, number, b"")
            section.last_ns = int(unix_ns)
        if captured > min(length - least, MAX_CAPTURED_BYTES):
            self._problem(
                offset,
                f"a packet block of {length} bytes says that {captured} bytes were captured. "
                "Left out",
            )
            return None
        return frame

    def _other_block(self, kind: int, length: int) -> bool:
        """Use a block that holds no packet; false when the file cannot be read on."""
        window = self._window
        data, at = window.data, window.at
        if kind == _SECTION:
            magic, version = self._section.numbers(data, at + 8, 2) if length >= 28 else (0, 0)
            major = version >> 16 if self._section.is_big else version & 0xFFFF
            if magic != 0x1A2B3C4D or major != 1:
                self._problem(
                    window.offset(at),
                    "a section of unknown byte order or version; wanted version 1. "
                    "What follows is not read",
                )
                return False
        elif kind == _INTERFACE and length >= 20:
            self._section.interfaces.append(self._interface(bytes(data[at : at + length])))
        offset = window.offset(at)
        if not window.skip(length):
            self._problem(offset, f"the file ends within a block of {length} bytes")
            return False
        return True

    def _interface(self, block: bytes) -> Interface:
        order = self._section.order
        link, _, limit = struct.unpack_from(f"{order}HHI", block, 8)
        per_second, offset = 10**6, 0
        at = 16
        while at + 4 <= len(block) - 4:
            code, length = struct.unpack_from(f"{order}HH", block, at)
            value = block[at + 4 : min(at + 4 + length, len(block) - 4)]
            if code == 0:
                break
            if code == _OPTION_RESOLUTION and len(value) == 1:
                base = 2 if value[0] & 0x80 else 10
                per_second = base ** (value[0] & 0x7F)
            elif code == _OPTION_OFFSET and len(value) == 8:
                (offset,) = struct.unpack(f"{order}q", value)
            at += 4 + (length + 3) // 4 * 4
        return Interface(link, limit, per_second, offset)
