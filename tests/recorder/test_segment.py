from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.errors import InputError, MeasurementError
from perfmeasure.recorder import core
from perfmeasure.recorder.records import FRAME, Array
from perfmeasure.recorder.segment import (
    Segment,
    SegmentWriter,
    Summary,
    scan,
    segment_path,
    summary_of_index,
)
from tests.recorder import made

PACKETS = made.trace(1, 300, 40)
DATA = made.pcap(PACKETS)


def frames_of() -> tuple[Array, Array]:
    frames = np.zeros(len(PACKETS), FRAME)
    assert core.walk_pcap(DATA, 24, False, 1, 1, frames)[0] == len(PACKETS)
    return frames, core.decode(DATA, frames)


def test_packets_are_in_the_file_at_once_and_visible_when_complete(tmp_path: Path) -> None:
    frames, packets = frames_of()
    writer = SegmentWriter(tmp_path, Summary(7, "web", 1))
    assert writer.path == tmp_path / "segments/web/00000007.pcap.part"
    for number in range(0, 300, 100):
        part = slice(number, number + 100)
        writer.append(DATA, frames[part], packets[part])
        end = int(frames["at"][number + 99] + frames["captured"][number + 99])
        assert writer.path.read_bytes() == DATA[:end]
    writer.summary.drops = 5
    size = writer.close()
    assert [path.name for path in sorted((tmp_path / "segments/web").iterdir())] == [
        "00000007.npz", "00000007.pcap",
    ]  # fmt: skip
    index = tmp_path / "segments/web/00000007.npz"
    assert size == index.stat().st_size
    times = [packet.ts_ns for packet in PACKETS]
    captured = sum(len(packet.frame) for packet in PACKETS)
    summary = Summary(7, "web", 1, min(times), max(times), 300, captured, 5)
    assert summary_of_index(index) == summary
    segment = Segment.open(tmp_path, summary)
    assert segment.summary == summary
    found = segment.frames((frames["at"] - 16).astype("u4"))
    assert b"".join(bytes(segment.record(frame)) for frame in found) == DATA[24:]
    again, _, end = scan(segment_path(tmp_path, summary, ".pcap"), Summary(7, "web", 0, drops=5))
    assert (again.summary, end) == (summary, len(DATA))


def test_a_place_that_is_no_record_is_an_error(tmp_path: Path) -> None:
    frames, packets = frames_of()
    writer = SegmentWriter(tmp_path, Summary(7, "web", 1))
    writer.append(DATA, frames, packets)
    view = writer.view()
    with pytest.raises(InputError, match="no whole record at offset"):
        view.frames(np.array([len(DATA) - 3], "u4"))
    writer.close()


def test_a_view_is_of_its_moment(tmp_path: Path) -> None:
    frames, packets = frames_of()
    writer = SegmentWriter(tmp_path, Summary(7, "web", 1))
    writer.append(DATA, frames[:10], packets[:10])
    view = writer.view()
    writer.append(DATA, frames[10:], packets[10:])
    writer.close()
    assert view.summary.packets == 10
    assert len(view.view.places(np.ones((2, len(view.view.protocol)), bool))[0]) == 10


def test_what_is_no_segment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    for content in (b"", b"short", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(InputError):
            scan(path, Summary(1, "all", 0))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "segments").write_bytes(b"")
    with pytest.raises(MeasurementError, match="cannot be made"):
        SegmentWriter(tmp_path, Summary(7, "web", 1))


def test_a_write_that_fails_leaves_whole_records_only(tmp_path: Path) -> None:
    """Run in a process of its own, whose files may not grow beyond a limit."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
from pathlib import Path
from tests.recorder.test_segment import DATA, frames_of
from perfmeasure.errors import MeasurementError
from perfmeasure.recorder.segment import SegmentWriter, Summary
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
frames, packets = frames_of()
writer = SegmentWriter(Path({str(tmp_path)!r}), Summary(1, "all", 1))
written = 0
try:
    for number in range(300):
        part = slice(number, number + 1)
        writer.append(DATA, frames[part], packets[part])
        written += 1
except MeasurementError as error:
    print(written, writer.size_bytes, writer.summary.packets, writer.index.packets, error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    written, size, in_summary, in_index = map(int, ran.stdout.split()[:4])
    assert "free some space" in ran.stdout.lower()
    assert 10 < written == in_summary == in_index < 300
    content = (tmp_path / "segments/all/00000001.pcap.part").read_bytes()
    assert content == DATA[:size] == made.pcap(PACKETS[:written])


def test_other_tools_read_it(tmp_path: Path, require: Callable[..., None]) -> None:
    require("tshark")
    frames, packets = frames_of()
    writer = SegmentWriter(tmp_path, Summary(7, "web", 1))
    writer.append(DATA, frames, packets)
    writer.close()
    ran = subprocess.run(
        ["tshark", "-r", tmp_path / "segments/web/00000007.pcap", "-T", "fields", "-e",
         "frame.time_epoch"],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    wanted = [f"{ts_ns // 10**9}.{ts_ns % 10**9:09}" for ts_ns, _ in PACKETS]
    assert ran.stdout.split() == wanted
