from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest

from perfmeasure.recorder import core, plain
from perfmeasure.recorder.connections import Connections, Rules, connection_identity
from perfmeasure.recorder.keys import address_bytes
from perfmeasure.recorder.records import (
    CUTOFF_SUSPENDED,
    ENDED,
    FRAME,
    IN_KERNEL,
    NO_SLOT,
    TIMEOUT_SUSPENDED,
    Array,
)
from tests.recorder import made
from tests.recorder.made import ACK, FIN, RST, SYN, Timed

A, B = "10.0.0.1", "10.0.0.2"


def frames_of(packets: list[Timed]) -> tuple[bytes, Array, Array]:
    data = made.pcap(packets)
    frames = np.zeros(len(packets), FRAME)
    assert core.walk_pcap(data, 24, False, 1, 1, frames)[0] == len(packets)
    return data, frames, core.decode(data, frames)


def segments(*flags: int, gap_ns: int = 1, size: int = 100) -> list[Timed]:
    """Return packets of one connection, in turns from either end."""
    ends = [(A, 80, B, 1000), (B, 1000, A, 80)]
    return [
        Timed(made.START_NS + i * gap_ns, made.ethernet(made.tcp(*ends[i % 2], size, flag)))
        for i, flag in enumerate(flags)
    ]


def not_asked(slot: int) -> None:
    pytest.fail(f"the kernel has nothing to do with row {slot}")


class Followed(Connections):
    """Connections that all have one cutoff, as those of a class have."""

    def __init__(self, cutoff_bytes: int, rules: Rules, max_connections: int = 1 << 20) -> None:
        super().__init__(rules, not_asked, max_connections)
        self._cutoff_bytes = cutoff_bytes

    def follow(self, frames: Array, packets: Array) -> tuple[Array, int]:
        slots, first_new = super().follow(frames, packets)
        self.table["cutoff"][first_new:] = self._cutoff_bytes
        return slots, first_new


def kept(rules: Rules, packets: list[Timed]) -> list[bool]:
    """Return which packets are kept with a cutoff of 1 byte."""
    _, frames, decoded = frames_of(packets)
    connections = Followed(1, rules)
    slots, _ = connections.follow(frames, decoded)
    found: list[bool] = connections.account(frames, slots).tolist()
    return found


@pytest.mark.parametrize("cutoff", [0, 1, 153, 154, 155, 1000, 15_000])
@pytest.mark.parametrize("batch", [1, 7, 5000])
def test_a_packet_is_kept_while_the_bytes_before_it_are_below_the_cutoff(
    cutoff: int, batch: int
) -> None:
    packets = made.trace(1, 3000, 60)
    _, frames, decoded = frames_of(packets)
    connections = Followed(cutoff, Rules(timeout_seconds=0, ends_by_flags=False))
    before: dict[object, int] = defaultdict(int)
    for begin in range(0, 3000, batch):
        part = slice(begin, begin + batch)
        slots, _ = connections.follow(frames[part], decoded[part])
        keep = connections.account(frames[part], slots)
        for packet, is_kept in zip(packets[part], keep, strict=True):
            found = made.fields(packet.frame)
            ends = frozenset([(found.src, found.src_port), (found.dst, found.dst_port)])
            key = (ends, found.protocol)
            # What has no addresses is of no connection: it is kept.
            assert is_kept == (not found.src or before[key] < cutoff)
            before[key] += len(packet.frame)


def test_original_lengths_count_not_captured_ones() -> None:
    packets = segments(ACK, ACK, ACK, size=946)
    data = made.pcap(packets, snap=60)
    frames = np.zeros(3, FRAME)
    core.walk_pcap(data, 24, False, 1, 1, frames)
    connections = Followed(2000, Rules())
    slots, _ = connections.follow(frames, core.decode(data, frames))
    assert connections.account(frames, slots).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([SYN, ACK, RST, ACK, SYN, ACK], [1, 0, 0, 0, 1, 0]),
        ([SYN, ACK, RST, SYN | ACK, SYN], [1, 0, 0, 0, 1]),
        ([SYN, FIN | ACK, FIN | ACK, ACK, SYN], [1, 0, 0, 0, 1]),
        ([SYN, FIN | ACK, ACK, ACK, SYN], [1, 0, 0, 0, 0]),  # one direction alone is open still
        ([SYN, ACK, SYN, SYN, ACK], [1, 0, 0, 0, 0]),  # a SYN that came again begins nothing
    ],
)
def test_a_syn_after_the_end_begins_a_new_connection(flags: list[int], wanted: list[int]) -> None:
    packets = segments(*flags)
    assert kept(Rules(), packets) == [bool(is_kept) for is_kept in wanted]
    only_first = [True] + [False] * (len(flags) - 1)
    assert kept(Rules(ends_by_flags=False), packets) == only_first


def test_a_connection_ends_by_inactivity() -> None:
    packets = segments(ACK, ACK, ACK, gap_ns=10**9)
    assert kept(Rules(timeout_seconds=1.0), packets) == [True, False, False]
    assert kept(Rules(timeout_seconds=0.999), packets) == [True, True, True]
    assert kept(Rules(timeout_seconds=0), packets) == [True, False, False]


def test_cutoff_and_timeout_can_be_suspended_for_one_connection() -> None:
    _, frames, decoded = frames_of(segments(ACK, ACK, ACK, ACK, gap_ns=10**9))
    connections = Followed(1, Rules(timeout_seconds=0.5))
    slots, first = connections.follow(frames[:1], decoded[:1])
    assert first == 0
    assert connections.account(frames[:1], slots).tolist() == [True]
    ends = [(address_bytes(host) or b"", port) for host, port in ((B, 1000), (A, 80))]
    slot = connections.find(connection_identity(6, *ends))
    assert slot == slots[0]
    connections.table["state"][slot] |= TIMEOUT_SUSPENDED
    slots, first = connections.follow(frames[1:2], decoded[1:2])
    assert (slots[0], first) == (slot, 1)
    assert connections.account(frames[1:2], slots).tolist() == [False]
    connections.table["state"][slot] |= CUTOFF_SUSPENDED
    slots, _ = connections.follow(frames[2:3], decoded[2:3])
    assert connections.account(frames[2:3], slots).tolist() == [True]
    connections.table["state"][slot] &= ~np.uint8(TIMEOUT_SUSPENDED | CUTOFF_SUSPENDED)
    slots, first = connections.follow(frames[3:], decoded[3:])
    assert slots.tolist() == [first] == [1]
    assert connections.table["state"][slot] & ENDED
    assert connections.find(connection_identity(6, *ends)) == 1
    assert connections.find(connection_identity(17, *ends)) is None


def test_what_is_forgotten_is_what_was_idle_longest() -> None:
    rng = random.Random(1)
    connections = Followed(1000, Rules(timeout_seconds=0), max_connections=1000)
    for number in range(100):
        packets = [
            Timed(
                made.START_NS + number,
                made.ethernet(made.tcp(A, rng.randrange(1, 65536), B, rng.randrange(1, 65536))),
            )
            for _ in range(100)
        ]
        _, frames, decoded = frames_of(packets)
        if connections.is_full:
            connections.forget()
        slots, _ = connections.follow(frames, decoded)
        assert (slots != NO_SLOT).all()
        connections.account(frames, slots)
        assert len(connections.table) <= 1100
    assert connections.table["first_ns"].min() > made.START_NS + 85


def test_forgetting_drops_what_has_ended_and_keeps_the_rest_found() -> None:
    connections = Followed(1, Rules(timeout_seconds=1.0))
    _, frames, decoded = frames_of(segments(SYN, RST, SYN))
    slots, _ = connections.follow(frames, decoded)
    connections.account(frames, slots)
    assert len(connections.table) == 2
    gone = connections.forget()
    assert (gone["state"] & ENDED > 0).tolist() == [True]
    assert len(connections.table) == 1
    slots, first = connections.follow(frames[2:], decoded[2:])
    assert (slots.tolist(), first) == ([0], 1)


def test_a_connection_whose_timeout_is_suspended_is_not_forgotten_for_it() -> None:
    connections = Followed(1, Rules(timeout_seconds=1.0))
    ends = [(A, number, B, 80) for number in (1, 2, 3)]
    packets = [
        Timed(made.START_NS + number * 10**10, made.ethernet(made.tcp(*each)))
        for number, each in enumerate(ends)
    ]
    _, frames, decoded = frames_of(packets)
    connections.follow(frames, decoded)
    connections.table["state"][1] |= TIMEOUT_SUSPENDED
    assert len(connections.forget()) == 1
    assert connections.table["first_ns"].tolist() == frames["ts_ns"][1:].tolist()


@pytest.mark.parametrize("is_plain", [False, True])
def test_what_the_kernel_has_seen_more_of_is_asked_for(
    is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause that only seems one: the kernel cut packets, of which the row knows nothing."""
    if is_plain:
        monkeypatch.setattr(core, "follow", plain.follow)
        monkeypatch.setattr(core, "make_table", plain.make_table)
    asked = []
    last_ns = 0

    def catch_up(slot: int) -> None:
        asked.append(slot)
        row = connections.table[slot]
        row["state"] &= ~np.uint8(IN_KERNEL)
        row["last_ns"] = max(int(row["last_ns"]), last_ns)

    connections = Connections(Rules(timeout_seconds=1.0), catch_up)
    _, frames, decoded = frames_of(segments(ACK, ACK, ACK, RST, SYN, gap_ns=3 * 10**9))
    for number, (cut_ns, slot, calls) in enumerate(
        [(0, 0, 0), (int(frames["ts_ns"][1]) - 10**9, 0, 1), (0, 1, 2), (0, 2, 2), (0, 3, 2)]
    ):
        last_ns = cut_ns
        slots, first = connections.follow(frames[number : number + 1], decoded[number : number + 1])
        assert (slots.tolist(), len(asked)) == ([slot], calls)
        assert first == (slot if number in (0, 2, 3, 4) else 1)
        if number < 2:
            connections.table["state"][slot] |= IN_KERNEL


@pytest.mark.parametrize("is_plain", [False, True])
def test_the_mark_of_the_kernel_goes_over_to_the_next_connection(
    is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_plain:
        monkeypatch.setattr(core, "follow", plain.follow)
        monkeypatch.setattr(core, "make_table", plain.make_table)
    connections = Connections(Rules(), not_asked)
    _, frames, decoded = frames_of(segments(ACK, RST, SYN))
    connections.follow(frames[:1], decoded[:1])
    connections.table["state"][0] |= IN_KERNEL
    slots, _ = connections.follow(frames[1:], decoded[1:])
    assert slots.tolist() == [0, 1]
    old, new = connections.table["state"]
    assert old & (IN_KERNEL | ENDED) == ENDED
    assert new & (IN_KERNEL | ENDED) == IN_KERNEL
