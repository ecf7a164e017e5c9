from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from perfmeasure.errors import InputError
from perfmeasure.recorder.capturefile import CaptureFile
from tests.recorder import made
from tests.recorder.made import Timed


def read(path: Path) -> tuple[list[Timed], list[str]]:
    """Return the packets of a capture file and what is wrong with it."""
    capture = CaptureFile(path)
    packets = [
        Timed(int(f["ts_ns"]), bytes(batch.data[int(f["at"]) : int(f["at"]) + int(f["captured"])]))
        for batch in capture.batches()
        for f in batch.frames
    ]
    assert capture.problem_count >= len(capture.problems)
    return packets, capture.problems


@pytest.mark.parametrize(("order", "is_ns"), list(itertools.product("<>", [True, False])))
def test_every_byte_order_and_resolution(order: str, is_ns: bool, tmp_path: Path) -> None:
    # More than the buffer holds, so that records lie across its end.
    packets = made.trace(1, 12_000)
    path = tmp_path / "x.pcap"
    path.write_bytes(made.pcap(packets, order=order, is_ns=is_ns))
    unit = 1 if is_ns else 1000
    wanted = [Timed(ts_ns // unit * unit, frame) for ts_ns, frame in packets]
    assert read(path) == (wanted, [])


def test_every_cut_gives_what_was_whole_and_says_where(tmp_path: Path) -> None:
    packets = made.trace(1, 5)
    content = made.pcap(packets)
    ends = list(itertools.accumulate((16 + len(p.frame) for p in packets), initial=24))
    path = tmp_path / "cut.pcap"
    for size in range(24, len(content) + 1):
        path.write_bytes(content[:size])
        found, problems = read(path)
        whole = sum(end <= size for end in ends) - 1
        assert found == packets[:whole]
        if size == ends[whole]:
            assert problems == []
        else:
            assert problems[0].startswith(f"{path}: offset {ends[whole]}: the file ends within")


def test_a_record_of_impossible_length_ends_the_reading(tmp_path: Path) -> None:
    packets = made.trace(1, 5)
    content = bytearray(made.pcap(packets))
    at = 24 + 16 + len(packets[0].frame)
    content[at + 8 : at + 12] = b"\xff\xff\xff\x7f"
    path = tmp_path / "bad.pcap"
    path.write_bytes(content)
    found, problems = read(path)
    assert found == packets[:1]
    (problem,) = problems
    assert problem.startswith(f"{path}: offset {at}: the record says that 2147483647 bytes were")


def test_a_time_that_no_segment_can_hold_leaves_the_frame_out(tmp_path: Path) -> None:
    path = tmp_path / "late.pcapng"
    frame = made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2))
    blocks = [made.section(), made.interface(1)]
    blocks += [made.enhanced(0, ticks, frame) for ticks in (10**15, 2**63, 10**16, 2 * 10**15)]
    path.write_bytes(b"".join(blocks))
    found, problems = read(path)
    assert [packet.ts_ns for packet in found] == [10**18, 2 * 10**18]
    assert "2 frames left out" in problems[0]


@pytest.mark.parametrize(
    "content", [b"", b"\xd4\xc3\xb2\xa1", b"no capture at all, but text\n" * 9]
)
def test_what_is_no_capture_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match="capture file"):
        read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "none.pcap")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
