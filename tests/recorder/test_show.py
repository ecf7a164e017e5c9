from __future__ import annotations

from pathlib import Path

import pytest

from perfmeasure.errors import UsageError
from perfmeasure.recorder import show
from perfmeasure.recorder.classes import PacketClass
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.keys import Connection, parse_key
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.statistics import STATS
from tests.recorder import made
from tests.recorder.made import Timed


def test_shown_are_the_latest_connections(tmp_path: Path) -> None:
    start_ns = made.START_NS
    packets = [
        Timed(start_ns + n * 10**9, made.ethernet(made.udp("2001:db8::1", n, "2001:db8::2", 53)))
        for n in range(1, 21)
    ]
    packets.append(Timed(start_ns + 60 * 10**9, made.ARP))
    (tmp_path / "in.pcap").write_bytes(made.pcap(packets))
    setup = Setup(classes=(PacketClass("dns", filter="udp", cutoff_bytes=100),))
    recorder = Recorder(tmp_path / "store", setup, print)
    recorder.read([tmp_path / "in.pcap"])
    assert recorder.recording is not None
    lines = show.sample(recorder.recording)
    assert [line.split()[1] for line in lines] == [f"[2001:db8::1]:{n}" for n in range(20, 10, -1)]
    assert lines[0] == (
        "udp [2001:db8::1]:20 [2001:db8::2]:53 packets 1 bytes 62 first 1700000020.000000 "
        "last 1700000020.000000 class dns cutoff 100 suspended -"
    )
    key = parse_key("connection4", "tcp 1.2.3.4:80 5.6.7.8:88")
    assert isinstance(key, Connection)
    with pytest.raises(UsageError) as caught:
        show.connection(recorder.recording, key)
    assert caught.value.where == "NOT IN CONNECTION TABLE - tcp 1.2.3.4:80 5.6.7.8:88"
    lines = show.statistics(recorder, recorder.recording)
    assert [line.split()[0] for line in lines[: len(STATS)]] == list(STATS)
    assert [line.split()[:2] for line in lines[len(STATS) :]][:2] == [
        ["class", "dns"], ["index", "connection4"],
    ]  # fmt: skip
    recorder.close()
