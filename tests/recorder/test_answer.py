from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.errors import PerfmeasureError, UsageError
from perfmeasure.recorder import core
from perfmeasure.recorder.answer import write_answer
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.predicate import Not, Or
from perfmeasure.recorder.store import Store
from perfmeasure.recorder.writer import Limits, StoreWriter
from tests.recorder import made
from tests.recorder.made import Timed

EVERYTHING = Not(Or(()))


def stored(tmp_path: Path, *captures: bytes) -> Store:
    writer = StoreWriter(tmp_path / "store", {"all": Limits(segment_bytes=10_000)})
    for content in captures:
        (tmp_path / "in").write_bytes(content)
        for batch in CaptureFile(tmp_path / "in").batches():
            writer.append("all", batch.data, batch.frames, core.decode(batch.data, batch.frames))
    writer.close()
    return Store(tmp_path / "store")


def packets_of(path: Path) -> list[Timed]:
    return [
        Timed(int(f["ts_ns"]), bytes(b.data[int(f["at"]) : int(f["at"]) + int(f["captured"])]))
        for b in CaptureFile(path).batches()
        for f in b.frames
    ]


def test_pcap_is_what_went_in(tmp_path: Path) -> None:
    packets = sorted(made.trace(1, 500), key=lambda packet: packet.ts_ns)
    store = stored(tmp_path, made.pcap(packets))
    write_answer(store.packets(EVERYTHING), tmp_path / "out.pcap")
    assert (tmp_path / "out.pcap").read_bytes() == made.pcap(packets)


def test_an_answer_of_nothing_is_a_whole_capture(tmp_path: Path) -> None:
    store = stored(tmp_path, made.pcap(made.trace(1, 5)))
    for name in ("out.pcap", "out.pcapng"):
        write_answer(store.packets(Or(())), tmp_path / name)
        assert packets_of(tmp_path / name) == []
    assert (tmp_path / "out.pcap").stat().st_size == 24


def test_two_link_types_need_pcapng(tmp_path: Path) -> None:
    packet = made.tcp("10.0.0.1", 1, "10.0.0.2", 2)
    one = made.pcap([Timed(made.START_NS, made.ethernet(packet))])
    other = made.pcap([Timed(made.START_NS - 5, packet)], link=101)
    store = stored(tmp_path, one, other)
    with pytest.raises(UsageError, match="pcapng"):
        write_answer(store.packets(EVERYTHING), tmp_path / "out.pcap")
    assert not list(tmp_path.glob("out*"))
    write_answer(store.packets(EVERYTHING), tmp_path / "out.pcapng")
    batches = CaptureFile(tmp_path / "out.pcapng").batches()
    found = [(int(f["link"]), int(f["ts_ns"])) for b in batches for f in b.frames]
    assert found == [(101, made.START_NS - 5), (1, made.START_NS)]


def test_tshark_reads_times_and_comments(tmp_path: Path, require: Callable[..., None]) -> None:
    require("tshark")
    packets = sorted(made.trace(1, 50), key=lambda packet: packet.ts_ns)
    store = stored(tmp_path, made.pcap(packets))
    numbers = iter(range(50))

    def comment(_segment: object, _frame: object) -> str:
        number = next(numbers)
        return f"transfer {number} ünïcode" if number % 2 else ""

    write_answer(store.packets(EVERYTHING), tmp_path / "out.pcapng", comment)
    ran = subprocess.run(
        ["tshark", "-r", tmp_path / "out.pcapng", "-T", "fields", "-e", "frame.time_epoch", "-e",
         "frame.len", "-e", "frame.comment"],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    wanted = [
        f"{ts_ns // 10**9}.{ts_ns % 10**9:09}\t{len(frame)}\t"
        + (f"transfer {number} ünïcode" if number % 2 else "")
        for number, (ts_ns, frame) in enumerate(packets)
    ]
    assert ran.stdout.rstrip("\n").split("\n") == wanted


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PerfmeasureError, match="cannot be written"):
        write_answer([], tmp_path / "none" / "out.pcap")
