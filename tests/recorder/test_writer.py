from __future__ import annotations

from pathlib import Path

import pytest

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.recorder import core
from perfmeasure.recorder import writer as writer_module
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.predicate import Not, Or
from perfmeasure.recorder.snapshot import StoreAt
from perfmeasure.recorder.store import Store
from perfmeasure.recorder.writer import Limits, StoreWriter
from tests.recorder import made

EVERYTHING = Not(Or(()))


def record(writer: StoreWriter, path: Path, name: str = "all") -> None:
    for batch in CaptureFile(path).batches():
        writer.append(name, batch.data, batch.frames, core.decode(batch.data, batch.frames))


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "in.pcap"
    path.write_bytes(made.pcap(made.trace(1, 5000, 60)))
    return path


def test_segments_rotate_by_size(capture: Path, tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {"all": Limits(segment_bytes=50_000)})
    record(writer, capture)
    writer.close()
    segments = sorted((tmp_path / "store").rglob("*.pcap"))
    assert len(segments) > 10
    assert all(49_000 < path.stat().st_size <= 50_000 for path in segments[:-1])
    joined = b"".join(path.read_bytes()[24:] for path in segments)
    assert joined == capture.read_bytes()[24:]


def test_segments_rotate_by_the_packets_time(capture: Path, tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {"all": Limits(segment_seconds=0.5)})
    record(writer, capture)
    writer.close()
    spans = []
    for path in sorted((tmp_path / "store").rglob("*.pcap")):
        times = [int(t) for b in CaptureFile(path).batches() for t in b.frames["ts_ns"]]
        spans.append((times[0], times[-1]))
    assert len(spans) > 2
    assert all(last - first < 500_000_000 for first, last in spans)


def test_a_frame_larger_than_a_segment_has_one_of_its_own(tmp_path: Path) -> None:
    packets = [made.Timed(made.START_NS, made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2, n)))
               for n in (10, 900, 10, 900, 900)]  # fmt: skip
    (tmp_path / "in.pcap").write_bytes(made.pcap(packets))
    writer = StoreWriter(tmp_path / "store", {"all": Limits(segment_bytes=200)})
    record(writer, tmp_path / "in.pcap")
    writer.close()
    assert len(list((tmp_path / "store").rglob("*.pcap"))) == 5
    assert Store(tmp_path / "store").count(EVERYTHING).packets == 5


def test_the_budget_drops_whole_oldest_segments_of_the_class(capture: Path, tmp_path: Path) -> None:
    limits = {"a": Limits(20_000, budget_bytes=100_000), "b": Limits(20_000)}
    writer = StoreWriter(tmp_path / "store", limits)
    for number in range(3):
        record(writer, capture, "b" if number == 1 else "a")
        sizes = [p.stat().st_size for p in (tmp_path / "store/segments/a").iterdir()]
        assert sum(sizes) <= 100_000
        assert sum(sizes) > 60_000
    writer.close()
    assert sum(p.stat().st_size for p in (tmp_path / "store/segments/a").iterdir()) <= 100_000
    store = Store(tmp_path / "store")
    total = len(made.trace(1, 5000, 60))
    kept = {e.summary.number: e.summary for e in store.entries()}
    assert sum(s.packets for s in kept.values() if s.class_name == "b") == total
    numbers = sorted(n for n, s in kept.items() if s.class_name == "a")
    files = {int(p.stem) for p in (tmp_path / "store/segments/a").glob("*.pcap")}
    assert (
        files
        == set(numbers)
        == {int(p.stem) for p in (tmp_path / "store/segments/a").glob("*.npz")}
    )
    assert store.count(EVERYTHING).packets == sum(s.packets for s in kept.values())
    # The same after a restart, which goes on counting.
    writer = StoreWriter(tmp_path / "store", limits)
    assert writer.messages == []
    record(writer, capture, "a")
    writer.close()
    assert sum(p.stat().st_size for p in (tmp_path / "store/segments/a").iterdir()) <= 100_000
    assert min(int(p.stem) for p in (tmp_path / "store/segments/a").glob("*.pcap")) > max(numbers)


def test_a_query_that_is_overtaken_by_the_budget_gives_what_is_left(
    capture: Path, tmp_path: Path
) -> None:
    writer = StoreWriter(tmp_path / "store", {"all": Limits(20_000, budget_bytes=100_000)})
    record(writer, capture)
    store = StoreAt(tmp_path / "store", writer.snapshot())
    segments = store.segments(EVERYTHING)
    first = next(segments)
    record(writer, capture)
    assert first.summary.number not in {entry.summary.number for entry in store.entries()}
    assert len(list(segments)) <= 1
    writer.close()


def test_a_segment_ends_when_it_has_too_many_connections(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = [
        made.Timed(
            made.START_NS + n, made.ethernet(made.udp("10.0.0.1", n % 65536, "10.0.0.2", n >> 16))
        )
        for n in range(40_000)
    ]
    capture.write_bytes(made.pcap(packets))
    monkeypatch.setattr(writer_module, "_MAX_ROWS", 10_000)
    writer = StoreWriter(tmp_path / "store")
    record(writer, capture)
    writer.close()
    counts = [e.summary.packets for e in Store(tmp_path / "store").entries()]
    assert sum(counts) == 40_000
    # Batches have up to 8192 packets, and are not cut.
    assert all(10_000 <= count < 20_000 for count in counts[:-1])


def test_every_link_type_has_segments_of_its_own(tmp_path: Path) -> None:
    packet = made.tcp("10.0.0.1", 1, "10.0.0.2", 2)
    blocks = [made.section(), made.interface(1), made.interface(101)]
    for number in range(10):
        frame = packet if number % 2 else made.ethernet(packet)
        blocks.append(made.enhanced(number % 2, made.START_NS // 1000 + number, frame))
    (tmp_path / "in.pcapng").write_bytes(b"".join(blocks))
    writer = StoreWriter(tmp_path / "store")
    record(writer, tmp_path / "in.pcapng")
    writer.close()
    store = Store(tmp_path / "store")
    assert [(e.summary.link, e.summary.packets) for e in store.entries()] == [(1, 5), (101, 5)]
    assert store.count(EVERYTHING).packets == 10


def test_segments_can_be_closed_from_outside(capture: Path, tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store")
    record(writer, capture)
    writer.rotate(made.START_NS - 10)
    assert len(writer.snapshot().segments) == 1
    writer.rotate()
    assert writer.snapshot().segments == []
    assert len(list((tmp_path / "store").rglob("*.npz"))) == 1
    writer.close()


def test_there_is_one_writer(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    with pytest.raises(MeasurementError, match="another recorder"):
        StoreWriter(tmp_path)
    writer.close()
    StoreWriter(tmp_path).close()


@pytest.mark.parametrize(
    "settings",
    [
        {"segment_bytes": 0},
        {"segment_bytes": 2**32},
        {"segment_seconds": 0},
        {"segment_bytes": 100, "budget_bytes": 199},
    ],
)
def test_limits_that_contradict_each_other_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Limits(**settings)
