from __future__ import annotations

from pathlib import Path

from perfmeasure import jsonio
from perfmeasure.recorder import core
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.lines import json_lines, packets, text_lines
from perfmeasure.recorder.predicate import Not, Or
from perfmeasure.recorder.store import Store
from perfmeasure.recorder.writer import StoreWriter
from tests.recorder import made
from tests.recorder.made import Timed

EVERYTHING = Not(Or(()))


def stored(folder: Path, content: bytes) -> Store:
    (folder / "in").write_bytes(content)
    writer = StoreWriter(folder / "store")
    for batch in CaptureFile(folder / "in").batches():
        writer.append("all", batch.data, batch.frames, core.decode(batch.data, batch.frames))
    writer.close()
    return Store(folder / "store")


def test_every_packet_is_told_as_it_is(tmp_path: Path) -> None:
    trace = sorted(made.trace(11, 2000, 100), key=lambda packet: packet.ts_ns)
    store = stored(tmp_path, made.pcap(trace, snap=80))
    found = list(packets(store.packets(EVERYTHING)))
    assert len(found) == len(trace)
    for told, packet in zip(found, trace, strict=True):
        known = made.fields(packet.frame)
        assert (told["unix_ns"], told["link"], told["class"]) == (packet.ts_ns, 1, "all")
        assert told["bytes"] == len(packet.frame)
        assert told["captured_bytes"] == min(80, len(packet.frame))
        assert told.get("vlan", []) == list(known.vlans[:2])
        assert (told.get("src", ""), told.get("dst", "")) == (known.src, known.dst)
        ports = (told.get("src_port", 0), told.get("dst_port", 0))
        assert ports == (known.src_port, known.dst_port)
        assert ("tcp_flags" in told) == (known.protocol == 6)
    lines = [jsonio.loads(line) for line in json_lines(store.packets(EVERYTHING))]
    assert lines == found


def test_lines_for_people(tmp_path: Path) -> None:
    ns = made.START_NS + 5
    syn = made.SYN | made.ACK
    frames = [
        made.ethernet(made.tcp("10.0.0.1", 80, "10.0.0.2", 1024, 4, syn)),
        made.ethernet(made.udp("2001:db8::1", 53, "2001:db8::2", 9, 30), vlans=(7, 9)),
        made.ethernet(made.ip("10.0.0.1", "10.0.0.2", 17, bytes(8), fragment=100)),
        made.ethernet(made.ip("10.0.0.1", "10.0.0.2", 200, bytes(8))),
        made.ARP,
    ]
    store = stored(tmp_path, made.pcap([Timed(ns, frame) for frame in frames], snap=70))
    time = "2023-11-14T22:13:20.000000005Z"
    assert list(text_lines(store.packets(EVERYTHING))) == [
        f"{time} tcp 10.0.0.1:80 > 10.0.0.2:1024 flags S. bytes 58",
        f"{time} udp [2001:db8::1]:53 > [2001:db8::2]:9 vlan 7,9 bytes 100 captured 70",
        f"{time} udp 10.0.0.1 > 10.0.0.2 bytes 42",
        f"{time} 200 10.0.0.1 > 10.0.0.2 bytes 42",
        f"{time} bytes 42",
    ]
