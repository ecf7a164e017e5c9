"""The functions of the native core without a compiler: the same answers, slower.

Where no C extension could be built, the recorder runs on these; everywhere they are what the
extension is tested against. Arguments are those of ``_native.pyi``, except that a table is a
dictionary from identities to rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

from perfmeasure.recorder import records as r
from perfmeasure.recorder.plaindecode import decode
from perfmeasure.recorder.records import Array, Data

__all__ = [
    "account", "decode", "follow", "headers", "index_packets", "make_table", "pack", "sort",
    "walk_pcap", "walk_pcapng", "walk_ring",
]  # fmt: skip

Table = dict[bytes, int]
_OUT_OF_RANGE = "a number in a buffer is out of range"
_RING_BLOCK_BYTES, _RING_ADDRESS_BYTES, _TAG_BYTES = 48, 20, 4
_RING_FRAME = struct.Struct("=6IH6xIH10x")
_TAG_VALID, _TAG_TYPE_VALID = 1 << 4, 1 << 6
_SYN, _RST, _FIN, _ACK = 2, 4, 1, 16


def _view(data: Data) -> memoryview:
    view: memoryview = memoryview(data)  # type: ignore[arg-type] # numpy's types hide the buffer
    return view


def walk_pcap(
    data: Data, at: int, is_big: bool, unit_ns: int, link: int, frames: Array
) -> tuple[int, int, int]:
    """Find records of pcap from ``at`` on; return their number, where they end, why it stopped."""
    header = struct.Struct(">IIII" if is_big else "<IIII")
    view = _view(data)
    size = len(view)
    count = 0
    while True:
        if size - at < header.size:
            return count, at, r.WALK_MORE
        seconds, units, captured, original = header.unpack_from(view, at)
        if captured > r.MAX_CAPTURED_BYTES:
            return count, at, r.WALK_OTHER
        if size - at - header.size < captured:
            return count, at, r.WALK_MORE
        if count == len(frames):
            return count, at, r.WALK_FULL
        ts_ns = seconds * 10**9 + units * unit_ns
        frames[count] = (ts_ns, at + header.size, captured, original, link, 0, b"")
        at += header.size + captured
        count += 1


def walk_pcapng(
    data: Data, at: int, is_big: bool, interfaces: int, frames: Array
) -> tuple[int, int, int]:
    """Find a run of enhanced packet blocks from ``at`` on, as `walk_pcap` does."""
    block = struct.Struct(">7I" if is_big else "<7I")
    last = struct.Struct(">I" if is_big else "<I")
    view = _view(data)
    size = len(view)
    count = 0
    while True:
        if size - at < 12:
            return count, at, r.WALK_MORE
        kind, length = struct.unpack_from(">II" if is_big else "<II", view, at)
        if kind != 6 or length < 32 or length % 4 or length > 16 << 20:
            return count, at, r.WALK_OTHER
        if size - at < length:
            return count, at, r.WALK_MORE
        _, _, interface, high, low, captured, original = block.unpack_from(view, at)
        if (
            interface >= min(interfaces, 1 << 16)
            or captured > min(length - 32, r.MAX_CAPTURED_BYTES)
            or last.unpack_from(view, at + length - 4)[0] != length
        ):
            return count, at, r.WALK_OTHER
        if count == len(frames):
            return count, at, r.WALK_FULL
        ticks = (high << 32 | low) - (high >> 31 << 64)
        frames[count] = (ticks, at + 28, captured, original, 0, interface, b"")
        at += length
        count += 1


def walk_ring(block: Array, link: int, frames: Array) -> int:
    """Find the frames of a block of a ring; put VLAN tags back that the card took out.

    Raises:
        ValueError: it is no such block, or has more frames than there is room for.
    """
    if len(block) < _RING_BLOCK_BYTES:
        raise ValueError(_OUT_OF_RANGE)
    view = memoryview(block)  # type: ignore[arg-type]
    count, place = struct.unpack_from("=II", view, 12)
    if count > len(frames):
        raise ValueError(_OUT_OF_RANGE)
    for i in range(count):
        if place + _RING_FRAME.size > len(block):
            raise ValueError(_OUT_OF_RANGE)
        following, seconds, nanoseconds, captured, original, status, mac, tci, tag_type = (
            _RING_FRAME.unpack_from(view, place)
        )
        at = place + mac
        if at + captured > len(block):
            raise ValueError(_OUT_OF_RANGE)
        has_room = mac >= _RING_FRAME.size + _RING_ADDRESS_BYTES + _TAG_BYTES
        if status & _TAG_VALID and link == r.LINK_ETHERNET and captured >= 12 and has_room:
            at -= _TAG_BYTES
            captured += _TAG_BYTES
            original += _TAG_BYTES
            block[at : at + 12] = block[at + _TAG_BYTES : at + _TAG_BYTES + 12].copy()
            tag_type = tag_type if status & _TAG_TYPE_VALID else 0x8100
            struct.pack_into(">HH", view, at + 12, tag_type, tci & 0xFFFF)
        ts_ns = seconds * 10**9 + nanoseconds
        frames[i] = (ts_ns, at, min(captured, r.MAX_CAPTURED_BYTES), original, link, 0, b"")
        place += following
    return int(count)


def make_table(rows: Array, numbers: Iterable[int], room: int) -> Table:
    """Return a table of the rows with these numbers."""
    del room  # a dictionary grows
    return {rows["identity"][number].tobytes(): int(number) for number in numbers}


def _identities(packets: Array, count: int, length: int) -> list[bytes]:
    whole = packets[:count].tobytes()
    size = r.PACKET.itemsize
    return [whole[at : at + length] for at in range(0, count * size, size)]


def index_packets(
    packets: Array, frames: Array, count: int, table: Table, rows: Array, used: int, groups: Array
) -> tuple[int, int]:
    """Count packets into rows; return how many were done before ``rows`` was full, rows in use."""
    directions = packets["direction"].tolist()
    captured = frames["captured"].tolist()
    for i, identity in enumerate(_identities(packets, count, r.ROW_IDENTITY)):
        number = table.get(identity)
        if number is None:
            if used == len(rows):
                return i, used
            number = table[identity] = used
            rows[number] = np.zeros((), r.INDEX_ROW)
            rows["identity"][number] = identity
            used += 1
        rows["packets"][number, directions[i]] += 1
        rows["bytes"][number, directions[i]] += captured[i]
        groups[i] = 2 * number + directions[i]
    return count, used


def _is_late(row: Array, ts_ns: int, timeout_ns: int) -> bool:
    is_suspended = bool(row["state"] & r.TIMEOUT_SUSPENDED)
    return timeout_ns > 0 and not is_suspended and ts_ns - int(row["last_ns"]) > timeout_ns


def _is_closed(row: Array, flags: int, ends_by_flags: bool) -> bool:
    state = int(row["state"])
    is_closed = state & r.RST or state & (r.FIN_A | r.FIN_B) == r.FIN_A | r.FIN_B
    return bool(ends_by_flags and is_closed and flags & (_SYN | _ACK) == _SYN)


def follow(
    packets: Array, frames: Array, count: int, table: Table, rows: Array, used: int,
    timeout_ns: int, ends_by_flags: bool, cutoff: int, slots: Array,
) -> tuple[int, int]:  # fmt: skip
    """Find or begin the connection of each packet; return as `index_packets` does."""
    for i, identity in enumerate(_identities(packets, count, r.CONNECTION_IDENTITY)):
        packet = packets[i]
        if packet["kind"]:
            slots[i] = r.NO_SLOT
            continue
        ts_ns, flags = int(frames["ts_ns"][i]), int(packet["tcp_flags"])
        direction = int(packet["direction"])
        number = table.get(identity)
        is_late = number is not None and _is_late(rows[number], ts_ns, timeout_ns)
        if is_late and rows["state"][number] & r.IN_KERNEL:
            slots[i] = number
            return i, used
        if number is None or is_late or _is_closed(rows[number], flags, ends_by_flags):
            if used == len(rows):
                return i, used
            state = r.FROM_B if direction else 0
            if number is not None:
                state |= int(rows["state"][number]) & r.IN_KERNEL
                rows["state"][number] = rows["state"][number] & ~np.uint8(r.IN_KERNEL) | r.ENDED
            number = table[identity] = used
            rows[number] = (
                np.void(identity), state, 0, packet["hash"], ts_ns, ts_ns, 0, cutoff, 0, 0,
            )  # fmt: skip
            used += 1
        rows["last_ns"][number] = max(rows["last_ns"][number], ts_ns)
        if flags & _FIN:
            rows["state"][number] |= r.FIN_B if direction else r.FIN_A
        if flags & _RST:
            rows["state"][number] |= r.RST
        slots[i] = number
    return count, used


def account(frames: Array, slots: Array, count: int, rows: Array, used: int, keep: Array) -> None:
    """Count packets into their connections, and decide by the cutoff whether each is kept.

    Raises:
        ValueError: a slot is not in use.
    """
    for i, slot in enumerate(slots[:count].tolist()):
        keep[i] = 1
        if slot == r.NO_SLOT:
            continue
        if slot >= used:
            raise ValueError(_OUT_OF_RANGE)
        row = rows[slot]
        keep[i] = row["bytes"] < row["cutoff"] or bool(row["state"] & r.CUTOFF_SUSPENDED)
        rows["bytes"][slot] += frames["original"][i]
        rows["packets"][slot] += 1


def pack(data: Data, frames: Array, count: int, base: int, out: Data, places: Array) -> int:
    """Write the frames as records of nanosecond pcap; return the bytes written.

    Raises:
        ValueError: a frame is not within the buffer, ``out`` is too short, or a place needs more
            than 32 bits.
    """
    source, target = _view(data), _view(out)
    written = 0
    fields = frames[["ts_ns", "at", "captured", "original"]][:count].tolist()
    for i, (ts_ns, at, captured, original) in enumerate(fields):
        size = r.PCAP_RECORD_BYTES + captured
        if at + captured > len(source) or written + size > len(target) or base + written >= 2**32:
            raise ValueError(_OUT_OF_RANGE)
        places[i] = base + written
        seconds, nanoseconds = divmod(ts_ns, 10**9)
        struct.pack_into("<IIII", target, written, seconds, nanoseconds, captured, original)
        begin = written + r.PCAP_RECORD_BYTES
        target[begin : written + size] = source[at : at + captured]
        written += size
    return written


def headers(data: Data, places: Array, count: int, link: int, frames: Array) -> int:
    """Read the record headers at ``places``; return how many are whole before one is not."""
    view = _view(data)
    for i, place in enumerate(places[:count].tolist()):
        if place + r.PCAP_RECORD_BYTES > len(view):
            return i
        seconds, nanoseconds, captured, original = struct.unpack_from("<IIII", view, place)
        at = place + r.PCAP_RECORD_BYTES
        if captured > r.MAX_CAPTURED_BYTES or at + captured > len(view):
            return i
        ts_ns = seconds * 10**9 + nanoseconds
        frames[i] = (ts_ns, at, captured, original, link, 0, b"")
    return count


def sort(
    groups: Array, places: Array, count: int, rank: Array, group_count: int, starts: Array,
    sorted_places: Array,
) -> None:  # fmt: skip
    """Sort places by the rank of their group; ``starts`` ends up where each rank's places end.

    Raises:
        ValueError: a group is not among the first ``group_count``.
    """
    if count and groups[:count].max() >= group_count:
        raise ValueError(_OUT_OF_RANGE)
    ranks = rank[groups[:count]]
    sorted_places[:count] = places[:count][np.argsort(ranks, kind="stable")]
    starts += np.bincount(ranks, minlength=len(starts)).astype("u4")
