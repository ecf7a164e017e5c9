"""The recorder's inner loops: the C extension where it could be built, else numpy.

`IS_NATIVE` says which is in use. The environment variable `PLAIN_VARIABLE` asks for numpy.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

import numpy as np

from perfmeasure.recorder import plain
from perfmeasure.recorder.records import FRAME, PACKET, PCAP_RECORD_BYTES, Array, Data

PLAIN_VARIABLE = "PERFMEASURE_PLAIN"

try:
    from perfmeasure.recorder import _native
except ImportError:
    IS_NATIVE = False
else:
    IS_NATIVE = not os.environ.get(PLAIN_VARIABLE)

SEED = secrets.randbits(64)
"""Keys the hashes, so that nobody can choose addresses that fall into one place of a table."""

_functions: Any = _native if IS_NATIVE else plain
walk_pcap = _functions.walk_pcap
walk_pcapng = _functions.walk_pcapng
index_packets = _functions.index_packets
follow = _functions.follow
account = _functions.account
sort = _functions.sort


def walk_ring(block: Array, link: int) -> Array:
    """Return the frames of a block of an AF_PACKET ring (uint8, writable), dtype `FRAME`.

    A VLAN tag that the card took out of a frame is put back, in the block.

    Raises:
        ValueError: it is no such block.
    """
    frames = np.empty(int(block[12:16].view("u4")[0]), FRAME)
    _functions.walk_ring(block, link, frames)
    return frames


def decode(data: Data, frames: Array) -> Array:
    """Return what was decoded of each frame of the buffer, dtype `PACKET`.

    Raises:
        ValueError: a frame is not within the buffer.
    """
    packets = np.empty(len(frames), PACKET)
    _functions.decode(data, np.ascontiguousarray(frames), len(frames), SEED, packets)
    return packets


def pack(data: Data, frames: Array, base: int) -> tuple[bytearray, Array]:
    """Return the frames as records of nanosecond pcap, and where each begins, uint32.

    Args:
        data: the buffer.
        frames: where they are in it.
        base: where the first record begins.

    Raises:
        ValueError: a frame is not within the buffer, or a place needs more than 32 bits.
    """
    size = int(frames["captured"].sum(dtype="u8")) + PCAP_RECORD_BYTES * len(frames)
    out = bytearray(size)
    places = np.empty(len(frames), "u4")
    _functions.pack(data, np.ascontiguousarray(frames), len(frames), base, out, places)
    return out, places


def headers(data: Data, places: Array, link: int) -> Array:
    """Return the frames whose records of nanosecond pcap begin at ``places`` (uint32).

    Fewer than ``places`` means that the next one is not a record that is whole.
    """
    frames = np.empty(len(places), FRAME)
    count = _functions.headers(data, np.ascontiguousarray(places), len(places), link, frames)
    return frames[:count]


def make_table(rows: Array, numbers: Array, room: int) -> Any:
    """Return a table, for up to ``room`` rows, that finds the rows with these numbers."""
    if not IS_NATIVE:
        return plain.make_table(rows, numbers.tolist(), room)
    table = np.zeros(1 << (2 * room).bit_length(), "u8")
    hashes = np.ascontiguousarray(rows["hash"][numbers])
    _native.fill(table, hashes, np.ascontiguousarray(numbers, "u4"), len(numbers))
    return table
