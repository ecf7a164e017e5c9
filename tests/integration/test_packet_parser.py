"""bpf/packet.h in the kernel and as plain C, against tshark's reading of the same frames."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from frames import UNREADABLE, Flow, Reading, random_frames, read_by_tshark, read_capture, sum_up

from perfmeasure.flows import bpfcall, keys
from perfmeasure.flows.loader import BPF_FOLDER
from perfmeasure.flows.windows import Windows

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

TEST_RUN_BYTES = 3400
HOUR_NS = 3600 * 10**9
FOUND = np.dtype([("verdict", "u4"), ("tcp_flags", "u4"), ("key", keys.KEY)])

# What a parser may get wrong: the right text in packet.h and a wrong one.
MUTANTS = {
    "ip options are taken for ports": ("length = (at[0] & 15) * 4;", "length = 20;"),
    "a second tag is not looked behind": ("PACKET_MAX_TAGS = 2", "PACKET_MAX_TAGS = 1"),
    "later fragments have ports": ("packet_u16(at + 6) & 0x1fff", "0"),
    "don't-fragment is an offset": ("packet_u16(at + 6) & 0x1fff", "packet_u16(at + 6)"),
    "routing headers end the chain": ("1ull << PACKET_ROUTING |", ""),
    "AH counts in 8 bytes": ("(8 - 4 * is_ah)", "8"),
    "fragment headers have a length": ("is_fragment * 8 +", "is_fragment * length +"),
    "padding is read as ports": ("if (left < length || at", "if (at"),
    "ports are mixed up": ("dst_port = packet_u16(at + 2);", "dst_port = packet_u16(at);"),
}


def key_of(key: np.void) -> Flow:
    return (
        keys.address_text(key["src_ip"].tobytes()),
        keys.address_text(key["dst_ip"].tobytes()),
        int(key["src_port"]),
        int(key["dst_port"]),
        int(key["protocol"]),
    )


def load(folder: Path = BPF_FOLDER) -> Windows:
    return Windows(HOUR_NS, file_name=str(folder / "flows.bpf.c"))


@pytest.fixture(scope="module")
def program(require: Callable[..., None]) -> Windows:
    require("root", "bpf")
    return load()


def read_by_kernel(windows: Windows, function: str, frames: list[bytes]) -> Reading:
    """Run the program on each frame, and return what its tables hold."""
    windows.begin()
    for frame in frames:
        bpfcall.test_run(windows.program.fd(function), frame)
    swept = windows.finish()
    unparsed = keys.Total()
    for window in swept:
        window.terms.check("replay")
        unparsed = unparsed.plus(window.terms.unparsed)
    table = keys.merge([window.flows for window in swept])
    flows = {key_of(row): (int(row["packets"]), int(row["bytes"])) for row in table}
    return Reading(flows, (unparsed.packets, unparsed.bytes))


def taken(
    function: str, frames: list[bytes], flows: list[Flow | None]
) -> tuple[list[bytes], list[Flow | None]]:
    """Return the frames that a test run takes: of one page, and for tc with the IP header whole."""
    least = {b"\x08\x00": 34, b"\x86\xdd": 54} if function != "count_xdp" else {}
    kept = [
        number
        for number, frame in enumerate(frames)
        if least.get(frame[12:14], 15 if least else 14) <= len(frame) <= TEST_RUN_BYTES
    ]
    return [frames[i] for i in kept], [flows[i] for i in kept]


def build(folder: Path, headers: Path = BPF_FOLDER) -> Path:
    """Compile packet.h as plain C, with what finds reads beyond a frame."""
    program = folder / "parse_frames"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover"]
    flags.append("-fsanitize=address,undefined")
    source = Path(__file__).with_name("parse_frames.c")
    subprocess.run(["cc", *flags, f"-I{headers}", "-o", program, source], check=True)
    return program


@pytest.fixture(scope="module")
def plain_c(require: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("cc")
    return build(tmp_path_factory.mktemp("plain"))


def read_by_c(program: Path, frames: list[bytes]) -> list[Flow | None]:
    data = b"".join(struct.pack("=I", len(frame)) + frame for frame in frames)
    ran = subprocess.run([program], input=data, capture_output=True, check=True)
    found = np.frombuffer(ran.stdout, FOUND)
    return [None if row["verdict"] else key_of(row["key"]) for row in found]


def readable(frames: list[bytes], folder: Path) -> tuple[list[bytes], list[Flow | None]]:
    """Return the frames that tshark can read, with its readings."""
    flows = read_by_tshark(frames, folder)
    pairs = [pair for pair in zip(frames, flows, strict=True) if pair[1] != UNREADABLE]
    assert len(pairs) > 0.99 * len(frames)
    return [frame for frame, _ in pairs], [flow for _, flow in pairs]


def mutate(folder: Path, mutant: str) -> Path:
    """Return a copy of bpf/ with one mistake in it."""
    copy = folder / "bpf"
    copy.mkdir()
    for path in BPF_FOLDER.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    right, wrong = MUTANTS[mutant]
    text = (copy / "packet.h").read_text()
    assert text.count(right) == 1
    (copy / "packet.h").write_text(text.replace(right, wrong))
    return copy


@pytest.fixture(scope="module")
def corpus(
    require: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[bytes], list[Flow | None]]:
    """100,000 frames and tshark's reading of them."""
    require("tshark")
    return readable(random_frames(100_000), tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("function", ["count_xdp", "count_ingress", "count_egress"])
def test_the_kernel_reads_100_000_random_frames_as_tshark_does(
    function: str, corpus: tuple[list[bytes], list[Flow | None]], program: Windows
) -> None:
    frames, flows = taken(function, *corpus)
    assert len(frames) > 0.95 * len(corpus[0])
    assert read_by_kernel(program, function, frames) == sum_up(frames, flows)


def test_plain_c_reads_each_random_frame_as_tshark_does(
    corpus: tuple[list[bytes], list[Flow | None]], plain_c: Path
) -> None:
    frames, flows = corpus
    assert read_by_c(plain_c, frames) == flows


def test_the_corpus_has_all_kinds(corpus: tuple[list[bytes], list[Flow | None]]) -> None:
    _, flows = corpus
    parsed = [flow for flow in flows if flow is not None]
    assert 0.1 * len(flows) < len(flows) - len(parsed) < 0.4 * len(flows)
    assert {flow[4] for flow in parsed} >= {1, 6, 17, 47, 50, 58, 89, 132, 253}
    assert len({":" in flow[0] for flow in parsed}) == 2
    assert sum(flow[4] == 17 and not flow[2] for flow in parsed) > 1000  # later fragments


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_in_the_parser_is_found(
    mutant: str,
    corpus: tuple[list[bytes], list[Flow | None]],
    require: Callable[..., None],
    tmp_path: Path,
) -> None:
    require("cc")
    frames, flows = corpus
    found = read_by_c(build(tmp_path, mutate(tmp_path, mutant)), frames[:5000])
    assert found != flows[:5000]


def test_a_mistake_is_found_in_the_kernel_too(
    corpus: tuple[list[bytes], list[Flow | None]], require: Callable[..., None], tmp_path: Path
) -> None:
    require("root", "bpf")
    frames, flows = corpus
    program = load(mutate(tmp_path, "ip options are taken for ports"))
    found = read_by_kernel(program, "count_xdp", frames[:5000])
    assert found != sum_up(frames[:5000], flows[:5000])


def captures() -> list[Path]:
    folders = [Path(__file__).parent.parent / "fixtures" / "packets"]
    if named := os.environ.get("PERFMEASURE_CAPTURES"):
        folders.append(Path(named))
    kinds = (".pcap", ".pcapng")
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in kinds]


@pytest.mark.parametrize("capture", captures(), ids=lambda path: path.name)
def test_captures_are_read_as_tshark_reads_them(
    capture: Path,
    program: Windows,
    plain_c: Path,
    require: Callable[..., None],
    tmp_path: Path,
) -> None:
    require("tshark")
    frames = read_capture(capture, tmp_path)
    if not frames:
        pytest.skip("no Ethernet frames in it")
    flows = read_by_tshark(frames, tmp_path)
    assert UNREADABLE not in flows
    assert read_by_c(plain_c, frames) == flows
    for function in ("count_xdp", "count_ingress"):
        some, their_flows = taken(function, frames, flows)
        assert read_by_kernel(program, function, some) == sum_up(some, their_flows)
