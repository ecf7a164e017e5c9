"""The recorder's logs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from perfmeasure.recorder.classes import PacketClass
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.keys import INDEXES
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.recording import Recording
from perfmeasure.recorder.statistics import Losses, Statistics
from perfmeasure.recorder.writer import Limits
from tests.recorder import made

# The names that the original's logs have, in its order.
ORIGINAL = {
    "stats": "timestamp conns dyn_class pcap_recv pcap_drop drop_ratio d_drop totPkts totBytes "
    "link_rate_mbit uncutPkts uncutBytes uncut_rate_mbit utime stime mem_os mem queryPkts "
    "queryBytes p_ifdrop",
    "classes": "timestamp class stored_bytes stored_pkts cut_bytes cut_pkts mem_bytes mem_pkts "
    "mem_dt disk_bytes disk_pkts disk_dt",
    "indexes": "timestamp index entries_mem qlen",
}


def rows_of(store: Path, name: str) -> list[dict[str, str]]:
    """Return the lines of a log, by field."""
    head, *lines = (store / "log" / f"{name}.log").read_text().splitlines()
    assert head.startswith("#")
    fields = head[1:].split("\t")
    rows = [line.split("\t") for line in lines]
    assert all(len(row) == len(fields) for row in rows)
    return [dict(zip(fields, row, strict=True)) for row in rows]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """A recorder that has read packets, with open and closed segments."""
    classes = (
        PacketClass("udp", "udp", 2, limits=Limits(segment_bytes=20_000)),
        PacketClass("rest", cutoff_bytes=2000),
    )
    (tmp_path / "in.pcap").write_bytes(made.pcap(made.trace(71, 2000, connections=50)))
    recorder = Recorder(tmp_path / "store", Setup(classes=classes), pytest.fail)
    recorder.read([tmp_path / "in.pcap"])
    return recorder


def recording_of(recorder: Recorder) -> Recording:
    assert recorder.recording is not None
    return recorder.recording


def test_the_fields_are_the_originals_and_then_ours(recorder: Recorder) -> None:
    recorder.close()
    for name, fields in ORIGINAL.items():
        names = list(rows_of(recorder.writer.folder, name)[0])
        assert names[: len(fields.split())] == fields.split()


def test_of_files_nothing_is_received_or_lost(recorder: Recorder) -> None:
    """The original divided by what libpcap made up for a file."""
    recorder.close()
    (row,) = rows_of(recorder.writer.folder, "stats")
    assert (row["pcap_recv"], row["pcap_drop"], float(row["drop_ratio"])) == ("0", "0", 0.0)
    assert row["totPkts"] == "2000"


def test_the_figures(recorder: Recorder) -> None:
    losses = Losses(received=1990, dropped=10, interface_drops=3)
    recorder.statistics.query_packets, recorder.statistics.query_bytes = 5, 600
    recorder.statistics.write(recording_of(recorder), recorder.writer, losses)
    recorder.statistics.write(recording_of(recorder), recorder.writer, losses)
    recorder.close()
    store = recorder.writer.folder
    *_, before, last = rows_of(store, "stats")
    frames = [packet.frame for packet in made.trace(71, 2000, connections=50)]
    assert (last["totPkts"], last["totBytes"]) == ("2000", str(sum(map(len, frames))))
    assert (last["pcap_recv"], last["pcap_drop"], last["drop_ratio"]) == ("1990", "10", "0.005000")
    assert (before["d_drop"], last["d_drop"]) == ("10", "0")
    assert (last["queryPkts"], last["queryBytes"], last["p_ifdrop"]) == ("5", "600", "3")
    assert (last["state"], last["unstored_pkts"], last["kernel_conns"]) == ("recording", "0", "0")
    assert last["link_rate_mbit"] == "0.000"
    assert abs(float(last["timestamp"]) - time.time()) < 60
    assert int(last["conns"]) > 0
    assert int(last["mem_os"]) > 10 << 20
    udp, rest = rows_of(store, "classes")[-2:]
    assert (udp["class"], rest["class"]) == ("udp", "rest")
    assert int(udp["stored_pkts"]) + int(rest["stored_pkts"]) == int(last["uncutPkts"])
    assert int(udp["stored_bytes"]) + int(rest["stored_bytes"]) == int(last["uncutBytes"])
    assert udp["cut_pkts"] == "0" < rest["cut_pkts"]
    for row in (udp, rest):
        assert int(row["mem_pkts"]) + int(row["disk_pkts"]) == int(row["stored_pkts"])
    assert int(udp["disk_pkts"]) > 0, "it has closed segments"
    assert float(udp["disk_dt"]) > float(udp["mem_dt"]) > 10**6, "the packets are of 2023"
    assert rest["disk_dt"] == "0.000"
    assert int(last["mem"]) == int(udp["mem_bytes"]) + int(rest["mem_bytes"])
    assert [row["index"] for row in rows_of(store, "indexes")][-len(INDEXES) :] == list(INDEXES)
    assert all(int(row["entries_mem"]) > 0 for row in rows_of(store, "indexes"))


def test_lines_go_on_after_a_restart(recorder: Recorder) -> None:
    recorder.close()
    count = len(rows_of(recorder.writer.folder, "stats"))
    again = Recorder(recorder.writer.folder, Setup(), pytest.fail)
    again.read([])
    again.close()
    assert len(rows_of(recorder.writer.folder, "stats")) == count + 1


def test_what_the_disk_does_not_take_comes_later(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics: Statistics = recorder.statistics

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        for log in statistics._logs.values():
            patch.setattr(log, "write", full)
        statistics.write(recording_of(recorder), recorder.writer, Losses(received=1))
    statistics.write(recording_of(recorder), recorder.writer, Losses(received=2))
    recorder.close()
    rows = rows_of(recorder.writer.folder, "stats")
    assert [row["pcap_recv"] for row in rows] == ["0", "1", "2"]
