from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.pcapng import Interface
from tests.recorder import made

FRAME = made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2, 5))


def read(path: Path, content: bytes) -> tuple[list[tuple[int, int, bytes]], list[str]]:
    """Return time, link and bytes of each packet, and what is wrong with the file."""
    path.write_bytes(content)
    capture = CaptureFile(path)
    found = [
        (
            int(f["ts_ns"]),
            int(f["link"]),
            bytes(batch.data[int(f["at"]) : int(f["at"]) + int(f["captured"])]),
        )
        for batch in capture.batches()
        for f in batch.frames
    ]
    return found, capture.problems


def option(code: int, value: bytes, order: str = "<") -> bytes:
    head = struct.pack(f"{order}HH", code, len(value))
    return head + value + bytes(-len(value) % 4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_interfaces_differ_in_link_resolution_and_offset(order: str, tmp_path: Path) -> None:
    offset = option(14, struct.pack(f"{order}q", 1000), order)
    content = made.section(order)
    content += made.interface(1, order)
    content += made.interface(101, order, option(9, b"\x09", order) + bytes(4))
    content += made.interface(113, order, offset + option(9, b"\x8a", order))
    content += made.enhanced(0, 5, FRAME, order)
    content += made.enhanced(1, 5, FRAME, order)
    content += made.enhanced(2, 1536, FRAME, order)
    # A new section knows none of the old interfaces, and may be of the other byte order.
    other = ">" if order == "<" else "<"
    content += made.section(other) + made.interface(276, other) + made.enhanced(0, 7, FRAME, other)
    found, problems = read(tmp_path / "x.pcapng", content)
    assert found == [
        (5000, 1, FRAME), (5, 101, FRAME), (1001_500_000_000, 113, FRAME), (7000, 276, FRAME),
    ]  # fmt: skip
    assert problems == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_simple_and_obsolete_packets(order: str, tmp_path: Path) -> None:
    old = struct.pack(f"{order}HH4I", 0, 0, 0, 9, len(FRAME), 2000) + FRAME + bytes(-len(FRAME) % 4)
    content = made.section(order) + made.interface(1, order, snap=20)
    content += made.block(2, old, order)
    content += made.block(3, struct.pack(f"{order}I", 2000) + FRAME[:20], order)
    content += made.block(0x0BAD, bytes(40), order)
    content += made.enhanced(0, 11, FRAME, order)
    found, problems = read(tmp_path / "x.pcapng", content)
    assert found == [(9000, 1, FRAME), (9000, 1, FRAME[:20]), (11000, 1, FRAME)]
    assert problems == []


def test_every_cut_gives_what_was_whole(tmp_path: Path) -> None:
    content = made.section() + made.interface(1)
    begins = []
    for ticks in range(3):
        begins.append(len(content))
        content += made.enhanced(0, ticks, FRAME)
    for size in range(28, len(content)):
        found, problems = read(tmp_path / "x.pcapng", content[:size])
        whole = [end <= size for end in [*begins[1:], len(content)]]
        assert len(found) == sum(whole)
        assert bool(problems) == (size not in (28, *begins))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (made.enhanced(1, 5, FRAME), "interface 1, which nothing describes"),
        (made.enhanced(0, 5, FRAME)[:-4] + bytes(4), "two lengths"),
        (made.block(6, struct.pack("<5I", 0, 0, 5, 4000, 4000) + FRAME + b"\0"), "4000 bytes were"),
        (made.block(6, bytes(8)), "wanted at least 32"),
        (made.block(3, bytes(0)), "a packet block is 12 bytes"),
        (made.block(2, struct.pack("<HH4I", 9, 0, 0, 5, 0, 0)), "interface 9"),
        (made.block(2, struct.pack("<HH4I", 0, 0, 0, 5, 999, 0)), "999 bytes were"),
    ],
)
def test_a_damaged_block_is_left_out_and_named(block: bytes, message: str, tmp_path: Path) -> None:
    begin = made.section() + made.interface(1)
    found, problems = read(tmp_path / "x.pcapng", begin + block + made.enhanced(0, 6, FRAME))
    assert found == [(6000, 1, FRAME)]
    assert message in problems[0]
    assert f"offset {len(begin)}" in problems[0]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (struct.pack("<II", 6, 2) + bytes(40), "says that it is 2 bytes long"),
        (struct.pack("<II", 6, 2**31) + bytes(40), "bytes long"),
        (struct.pack("<II", 99, 2**31) + bytes(40), "ends within a block"),
        (struct.pack("<IIII", 0x0A0D0D0A, 2**31, 0x1A2B3C4D, 1) + bytes(40), "bytes long"),
        (struct.pack("<II", 1, 2**31) + bytes(4), "bytes long"),
        (made.block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)), "version"),
    ],
)
def test_what_cannot_be_read_on_ends_the_reading(
    block: bytes, message: str, tmp_path: Path
) -> None:
    begin = made.section() + made.interface(1) + made.enhanced(0, 5, FRAME)
    found, problems = read(tmp_path / "x.pcapng", begin + block)
    assert found == [(5000, 1, FRAME)]
    assert message in problems[0]


@pytest.mark.parametrize(
    "per_second", [1, 10**3, 10**6, 10**9, 10**10, 2**32, 2**50, 10**12, 10**100]
)
@pytest.mark.parametrize("offset", [0, 1_700_000_000, -5])
def test_times_are_exact_for_every_resolution(per_second: int, offset: int) -> None:
    interface = Interface(1, 0, per_second, offset)
    ticks = [0, 1, per_second - 1, per_second, 10 * per_second + 3, 2**64 - 1, 12345678901234]
    ticks = [tick for tick in ticks if tick < 2**64]
    wanted = [offset * 10**9 + tick * 10**9 // per_second for tick in ticks]
    wanted = [ns if 0 <= ns < 2**32 * 10**9 else -1 for ns in wanted]
    assert interface.unix_ns(np.array(ticks, "u8")).tolist() == wanted


def test_no_mutated_file_breaks_the_reading(tmp_path: Path, is_long: bool) -> None:
    rng = random.Random(1)
    whole = b"".join(
        made.section(order) + made.interface(1, order, option(9, b"\x09", order) + bytes(4))
        + made.enhanced(0, 5, FRAME, order) + made.block(3, bytes(4) + FRAME[:20], order)
        + made.block(2, bytes(20) + FRAME[:20], order) + made.block(5, bytes(12), order)
        for order in "<>"
    )  # fmt: skip
    count = 0
    for _ in range(20_000 if is_long else 500):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(28, len(content))] = rng.choice(
                [0, 1, 2, 3, 6, 255, rng.randrange(256)]
            )
        found, _ = read(
            tmp_path / "x.pcapng", bytes(content[: rng.randrange(28, len(content) + 1)])
        )
        count += len(found)
    assert count > 500
