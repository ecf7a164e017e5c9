from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmeasure.recorder import core
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.keys import INDEXES, Protocol, parse_key
from perfmeasure.recorder.predicate import And, Match, Node, Times
from perfmeasure.recorder.snapshot import Follower, Snapshot, StoreAt
from perfmeasure.recorder.store import Chunk, Counts
from perfmeasure.recorder.writer import Limits, StoreWriter
from tests.recorder import made
from tests.recorder.made import Timed


def frames_of(chunks: Iterable[Chunk]) -> list[Timed]:
    return [
        Timed(int(frame["ts_ns"]), bytes(segment.record(frame)[16:]))
        for chunk in chunks
        for segment, frame in chunk.records()
    ]


def batches(tmp_path: Path, packets: list[Timed], size: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield what `StoreWriter.append` takes, of so many packets each."""
    for at in range(0, len(packets), size):
        (tmp_path / "in").write_bytes(made.pcap(packets[at : at + size]))
        for batch in CaptureFile(tmp_path / "in").batches():
            yield batch.data, batch.frames, core.decode(batch.data, batch.frames)


@pytest.mark.parametrize(("seed", "segment_bytes"), [(1, 3000), (2, 20_000), (3, 10**7)])
def test_before_and_after_a_snapshot_are_everything_once(
    tmp_path: Path, seed: int, segment_bytes: int
) -> None:
    rng = random.Random(seed)
    packets = made.trace(seed, 600, 30)
    hosts = {made.fields(packet.frame).src for packet in packets}
    limits = Limits(segment_bytes=segment_bytes)
    writer = StoreWriter(tmp_path / "store", {"a": limits, "b": limits})
    node: Node = Match(parse_key("ip", max(hosts)))
    wanted = [
        packet
        for packet in packets
        if max(hosts) in (made.fields(packet.frame).src, made.fields(packet.frame).dst)
    ]
    moments: list[Snapshot] = [writer.snapshot()]
    for data, frames, decoded in batches(tmp_path, packets, 20):
        is_a = np.array([rng.random() < 0.5 for _ in frames])
        writer.append("a", data, frames[is_a], decoded[is_a])
        writer.append("b", data, frames[~is_a], decoded[~is_a])
        if rng.random() < 0.3:
            moments.append(writer.snapshot())
    for place in (0, len(moments) // 2):
        since = moments[place]
        follower = Follower(tmp_path / "store", node, since)
        past = StoreAt(tmp_path / "store", since)
        counts = Counts()
        found = frames_of(past.packets(node, counts))
        assert found == sorted(found, key=lambda packet: packet.ts_ns)
        past.close()
        for moment in (*moments[place + 1 :], writer.snapshot(), writer.snapshot()):
            found += frames_of(follower.advance(moment, counts))
        assert sorted(found) == sorted(wanted)
        assert counts.packets == len(wanted)
        assert follower.missed == 0
    writer.close()


def test_only_memory(tmp_path: Path) -> None:
    """The original gave all that was in memory, whatever times were asked for."""
    packets = made.trace(4, 400, 10)
    writer = StoreWriter(tmp_path / "store", {"all": Limits(segment_bytes=30_000)})
    for batch in batches(tmp_path, packets, 100):
        writer.append("all", *batch)
    snapshot = writer.snapshot()
    in_memory = snapshot.segments[0].summary
    assert 0 < in_memory.packets < 400
    middle_ns = (in_memory.first_ns + in_memory.last_ns) // 2
    times = Times(middle_ns, in_memory.last_ns)
    tcp = Match(Protocol(6))
    store = StoreAt(tmp_path / "store", snapshot, is_mem_only=True)
    found = frames_of(store.packets(And((tcp, times))))
    latest = packets[-in_memory.packets :]
    assert found
    assert found == sorted(
        (
            packet
            for packet in latest
            if made.fields(packet.frame).protocol == 6 and packet.ts_ns >= middle_ns
        ),
        key=lambda packet: packet.ts_ns,
    )
    store.close()
    writer.close()


def test_what_the_budget_dropped_before_is_counted(tmp_path: Path) -> None:
    packets = made.trace(5, 600, 10)
    limits = Limits(segment_bytes=6000, budget_bytes=20_000)
    writer = StoreWriter(tmp_path / "store", {"all": limits})
    node = Match(Protocol(6))
    follower = Follower(tmp_path / "store", node, writer.snapshot())
    for batch in batches(tmp_path, packets, 50):
        writer.append("all", *batch)
    counts = Counts()
    found = frames_of(follower.advance(writer.snapshot(), counts))
    assert 0 < len(found) == counts.packets < 300
    assert follower.missed > 3
    writer.close()


def test_a_query_of_any_index_is_followed(tmp_path: Path) -> None:
    """The original's subscriptions were for connection4 only."""
    rng = random.Random(13)
    packets = made.trace(13, 800, 40)
    wanted: dict[tuple[str, str], list[Timed]] = {}
    for index in INDEXES:
        keys = [set(made.keys_of(packet.frame).get(index, ())) for packet in packets]
        key = rng.choice(sorted(set().union(*keys)))
        wanted[index, key] = [p for p, own in zip(packets, keys, strict=True) if key in own]
    writer = StoreWriter(tmp_path / "store", {"all": Limits(segment_bytes=30_000)})
    begin = writer.snapshot()
    followers = {
        (index, key): Follower(tmp_path / "store", Match(parse_key(index, key)), begin)
        for index, key in wanted
    }
    found: dict[tuple[str, str], list[Timed]] = {asked: [] for asked in wanted}
    for batch in batches(tmp_path, packets, 50):
        writer.append("all", *batch)
        now = writer.snapshot()
        for asked, follower in followers.items():
            found[asked] += frames_of(follower.advance(now, Counts()))
    writer.close()
    for asked, answered in found.items():
        assert sorted(answered) == sorted(wanted[asked]), asked
        assert answered
