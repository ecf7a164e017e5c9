"""The ring on real interfaces, and its blocks by both cores."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.recorder import core, plain
from perfmeasure.recorder.libpcap import Filter
from perfmeasure.recorder.records import FRAME, LINK_ETHERNET, LINK_RAW, Array
from perfmeasure.recorder.ring import BLOCK_BYTES, Ring, interface_drops
from tests.recorder import made
from tests.recorder.wire import HERE, THERE, Line, inside, ip

_SECONDS = 20.0


def start(namespace: str, interface: str = HERE, block_count: int = 64) -> Ring:
    with inside(namespace):
        ring = Ring(interface, block_count=block_count)
        ring.start()
    return ring


def taken(ring: Ring, count: int) -> list[bytes]:
    """Return the frames of the blocks until there are ``count``."""
    found: list[bytes] = []
    poller = select.poll()
    poller.register(ring, select.POLLIN)
    until = time.monotonic() + _SECONDS
    while len(found) < count:
        assert time.monotonic() < until, f"{len(found)} of {count}"
        block = ring.block()
        if block is None:
            poller.poll(100)
            continue
        frames = core.walk_ring(block, ring.link)
        found += [block[int(f["at"]) : int(f["at"]) + int(f["captured"])].tobytes() for f in frames]
        assert (frames["captured"] == frames["original"]).all()
        assert (abs(frames["ts_ns"] - time.time_ns()) < _SECONDS * 1e9).all()
        ring.release()
    return found


@pytest.fixture
def ring(line: Line) -> Iterator[Ring]:
    ring = start(line.name)
    yield ring
    ring.close()


def test_all_frames_come_once_in_order_and_whole(line: Line, ring: Ring) -> None:
    frames = [p.frame for p in made.trace(31, 3000)]
    line.send(frames)
    assert taken(ring, len(frames)) == frames
    assert ring.counts() == (len(frames), 0)
    assert ring.counts() == (0, 0), "counts are of what came since"


def test_tags_that_are_kept_beside_the_frame_are_put_back(line: Line) -> None:
    """The kernel takes the outer tag out of a frame that it receives."""
    inner = made.ethernet(made.tcp("10.0.0.1", 1, "10.0.0.2", 2, 30, made.ACK))
    tagged = [
        inner[:12] + struct.pack(">HH", kind, 0x6000 | number) + inner[12:]
        for kind, number in ((0x8100, 5), (0x88A8, 4095), (0x8100, 0))
    ]
    tagged.append(tagged[0][:12] + struct.pack(">HH", 0x88A8, 7) + tagged[0][12:])
    ring = start(line.name)
    try:
        line.send(tagged)
        assert taken(ring, len(tagged)) == tagged
    finally:
        ring.close()


def test_loopback_gives_each_packet_once(line: Line) -> None:
    ring = start(line.name, "lo")
    try:
        with inside(line.name):
            out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with out:
            for number in range(50):
                out.sendto(b"%04d" % number, ("127.0.0.1", 9))
        found = [frame for frame in taken(ring, 50) if frame[23] == socket.IPPROTO_UDP]
        time.sleep(0.2)
        rest = ring.block()
        assert rest is None or len(core.walk_ring(rest, ring.link)) < 50
        assert [frame[42:46] for frame in found] == [b"%04d" % n for n in range(len(found))]
    finally:
        ring.close()


def test_a_filter_in_the_kernel(line: Line) -> None:
    frames = [p.frame for p in made.trace(32, 400, connections=20)]
    with inside(line.name):
        ring = Ring(HERE)
        ring.attach_filter(Filter("udp", ring.link, "filter", HERE))
        ring.start()
    try:
        line.send(frames)
        data = b"".join(frames)
        places = np.zeros(len(frames), FRAME)
        places["captured"] = places["original"] = [len(frame) for frame in frames]
        places["at"] = np.cumsum(places["captured"]) - places["captured"]
        places["link"] = LINK_ETHERNET
        is_wanted = Filter("udp", LINK_ETHERNET, "test").matches(data, places)
        wanted = [frame for frame, is_in in zip(frames, is_wanted, strict=True) if is_in]
        assert 0 < len(wanted) < len(frames)
        assert taken(ring, len(wanted)) == wanted
    finally:
        ring.close()


def test_what_finds_no_room_is_counted(line: Line) -> None:
    frame = made.ethernet(made.tcp("10.0.0.1", 1, "10.0.0.2", 2, 1400, made.ACK))
    count = 3 * BLOCK_BYTES // len(frame)
    ring = start(line.name, block_count=1)
    try:
        line.send([frame] * count)
        time.sleep(0.2)
        packets, drops = ring.counts()
        assert packets == count
        assert drops > 0
        assert len(taken(ring, count - drops)) == count - drops
    finally:
        ring.close()


def test_how_far_the_kernel_is(line: Line) -> None:
    frame = made.ethernet(made.tcp("10.0.0.1", 1, "10.0.0.2", 2, 1400, made.ACK))
    ring = start(line.name, block_count=4)
    try:
        assert ring.blocks_filled() == 0
        for number in range(1, 10):
            line.send([frame])
            assert len(taken(ring, 1)) == 1
            assert ring.blocks_filled() == ring.blocks_done == number
        for _ in range(3):
            line.send([frame])
            time.sleep(0.2)
        assert (ring.blocks_done, ring.blocks_filled()) == (9, 12)
    finally:
        ring.close()


def test_a_tunnel_has_frames_without_a_link_header(line: Line) -> None:
    ip("-n", line.name, "tuntap", "add", "tun9", "mode", "tun")
    ip("-n", line.name, "link", "set", "tun9", "up")
    ring = start(line.name, "tun9")
    ring.close()
    assert ring.link == LINK_RAW


def test_an_interface_that_is_not_there_or_goes(line: Line) -> None:
    with inside(line.name), pytest.raises(UsageError, match="none of this name; wanted one of lo"):
        Ring("nosuch0")
    ip("-n", line.name, "link", "add", "dum9", "type", "veth", "peer", "dum8")
    ip("-n", line.name, "link", "set", "dum9", "up")
    ring = start(line.name, "dum9")
    try:
        ip("-n", line.name, "link", "set", "dum9", "down")
        assert ring.block() is None, "it may come up again"
        ip("-n", line.name, "link", "del", "dum9")
        with pytest.raises(MeasurementError, match="interface dum9: capture ended"):
            ring.block()
    finally:
        ring.close()


def test_frames_for_others_are_asked_for(line: Line) -> None:
    for is_promiscuous in (True, False):
        with inside(line.name):
            ring = Ring(HERE, is_promiscuous=is_promiscuous)
        shown = ip("-n", line.name, "-d", "link", "show", HERE)
        ring.close()
        assert f"promiscuity {int(is_promiscuous)}" in shown


def test_drops_of_an_interface(line: Line) -> None:
    with inside(line.far):
        assert interface_drops(THERE) == 0
        assert interface_drops("nosuch0") == 0


# ---- blocks -------------------------------------------------------------------------------------


def block_of(rng: random.Random) -> Array:
    """Return a block of the ring as if_packet.h has it, with frames of random lengths and tags."""
    content = bytearray(48)
    count = rng.randrange(12)
    for number in range(count):
        frame = rng.randbytes(rng.choice([0, 11, 12, 60, 1500]))
        status = rng.choice([1, 0x11, 0x51])
        head = bytearray(80)
        sizes = len(frame), len(frame) + rng.randrange(2)
        struct.pack_into(
            "=5IH", head, 4, rng.randrange(2**31), rng.randrange(10**9), *sizes, status, 80
        )
        struct.pack_into("=IH", head, 32, rng.randrange(2**16), rng.choice([0x8100, 0x88A8]))
        size = -(-(80 + len(frame)) // 8) * 8
        struct.pack_into("=I", head, 0, size if number < count - 1 else 0)
        content += (bytes(head) + frame).ljust(size, b"\0")
    struct.pack_into("=2I", content, 12, count, 48)
    return np.frombuffer(content, "u1").copy()


def both(block: Array, link: int) -> list[object]:
    """Return what each core makes of a block, which it may change."""
    results: list[object] = []
    for walk in (core._functions.walk_ring, plain.walk_ring):
        own = block.copy()
        frames = np.zeros(16, FRAME)
        try:
            count = walk(own, link, frames)
        except ValueError:
            results.append("refused")
        else:
            results.append((frames[:count].tobytes(), own.tobytes()))
    return results


@pytest.mark.parametrize("link", [LINK_ETHERNET, LINK_RAW])
def test_both_cores_walk_blocks_alike(link: int, is_long: bool) -> None:
    rng = random.Random(8)
    refused = 0
    for _ in range(20_000 if is_long else 500):
        block = block_of(rng)
        native, numpy = both(block, link)
        assert native == numpy != "refused"
        for _ in range(rng.randrange(3)):
            block[rng.randrange(len(block))] = rng.randrange(256)
        native, numpy = both(block[: rng.randrange(len(block) + 1)], link)
        assert native == numpy
        refused += native == "refused"
    assert refused
