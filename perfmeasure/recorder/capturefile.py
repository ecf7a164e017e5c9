"""Capture files as batches of frames: pcap of either byte order and resolution, and pcapng.

A damaged or cut file gives every frame before the damage; ``problems`` says what is wrong, with the
offset in the file. Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perfmeasure.errors import InputError
from perfmeasure.recorder import core, pcapng
from perfmeasure.recorder.records import (
    FRAME,
    MAX_CAPTURED_BYTES,
    PCAP_HEADER_BYTES,
    PCAP_RECORD_BYTES,
    WALK_MORE,
    WALK_OTHER,
    Array,
)
from perfmeasure.recorder.window import Window

_MAX_FRAMES = 8192
_MAX_PROBLEMS = 20
_MAX_UNIX_NS = 2**32 * 10**9
"""What the seconds of a record of pcap can hold: until 2106."""

# The magic number as it is in the file: is it big-endian, nanoseconds of a unit.
_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (True, 1000),
    b"\xd4\xc3\xb2\xa1": (False, 1000),
    b"\xa1\xb2\x3c\x4d": (True, 1),
    b"\x4d\x3c\xb2\xa1": (False, 1),
}


class Batch(NamedTuple):
    """Frames that stand in one buffer, valid until the next batch is asked for."""

    data: memoryview
    frames: Array
    """dtype `perfmeasure.recorder.records.FRAME`."""


class CaptureFile:
    """One capture file.

    Attributes:
        problems: a message for each of the first places that could not be used, filled while
            batches are read.
        problem_count: how many such places there are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.problem_count = 0

    def _problem(self, offset: int, message: str) -> None:
        self.problem_count += 1
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(f"{self.path}: offset {offset}: {message}")

    def batches(self) -> Iterator[Batch]:
        """Yield all frames in the order of the file.

        Raises:
            InputError: the file cannot be read, or is no capture file.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                yield from self._walk(Window(file))
        except OSError as error:
            raise InputError(
                str(self.path), f"cannot be read ({error.strerror})", "a capture file"
            ) from error

    def _walk(self, window: Window) -> Iterator[Batch]:
        window.fill(PCAP_HEADER_BYTES)
        magic = bytes(window.data[:4])
        if magic == pcapng.SECTION_MAGIC:
            walk = pcapng.Walk(window, self._problem, _MAX_FRAMES)
            batches: Iterator[Array] = walk.batches()
        elif magic not in _MAGICS or window.left < PCAP_HEADER_BYTES:
            said = f"begins with {magic.hex(' ')}" if magic else "is empty"
            raise InputError(
                str(self.path),
                f"{said}, {window.left} bytes or more",
                "a capture file: pcap or pcapng",
                "convert it with tshark -r FILE -w NEW",
            )
        else:
            batches = self._pcap(window, *_MAGICS[magic])
        for frames in batches:
            is_good = (frames["ts_ns"] >= 0) & (frames["ts_ns"] < _MAX_UNIX_NS)
            if not is_good.all():
                first = frames["at"][~is_good][0]
                self._problem(
                    window.offset(int(first)),
                    "the frame's time is not between 1970 and 2106; "
                    f"{(~is_good).sum()} frames left out",
                )
            yield Batch(window.data, frames if is_good.all() else frames[is_good])

    def _pcap(self, window: Window, is_big: bool, unit_ns: int) -> Iterator[Array]:
        order = ">" if is_big else "<"
        (link,) = struct.unpack_from(f"{order}I", window.data, 20)
        window.at = PCAP_HEADER_BYTES
        frames = np.empty(_MAX_FRAMES, FRAME)
        while True:
            count, window.at, stop = core.walk_pcap(
                window.data, window.at, is_big, unit_ns, link & 0xFFFF, frames
            )
            if count:
                yield frames[:count]
            if stop == WALK_OTHER:
                (captured,) = struct.unpack_from(f"{order}I", window.data, window.at + 8)
                self._problem(
                    window.offset(window.at),
                    f"the record says that {captured} bytes were captured; wanted at most "
                    f"{MAX_CAPTURED_BYTES}. What follows is not read",
                )
                return
            if stop == WALK_MORE and not self._fill_pcap(window, order):
                return

    def _fill_pcap(self, window: Window, order: str) -> bool:
        """Bring the next record into the buffer; false at the end of the file."""
        if window.fill(PCAP_RECORD_BYTES):
            (captured,) = struct.unpack_from(f"{order}I", window.data, window.at + 8)
            wanted = PCAP_RECORD_BYTES + min(captured, MAX_CAPTURED_BYTES)
            if window.left >= wanted or window.fill(wanted):
                return True
        else:
            wanted = PCAP_RECORD_BYTES
        if window.left:
            self._problem(
                window.offset(window.at),
                f"the file ends within a record, after {window.left} of {wanted} bytes",
            )
        return False
