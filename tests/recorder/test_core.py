"""The extension against numpy; core.h and the extension under AddressSanitizer."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.recorder import core, plain
from perfmeasure.recorder.records import (
    CONNECTION,
    FRAME,
    INDEX_ROW,
    NO_CUTOFF,
    PACKET,
    Array,
)
from tests.recorder import made

_native = pytest.importorskip("perfmeasure.recorder._native", reason="no C extension was built")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ROOT = Path(__file__).resolve().parent.parent.parent


def frames_of(data: bytes) -> Array:
    frames = np.zeros(100_000, FRAME)
    count, _, _ = plain.walk_pcap(np.frombuffer(data, "u1"), 24, False, 1, 1, frames)
    return frames[:count]


@pytest.fixture(scope="module")
def some() -> tuple[bytes, Array, Array]:
    """A capture, its frames, its packets."""
    data = made.pcap(made.trace(3, 2000, connections=150))
    frames = frames_of(data)
    return data, frames, core.decode(data, frames)


def test_the_extension_is_in_use() -> None:
    assert core.IS_NATIVE


def test_without_it_numpy_is_in_use() -> None:
    code = "from perfmeasure.recorder import core; print(core.IS_NATIVE, core.pack.__module__)"
    environment = {**os.environ, "PERFMEASURE_PLAIN": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert ran.stdout.split()[0] == "False"


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_walk_alike(order: str) -> None:
    data = bytearray(made.pcap(made.trace(4, 300), order=order))
    rng = random.Random(5)
    for _ in range(200):
        room = rng.choice([200, 400])
        found: list[object] = []
        at = rng.choice([24, rng.randrange(len(data))])
        for walk in (_native.walk_pcap, plain.walk_pcap):
            frames = np.zeros(room, FRAME)
            found.append((walk(data, at, order == ">", 1000, 113, frames), frames.tobytes()))
        assert found[0] == found[1]
        data[rng.randrange(24, len(data))] = rng.randrange(256)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_walk_blocks_alike(order: str) -> None:
    blocks = [
        made.enhanced(i % 3, 2**40 + i, p.frame, order) for i, p in enumerate(made.trace(6, 99))
    ]
    data = bytearray(b"".join(blocks))
    rng = random.Random(7)
    for _ in range(300):
        found = []
        for walk in (_native.walk_pcapng, plain.walk_pcapng):
            frames = np.zeros(80, FRAME)
            found.append((walk(data, 0, order == ">", 3, frames), frames.tobytes()))
        assert found[0] == found[1]
        data[rng.randrange(len(data))] = rng.choice([0, 1, 6, 255])


def test_both_count_rows_alike(some: tuple[bytes, Array, Array]) -> None:
    _, frames, packets = some
    found = []
    for is_native in (True, False):
        rows = np.zeros(1000, INDEX_ROW)
        table = core.make_table(rows, np.zeros(0, "u4"), 1000) if is_native else {}
        groups = np.zeros(len(frames), "u4")
        index = _native.index_packets if is_native else plain.index_packets
        # In two steps, of which the first runs out of rows.
        done, used = index(packets, frames, len(frames), table, rows[:50], 0, groups)
        assert (used, done < len(frames)) == (50, True)
        more, used = index(
            packets[done:], frames[done:], len(frames) - done, table, rows, used, groups[done:]
        )
        assert done + more == len(frames)
        rows["hash"] = 0
        found.append((used, rows.tobytes(), groups.tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("cutoff", [0, 1, 700, 15000, NO_CUTOFF])
@pytest.mark.parametrize("timeout_ns", [0, 4_000_000])
@pytest.mark.parametrize("by_flags", [False, True])
def test_both_follow_and_cut_alike(cutoff: int, timeout_ns: int, by_flags: bool) -> None:
    rng = random.Random(8)
    packets_made = []
    for ts_ns, _ in made.trace(9, 1500):
        flags = rng.choice([made.SYN, made.ACK, made.ACK, made.FIN | made.ACK, made.RST, 18])
        ends = [("10.0.0.1", 80), ("10.0.0.2", rng.randrange(1024, 1030))]
        rng.shuffle(ends)
        packets_made.append(
            made.Timed(
                ts_ns, made.ethernet(made.tcp(*ends[0], *ends[1], rng.randrange(900), flags))
            )
        )
    data = made.pcap(packets_made)
    frames = frames_of(data)
    packets = core.decode(data, frames)
    found = []
    for is_native in (True, False):
        rows = np.zeros(2000, CONNECTION)
        table = core.make_table(rows, np.zeros(0, "u4"), 2000) if is_native else {}
        slots, keep = np.zeros(len(frames), "u4"), np.zeros(len(frames), "u1")
        module = _native if is_native else plain
        done, used = module.follow(
            packets, frames, len(frames), table, rows, 0, timeout_ns, by_flags, cutoff, slots
        )
        assert done == len(frames)
        module.account(frames, slots, len(frames), rows, used, keep)
        found.append((used, rows.tobytes(), slots.tobytes(), keep.tobytes()))
    assert found[0] == found[1]
    assert found[0][0] > 6 or not (timeout_ns or by_flags)


def test_both_pack_sort_and_read_alike(some: tuple[bytes, Array, Array]) -> None:
    data, frames, _ = some
    rng = np.random.default_rng(1)
    found = []
    for module in (_native, plain):
        out, places = np.zeros(len(data) - 24, "u1"), np.zeros(len(frames), "u4")
        written = module.pack(data, frames, len(frames), 24, out, places)
        assert out.tobytes() == data[24:]
        again = np.zeros(len(frames), FRAME)
        assert module.headers(data, places, len(frames), 1, again) == len(frames)
        assert again.tobytes() == frames.tobytes()
        assert module.headers(data[:-1], places, len(frames), 1, again) == len(frames) - 1
        found.append((written, places.tobytes()))
    assert found[0] == found[1]
    groups = rng.integers(0, 10, len(frames)).astype("u4")
    rank = rng.permutation(10).astype("u4")
    sizes = np.bincount(rank[groups], minlength=10)
    sorted_places = []
    for module in (_native, plain):
        starts = (np.cumsum(sizes) - sizes).astype("u4")
        out = np.zeros(len(frames), "u4")
        module.sort(groups, np.arange(len(frames), dtype="u4"), len(frames), rank, 10, starts, out)
        assert (starts == np.cumsum(sizes)).all()
        sorted_places.append(out.tolist())
    assert sorted_places[0] == sorted_places[1]
    assert sorted_places[0] == sorted(range(len(frames)), key=lambda i: (rank[groups[i]], i))


def test_what_is_out_of_range_is_refused(some: tuple[bytes, Array, Array]) -> None:
    data, frames, packets = some
    far = frames.copy()
    far["at"][-1] = len(data) - 1
    out, places = np.zeros(len(data), "u1"), np.zeros(len(frames), "u4")
    rows = np.zeros(10, CONNECTION)
    for module in (_native, plain):
        with pytest.raises(ValueError, match="range"):
            module.decode(data, far, len(far), 1, packets.copy())
        with pytest.raises(ValueError, match="range"):
            module.pack(data, far, len(far), 24, out, places)
        with pytest.raises(ValueError, match="range"):
            module.pack(data, frames, len(frames), 2**32, out, places)
        slots = np.full(len(frames), 10, "u4")
        with pytest.raises(ValueError, match="range"):
            module.account(frames, slots, len(frames), rows, 10, np.zeros(len(frames), "u1"))
    for short in (np.zeros(1, FRAME), np.zeros(0, PACKET)):
        with pytest.raises(ValueError, match="too short"):
            _native.decode(data, short, 2, 1, packets.copy())
    with pytest.raises(ValueError, match="power of 2"):
        _native.follow(
            packets, frames, 1, np.zeros(100, "u8"), rows, 0, 0, False, 0, np.zeros(1, "u4")
        )
    with pytest.raises(BufferError):
        _native.decode(data, frames, len(frames), 1, packets.tobytes())


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory, require: Callable[..., None]) -> Path:
    require("gcc")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_core"
    subprocess.run(
        ["gcc", "-O1", "-g", *SANITIZE, f"-I{ROOT / 'bpf'}", f"-I{ROOT / 'perfmeasure/recorder'}",
         "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-o", program,
         Path(__file__).with_name("fuzz_core.c")],
        check=True,
    )  # fmt: skip
    return program


def test_no_arguments_make_the_extension_leave_its_buffers(
    tmp_path: Path, is_long: bool, require: Callable[..., None]
) -> None:
    require("gcc")
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        pytest.skip(f"no Python.h in {include}")
    folders = [f"-I{folder}" for folder in (ROOT / "bpf", ROOT / "perfmeasure/recorder", include)]
    subprocess.run(
        ["gcc", "-O1", "-g", "-shared", "-fPIC", "-fno-strict-aliasing", *SANITIZE, *folders,
         "-o", tmp_path / "_native.so", ROOT / "perfmeasure/recorder/native.c"],
        check=True,
    )  # fmt: skip
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name=lib{name}.so"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",  # every object has memory of its own, which the sanitizer sees
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    calls = 100_000 if is_long else 3_000
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz_native.py"), str(calls), "1"],
        check=False, capture_output=True, text=True, timeout=1800, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    words = ran.stdout.split()
    assert len(words) == 22
    assert all(int(count) > calls // 100 for count in words[1::2]), ran.stdout


def varied() -> bytes:
    """A small capture with every kind of header."""
    a, b, c, d = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"
    chain = bytes([43, 0, 0, 0, 0, 0, 0, 0]) + bytes([44, 1]) + bytes(14) + bytes([51, 0, 0, 0] * 2)
    chain += bytes([6, 1]) + bytes(10)
    packets = [
        made.ethernet(made.tcp(a, 1, b, 2, 5)),
        made.ethernet(made.udp(c, 1, d, 2), vlans=(1, 2, 3)),
        made.ethernet(made.ip(c, d, 0, chain + bytes(30))),
        made.ethernet(made.ip(a, b, 132, bytes(12), options=bytes(8))),
        made.ethernet(bytes.fromhex("000010ff000021ff") + made.tcp(a, 1, b, 2), ether_type=0x8847),
        made.ethernet(bytes.fromhex("1100000100160021") + made.udp(a, 1, b, 2), ether_type=0x8864),
        made.ARP,
    ]
    return made.pcap([made.Timed(made.START_NS + i, frame) for i, frame in enumerate(packets)])


def test_no_cut_capture_is_read_past_its_end(fuzzer: Path, tmp_path: Path) -> None:
    capture = tmp_path / "one.pcap"
    capture.write_bytes(varied())
    ran = subprocess.run(
        [fuzzer, capture, "cuts"], check=False, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 1000


def test_no_mutated_record_is_read_past_its_end(
    fuzzer: Path, tmp_path: Path, is_long: bool
) -> None:
    pcapng = [made.section(), made.interface(1), made.interface(113)]
    pcapng += [made.enhanced(i % 2, i, p.frame) for i, p in enumerate(made.trace(2, 20))]
    for number, content in enumerate([varied(), b"".join(pcapng)]):
        capture = tmp_path / f"{number}.pcap"
        capture.write_bytes(content)
        records = 50_000 if is_long else 2_000
        ran = subprocess.run(
            [fuzzer, capture, str(records), str(number)],
            check=False,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert ran.returncode == 0, ran.stderr
        assert int(ran.stdout) >= records
