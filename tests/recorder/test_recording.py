from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.connections import Rules
from perfmeasure.recorder.recording import Recorded, Recording
from perfmeasure.recorder.writer import StoreWriter
from tests.recorder import made


@pytest.mark.parametrize("cutoff", [None, 0, 1000, 5000])
def test_the_store_holds_each_connection_up_to_the_cutoff(
    cutoff: int | None, tmp_path: Path
) -> None:
    packets = made.trace(1, 5000, 60)
    (tmp_path / "in.pcap").write_bytes(made.pcap(packets))
    writer = StoreWriter(tmp_path / "store")
    recording = Recording(writer, Rules(cutoff))
    for batch in CaptureFile(tmp_path / "in.pcap").batches():
        recording.add(batch.data, batch.frames)
    writer.close()
    before: dict[object, int] = defaultdict(int)
    wanted = []
    for packet in packets:
        found = made.fields(packet.frame)
        key = (
            frozenset([(found.src, found.src_port), (found.dst, found.dst_port)]),
            found.protocol,
        )
        if not found.src or cutoff is None or before[key] < cutoff:
            wanted.append(packet)
        before[key] += len(packet.frame)
    (segment,) = (tmp_path / "store").rglob("*.pcap")
    assert segment.read_bytes() == made.pcap(wanted)
    total, kept = (sum(len(packet.frame) for packet in some) for some in (packets, wanted))
    assert recording.recorded == Recorded(5000, total, len(wanted), kept)
