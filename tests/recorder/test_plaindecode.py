"""Decoding by numpy and by the extension, on the same frames; link.h and packet.h in between."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.recorder import plaindecode
from perfmeasure.recorder.keys import address_text
from perfmeasure.recorder.records import (
    CUT,
    EXTENSIONS,
    FRAME,
    MALFORMED,
    NOT_IP,
    PACKET,
    PARSED,
    TAGS,
    UNKNOWN_LINK,
    Array,
)
from tests.recorder import made

_native = pytest.importorskip("perfmeasure.recorder._native", reason="no C extension was built")
LINKS = [0, 1, 12, 14, 101, 108, 113, 228, 229, 276, 147]
A, B, C, D = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"


def decode(frames_made: list[tuple[int, bytes]]) -> Array:
    """Decode frames (link, bytes) both ways, which must agree."""
    frames = np.zeros(len(frames_made), FRAME)
    sizes = [len(frame) for _, frame in frames_made]
    frames["captured"] = frames["original"] = sizes
    frames["at"] = np.cumsum(sizes) - sizes
    frames["link"] = [link for link, _ in frames_made]
    data = b"".join(frame for _, frame in frames_made)
    one, other = np.empty(len(frames), PACKET), np.empty(len(frames), PACKET)
    _native.decode(data, frames, len(frames), 7, one)
    plaindecode.decode(np.frombuffer(data, "u1"), frames, len(frames), 7, other)
    for number in range(len(frames)):
        assert one[number] == other[number], frames_made[number]
    assert one.tobytes() == other.tobytes()
    return one


def chain(*headers: tuple[int, int], last: int = 6) -> tuple[int, bytes]:
    """Return the first number and the bytes of IPv6 extension headers (number, length in units)."""
    kinds = [kind for kind, _ in headers] + [last]
    out = b""
    for number, (kind, units) in enumerate(headers):
        size = 8 if kind == 44 else (units + 2) * 4 if kind == 51 else (units + 1) * 8
        out += bytes([kinds[number + 1], 0 if kind == 44 else units]) + bytes(size - 2)
    return kinds[0], out


TCP_HEADER = made.tcp(A, 80, B, 1000)[20:]


@pytest.mark.parametrize(
    ("link", "frame", "verdict", "ports"),
    [
        (1, made.ethernet(made.tcp(A, 80, B, 1000)), PARSED, (80, 1000)),
        (1, made.ethernet(made.udp(C, 80, D, 1000), vlans=range(8)), PARSED, (80, 1000)),
        (1, made.ethernet(made.udp(C, 80, D, 1000), vlans=range(9)), TAGS, None),
        (1, made.ethernet(b"\0\0\x10\xff\0\0\x21\xff" + made.tcp(A, 80, B, 9), ether_type=0x8847),
         PARSED, (80, 9)),
        (1, made.ethernet(bytes(4 * 17) + made.tcp(A, 80, B, 9), ether_type=0x8847), NOT_IP, None),
        (1, made.ethernet(b"\x11\0\0\1\0\x40\0\x57" + made.tcp(C, 80, D, 9), ether_type=0x8864),
         PARSED, (80, 9)),
        (1, made.ARP, NOT_IP, None),
        (1, made.ethernet(made.ip(A, B, 17, bytes(40), fragment=9)), PARSED, (0, 0)),
        (1, made.ethernet(made.ip(A, B, 1, bytes(40))), PARSED, (0, 0)),
        (1, made.ethernet(made.ip(A, B, 6, TCP_HEADER, options=bytes(40))), PARSED, (80, 1000)),
        (1, made.ethernet(made.ip(C, D, *chain((0, 0), (43, 2), (44, 0), (51, 1), (60, 1)))
                          + TCP_HEADER), CUT, (0, 0)),
        (1, made.ethernet(made.ip(C, D, chain(*[(60, 0)] * 8)[0],
                                  chain(*[(60, 0)] * 8)[1] + TCP_HEADER)), PARSED, (80, 1000)),
        (1, made.ethernet(made.ip(C, D, chain(*[(60, 0)] * 9)[0],
                                  chain(*[(60, 0)] * 9)[1] + TCP_HEADER)), EXTENSIONS, (0, 0)),
        (1, made.ethernet(made.tcp(A, 80, B, 1000))[:40], CUT, (80, 1000)),
        (1, made.ethernet(made.tcp(A, 80, B, 1000))[:36], CUT, (0, 0)),
        (1, made.ethernet(made.tcp(A, 80, B, 1000))[:33], CUT, None),
        (1, made.ethernet(b"\x55" + made.tcp(A, 1, B, 2)[1:], ether_type=0x800), MALFORMED, None),
        (1, b"", CUT, None),
        (101, b"", CUT, None),
        (147, made.tcp(A, 80, B, 1000), UNKNOWN_LINK, None),
        *((link, made.framed(made.tcp(A, 80, B, 9), link), PARSED, (80, 9))
          for link in (0, 1, 101, 108, 113, 228, 276)),
        *((link, made.framed(made.tcp(C, 80, D, 9), link), PARSED, (80, 9))
          for link in (0, 1, 101, 108, 113, 229, 276)),
    ],
)  # fmt: skip
def test_what_a_frame_is(
    link: int, frame: bytes, verdict: int, ports: tuple[int, int] | None
) -> None:
    (packet,) = decode([(link, frame)])
    assert packet["verdict"] == verdict
    if ports is None:
        assert packet["kind"] == verdict
    else:
        assert packet["kind"] == 0
        assert (packet["a_port"], packet["b_port"]) == ports
        assert address_text(packet["a_ip"].tobytes()) in (A, C)


def test_both_directions_have_one_identity() -> None:
    packets = decode([(101, made.tcp(A, 80, B, 9)), (101, made.tcp(B, 9, A, 80)),
                      (101, made.tcp(A, 9, B, 80)), (101, made.tcp(A, 5, A, 4)),
                      (101, made.tcp(A, 4, A, 5)), (101, made.tcp(A, 4, A, 4))])  # fmt: skip
    identities = [packet.tobytes()[:42] for packet in packets]
    assert identities[0] == identities[1] != identities[2]
    assert identities[3] == identities[4]
    assert packets["direction"].tolist() == [0, 1, 0, 1, 0, 0]
    assert packets["hash"][0] == packets["hash"][1] != packets["hash"][2]


def test_vlan_numbers_are_kept() -> None:
    packet = made.tcp(A, 80, B, 9)
    frames = [(1, made.ethernet(packet, vlans=vlans)) for vlans in ((), (0,), (7, 9), (4095, 1, 2))]
    assert decode(frames)["vlan"].tolist() == [[0, 0], [1, 0], [8, 10], [4096, 2]]


@given(st.lists(st.tuples(st.sampled_from(LINKS), st.binary(max_size=90)), min_size=1, max_size=20))
def test_both_agree_on_any_bytes(frames: list[tuple[int, bytes]]) -> None:
    decode(frames)


def test_both_agree_on_mutated_and_cut_packets(is_long: bool) -> None:
    rng = random.Random(3)
    telling = [0, 1, 6, 17, 43, 44, 51, 60, 0x45, 0x60, 0x81, 0x88, 0x47, 0xFF]
    for _ in range(500 if is_long else 20):
        frames = []
        for packet in made.trace(rng.randrange(1000), 100, 30):
            frame = bytearray(packet.frame)
            for _ in range(rng.randrange(8)):
                place = rng.randrange(min(len(frame), 70))
                frame[place] = rng.choice([*telling, rng.randrange(256)])
            link = rng.choice([1, 1, 1, *LINKS])
            frames.append((link, bytes(frame[: rng.randrange(len(frame) + 1)])))
        decode(frames)
