"""Frames decoded with numpy alone: what ``core_decode`` of ``core.h`` does, for all frames at once.

It follows ``link.h`` and ``bpf/packet.h`` step by step. Every step looks at the frames that have
come that far; whatever drops out gets its verdict there.
"""

from __future__ import annotations

import numpy as np

from perfmeasure.recorder import records as r
from perfmeasure.recorder.records import Array, Data

_PENDING = 255
_IPV4, _IPV6 = 0x0800, 0x86DD
_TAGS = (0x8100, 0x88A8, 0x9100)
_MAX_TAGS, _MAX_LABELS, _MAX_EXTENSIONS = 8, 16, 8
_EXTENSIONS = (0, 43, 44, 51, 60)
_FRAGMENT, _AH = 44, 51
_TCP, _UDP, _SCTP = 6, 17, 132
_UNKNOWN_LENGTH = 0x7FFFFFFF
_LINK_BYTES = {r.LINK_ETHERNET: (14, 12), r.LINK_COOKED: (16, 14), r.LINK_COOKED2: (20, 0)}


class _Frames:
    """The state of all frames on their way through the headers."""

    def __init__(self, data: Array, frames: Array) -> None:
        count = len(frames)
        self.at = frames["at"].astype("i8")
        self.end = self.at + frames["captured"]
        if count:  # of a large file, only what the frames are in
            first, last = int(self.at.min()), int(self.end.max())
            data = data[first:last]
            self.at -= first
            self.end -= first
        # Room behind the last frame, so that a read that will be refused stays inside.
        self.data = np.concatenate([data, np.zeros(64, "u1")])
        self.type = np.zeros(count, "i8")
        self.verdict = np.full(count, _PENDING, "u1")
        self.vlan = np.zeros((count, 2), "u2")
        self.ips = np.zeros((2, count, 16), "u1")
        self.ports = np.zeros((2, count), "u2")
        self.protocol = np.zeros(count, "u1")
        self.flags = np.zeros(count, "u1")
        self.left = np.zeros(count, "i8")
        self.is_later_fragment = np.zeros(count, bool)

    def pending(self, condition: Array) -> Array:
        """Return the numbers of the frames under way for which the condition holds."""
        return np.flatnonzero((self.verdict == _PENDING) & condition)

    def u8(self, lanes: Array, offset: int) -> Array:
        found: Array = self.data[self.at[lanes] + offset].astype("i8")
        return found

    def u16(self, lanes: Array, offset: int) -> Array:
        return self.u8(lanes, offset) << 8 | self.u8(lanes, offset + 1)

    def need(self, lanes: Array, length: int | Array) -> Array:
        """Return the lanes that have the bytes; the others are cut."""
        is_short = self.at[lanes] + length > self.end[lanes]
        self.verdict[lanes[is_short]] = r.CUT
        kept: Array = lanes[~is_short]
        return kept

    def version_type(self, lanes: Array) -> None:
        is_there = self.at[lanes] < self.end[lanes]
        version = np.where(is_there, self.u8(lanes, 0) >> 4, 0)
        self.type[lanes] = np.where(version == 4, _IPV4, np.where(version == 6, _IPV6, 0))


def _links(state: _Frames, links: Array) -> None:
    known = np.zeros(len(links), bool)
    for link, (length, type_at) in _LINK_BYTES.items():
        known |= links == link
        lanes = state.need(state.pending(links == link), length)
        state.type[lanes] = state.u16(lanes, type_at)
        state.at[lanes] += length
    is_raw = np.isin(links, r.LINKS_RAW)
    state.version_type(state.need(state.pending(is_raw), 1))
    state.type[links == r.LINK_IPV4] = _IPV4
    state.type[links == r.LINK_IPV6] = _IPV6
    is_family = np.isin(links, (r.LINK_NULL, r.LINK_LOOP))
    lanes = state.need(state.pending(is_family), 4)
    big = state.u16(lanes, 0) << 16 | state.u16(lanes, 2)
    little = np.frombuffer(big.astype(">u4").tobytes(), "<u4").astype("i8")
    family = np.minimum(big, little)
    is_6 = np.isin(family, (24, 28, 30))
    state.type[lanes] = np.where(family == 2, _IPV4, np.where(is_6, _IPV6, 0))
    state.at[lanes] += 4
    known |= is_raw | is_family | np.isin(links, (r.LINK_IPV4, r.LINK_IPV6))
    state.verdict[~known] = r.UNKNOWN_LINK


def _tags_and_labels(state: _Frames) -> None:
    for tag in range(_MAX_TAGS + 1):
        lanes = state.pending(np.isin(state.type, _TAGS))
        if tag == _MAX_TAGS:
            state.verdict[lanes] = r.TAGS
            break
        lanes = state.need(lanes, 4)
        if tag < 2:
            state.vlan[lanes, tag] = (state.u16(lanes, 0) & 0xFFF) + 1
        state.type[lanes] = state.u16(lanes, 2)
        state.at[lanes] += 4
    in_stack = np.isin(state.type, (0x8847, 0x8848))
    has_labels = in_stack.copy()
    for label in range(_MAX_LABELS + 1):
        lanes = state.pending(in_stack)
        if label == _MAX_LABELS:
            state.verdict[lanes] = r.NOT_IP
            break
        lanes = state.need(lanes, 4)
        in_stack[lanes] = (state.u8(lanes, 2) & 1) == 0
        state.at[lanes] += 4
    is_session = state.type == 0x8864
    state.version_type(state.pending(has_labels))
    lanes = state.need(state.pending(is_session), 8)
    ppp = state.u16(lanes, 6)
    state.type[lanes] = np.where(ppp == 0x21, _IPV4, np.where(ppp == 0x57, _IPV6, 0))
    state.at[lanes] += 8


def _ipv4(state: _Frames) -> None:
    lanes = state.need(state.pending(state.type == _IPV4), 20)
    length = (state.u8(lanes, 0) & 15) * 4
    total = state.u16(lanes, 2)
    is_bad = (state.u8(lanes, 0) >> 4 != 4) | (length < 20) | ((total > 0) & (total < length))
    state.verdict[lanes[is_bad]] = r.MALFORMED
    lanes, length, total = lanes[~is_bad], length[~is_bad], total[~is_bad]
    state.left[lanes] = np.where(total > 0, total - length, _UNKNOWN_LENGTH)
    state.is_later_fragment[lanes] = (state.u16(lanes, 6) & 0x1FFF) > 0
    state.protocol[lanes] = state.u8(lanes, 9)
    state.ips[:, lanes, 10:12] = 0xFF
    for byte in range(4):
        state.ips[0, lanes, 12 + byte] = state.u8(lanes, 12 + byte)
        state.ips[1, lanes, 12 + byte] = state.u8(lanes, 16 + byte)
    is_whole = state.at[lanes] + length <= state.end[lanes]
    state.need(lanes, length)
    state.at[lanes[is_whole]] += length[is_whole]


def _ipv6(state: _Frames) -> None:
    is_ipv6 = state.type == _IPV6
    lanes = state.need(state.pending(is_ipv6), 40)
    is_bad = state.u8(lanes, 0) >> 4 != 6
    state.verdict[lanes[is_bad]] = r.MALFORMED
    lanes = lanes[~is_bad]
    left = state.u16(lanes, 4)
    state.left[lanes] = np.where(left > 0, left, _UNKNOWN_LENGTH)
    following = np.zeros(len(state.at), "i8")
    following[lanes] = state.u8(lanes, 6)
    state.protocol[lanes] = following[lanes]
    for byte in range(16):
        state.ips[0, lanes, byte] = state.u8(lanes, 8 + byte)
        state.ips[1, lanes, byte] = state.u8(lanes, 24 + byte)
    state.at[lanes] += 40
    for _ in range(_MAX_EXTENSIONS):
        goes_on = is_ipv6 & np.isin(following, _EXTENSIONS) & ~state.is_later_fragment
        lanes = state.need(state.pending(goes_on), 8)
        is_ah, is_fragment = following[lanes] == _AH, following[lanes] == _FRAGMENT
        words = state.u8(lanes, 1) + 1
        length = np.where(is_fragment, 8, np.where(is_ah, (words + 1) * 4, words * 8))
        state.is_later_fragment[lanes] = is_fragment & ((state.u16(lanes, 2) & 0xFFF8) > 0)
        is_short = state.left[lanes] < length
        state.verdict[lanes[is_short]] = r.CUT
        lanes, length = lanes[~is_short], length[~is_short]
        following[lanes] = state.u8(lanes, 0)
        state.left[lanes] -= length
        # A header that ends beyond the frame is found by the next look at the place.
        state.at[lanes] += length
    lanes = state.pending(is_ipv6)
    lanes = state.need(lanes, 0)
    is_more = np.isin(following[lanes], _EXTENSIONS) & ~state.is_later_fragment[lanes]
    state.verdict[lanes[is_more]] = r.EXTENSIONS
    lanes = lanes[~is_more]
    state.protocol[lanes] = following[lanes]


def _transport(state: _Frames) -> None:
    needed = {_TCP: 16, _UDP: 4, _SCTP: 12}
    has_ports = np.isin(state.protocol, list(needed)) & ~state.is_later_fragment
    state.verdict[state.pending(~has_ports)] = r.PARSED
    lanes = state.pending(has_ports)
    state.verdict[lanes[state.left[lanes] < 4]] = r.CUT
    lanes = state.need(lanes[state.left[lanes] >= 4], 4)
    state.ports[0, lanes] = state.u16(lanes, 0)
    state.ports[1, lanes] = state.u16(lanes, 2)
    for protocol, length in needed.items():
        of_it = lanes[state.protocol[lanes] == protocol]
        state.verdict[of_it[state.left[of_it] < length]] = r.CUT
        of_it = state.need(of_it[state.left[of_it] >= length], length)
        if protocol == _TCP:
            state.flags[of_it] = state.u8(of_it, 13)
        state.verdict[of_it] = r.PARSED


def _turned(state: _Frames) -> Array:
    """Return which packets go from the higher end to the lower one."""
    halves = np.ascontiguousarray(state.ips).view(">u8").astype("u8")
    ends = [halves[:, :, 0], halves[:, :, 1], state.ports.astype("u8")]
    is_turned = np.zeros(len(state.at), bool)
    is_equal = np.ones(len(state.at), bool)
    for source, target in ends:
        is_turned |= is_equal & (source > target)
        is_equal &= source == target
    return is_turned


def hashes(packets: Array, seed: int) -> Array:
    """Return ``core_hash`` of each packet, uint64."""
    words = (
        np.ascontiguousarray(packets).view("u1").reshape(len(packets), r.PACKET.itemsize)[:, :32]
    )
    ports = packets["a_port"].astype("u8") << np.uint64(32)
    ports |= packets["b_port"].astype("u8") << np.uint64(16)
    ports |= packets["protocol"].astype("u8") << np.uint64(8)
    ports |= packets["kind"]
    found = np.full(len(packets), seed, "u8")
    for word in [*np.ascontiguousarray(words).view("u8").T, ports]:
        found = (found ^ word) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(32)
    return found


def decode(data: Data, frames: Array, count: int, seed: int, packets: Array) -> None:
    """Fill in ``packets`` from the frames of the buffer.

    Raises:
        ValueError: a frame is not within the buffer.
    """
    frames, packets = frames[:count], packets[:count]
    octets = np.frombuffer(data, "u1")
    ends = frames["at"] + frames["captured"]
    if count and (ends.max() > len(octets) or frames["at"].max() > len(octets)):
        raise ValueError("a number in a buffer is out of range")
    state = _Frames(octets, frames)
    _links(state, frames["link"])
    _tags_and_labels(state)
    _ipv4(state)
    _ipv6(state)
    state.verdict[state.pending((state.type != _IPV4) & (state.type != _IPV6))] = r.NOT_IP
    _transport(state)
    packets.view("u1")[:] = 0
    turned = _turned(state)
    sides = turned.astype("i8")
    rows = np.arange(count)
    for name, side in (("a", sides), ("b", 1 - sides)):
        packets[f"{name}_ip"] = np.ascontiguousarray(state.ips[side, rows]).view("V16").ravel()
        packets[f"{name}_port"] = state.ports[side, rows]
    packets["protocol"] = state.protocol
    is_empty = ~(state.ips.any(axis=(0, 2)) | state.ports.any(axis=0) | (state.protocol > 0))
    packets["kind"] = np.where((state.verdict != r.PARSED) & is_empty, state.verdict, 0)
    packets["vlan"] = state.vlan
    packets["direction"] = turned
    packets["tcp_flags"] = state.flags
    packets["verdict"] = state.verdict
    packets["hash"] = hashes(packets, seed)
