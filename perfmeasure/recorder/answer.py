"""Answers to files: nanosecond pcap, or pcapng with a comment for each packet that has one.

Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from perfmeasure.errors import PerfmeasureError, UsageError
from perfmeasure.recorder import core
from perfmeasure.recorder.records import MAX_CAPTURED_BYTES, Array
from perfmeasure.recorder.segment import Segment, header
from perfmeasure.recorder.store import Chunk

Comment = Callable[[Segment, Array], str]
"""Returns the comment of a packet, given its segment and frame; nothing for none."""

_BLOCK = struct.Struct("<II")
_PACKET = struct.Struct("<IIIII")
_NS_RESOLUTION = struct.pack("<HHB3x", 9, 1, 9)
_END_OF_OPTIONS = bytes(4)


def write_answer(chunks: Iterable[Chunk], path: Path, comment: Comment | None = None) -> None:
    """Write packets in the order in which they come; the file is there when it is whole.

    Args:
        chunks: the answer.
        path: pcapng where it ends in ``.pcapng``, else pcap.
        comment: of each packet, for pcapng.

    Raises:
        PerfmeasureError: the file cannot be written.
        UsageError: packets of more than one link type, which pcap cannot hold.
    """
    temporary = path.with_name(f"{path.name}.part")
    write = write_pcapng if path.suffix == ".pcapng" else write_pcap
    try:
        with temporary.open("wb", buffering=1 << 20) as out:
            write(chunks, out, comment)
        temporary.replace(path)
    except OSError as error:
        raise PerfmeasureError(str(path), f"cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_pcap(chunks: Iterable[Chunk], out: BinaryIO, comment: Comment | None = None) -> None:
    """Write nanosecond pcap; comments have no place in it.

    Raises:
        UsageError: packets of more than one link type.
    """
    del comment
    link: int | None = None
    for chunk in chunks:
        if link is None:
            link = int(chunk.frames["link"][0])
            out.write(header(link))
        out.writelines(records(chunk, link))
    if link is None:
        out.write(header(1))


def records(chunk: Chunk, link: int) -> Iterator[bytearray]:
    """Yield packets as records of nanosecond pcap, for a file of this link type.

    Raises:
        UsageError: packets of another link type.
    """
    others = chunk.frames["link"][chunk.frames["link"] != link]
    if len(others):
        raise UsageError(
            "answer",
            f"packets of link types {link} and {others[0]}",
            "one link type in a file of pcap",
            "give a file name that ends in .pcapng",
        )
    for segment, frames in runs(chunk):
        yield core.pack(segment.data, frames, 0)[0]


def runs(chunk: Chunk) -> Iterable[tuple[Segment, Array]]:
    """Yield the chunk's frames in order, those of one segment that follow one another together."""
    begins = np.flatnonzero(np.diff(chunk.which, prepend=-1))
    for begin, end in zip(begins, [*begins[1:], len(chunk.which)], strict=True):
        # Places in a run have 32 bits.
        for at in range(begin, end, 4096):
            yield chunk.segments[chunk.which[begin]], chunk.frames[at : min(at + 4096, end)]


def write_pcapng(chunks: Iterable[Chunk], out: BinaryIO, comment: Comment | None = None) -> None:
    """Write pcapng: an interface for each link type, times in nanoseconds."""
    out.write(_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
    interfaces: dict[int, int] = {}
    for chunk in chunks:
        for segment, frame in chunk.records():
            link = segment.summary.link
            if link not in interfaces:
                interfaces[link] = len(interfaces)
                body = struct.pack("<HHI", link, 0, MAX_CAPTURED_BYTES)
                out.write(_block(1, body + _NS_RESOLUTION + _END_OF_OPTIONS))
            ts_ns, at, captured, original = frame[["ts_ns", "at", "captured", "original"]].item()
            body = _PACKET.pack(
                interfaces[link], ts_ns >> 32, ts_ns & 0xFFFFFFFF, captured, original
            )
            body += segment.data[at : at + captured] + bytes(-captured % 4)
            if comment is not None and (text := comment(segment, frame).encode()[:65535]):
                body += struct.pack("<HH", 1, len(text)) + text + bytes(-len(text) % 4)
                body += _END_OF_OPTIONS
            out.write(_block(6, body))


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return _BLOCK.pack(kind, length) + body + struct.pack("<I", length)
