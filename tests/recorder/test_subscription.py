from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.recorder.keys import Protocol
from perfmeasure.recorder.predicate import And, Match, Times
from perfmeasure.recorder.snapshot import Follower, Snapshot
from perfmeasure.recorder.store import Chunk
from perfmeasure.recorder.subscription import Subscription
from perfmeasure.recorder.writer import StoreWriter
from tests.recorder import made
from tests.recorder.test_snapshot import batches, frames_of

_SECONDS = 30.0
TCP = Match(Protocol(6))


class Ended:
    """Waits for the end of a subscription."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.error: Exception | None = None

    def __call__(self, error: Exception | None) -> None:
        self.error = error
        self.event.set()


def fixed(snapshot: Snapshot) -> Callable[[float], Snapshot]:
    return lambda _: snapshot


def test_what_comes_is_delivered_and_the_rest_when_it_is_stopped(tmp_path: Path) -> None:
    packets = made.trace(1, 300, 10)
    writer = StoreWriter(tmp_path / "store")
    first, *later = batches(tmp_path, packets, 100)
    writer.append("all", *first)
    since = writer.snapshot()
    writer.append("all", *later[0])
    moments = [writer.snapshot()]
    got: list[Chunk] = []
    came, ended = threading.Event(), Ended()

    def write(chunk: Chunk) -> None:
        got.append(chunk)
        came.set()

    follower = Follower(tmp_path / "store", TCP, since)
    subscription = Subscription(TCP, follower, lambda _: moments[-1], write, ended)
    subscription.start()
    assert came.wait(_SECONDS)
    assert not ended.event.is_set()
    writer.append("all", *later[1])
    moments.append(writer.snapshot())
    subscription.stop()
    subscription.join(_SECONDS)
    assert ended.event.is_set()
    assert ended.error is None
    wanted = [p for p in packets[100:] if made.fields(p.frame).protocol == 6]
    assert sorted(frames_of(got)) == sorted(wanted)
    assert subscription.counts.packets == len(wanted)
    writer.close()


@pytest.mark.parametrize("error", [BrokenPipeError("gone"), MeasurementError("disk", "is full")])
def test_who_cannot_take_it_gets_no_more(tmp_path: Path, error: Exception) -> None:
    writer = StoreWriter(tmp_path / "store")
    since = writer.snapshot()
    for batch in batches(tmp_path, made.trace(1, 100, 10), 100):
        writer.append("all", *batch)
    ended = Ended()

    def refuse(_: Chunk) -> None:
        raise error

    follower = Follower(tmp_path / "store", TCP, since)
    Subscription(TCP, follower, fixed(writer.snapshot()), refuse, ended).start()
    assert ended.event.wait(_SECONDS)
    assert ended.error is error
    writer.close()


def test_a_time_that_is_over_ends_it(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store")
    snapshot = writer.snapshot()
    ended = Ended()
    node = And((TCP, Times(0, made.START_NS)))
    follower = Follower(tmp_path / "store", node, snapshot)
    Subscription(node, follower, fixed(snapshot), print, ended).start()
    assert ended.event.wait(_SECONDS)
    assert ended.error is None
    writer.close()
