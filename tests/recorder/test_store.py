"""Answers are exactly what a walk over all packets finds: every index, every state of a store."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmeasure import jsonio
from perfmeasure.errors import InputError
from perfmeasure.recorder import core
from perfmeasure.recorder.answer import write_pcap
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.keys import INDEXES, parse_key
from perfmeasure.recorder.predicate import And, Match, Node, Not, Or, Times
from perfmeasure.recorder.records import Array
from perfmeasure.recorder.snapshot import StoreAt
from perfmeasure.recorder.store import Store
from perfmeasure.recorder.writer import Limits, StoreWriter
from tests.recorder import made
from tests.recorder.made import Timed

ROOT = Path(__file__).resolve().parent.parent.parent


class Truth:
    """All packets in time order, and their places in it by every key."""

    def __init__(self, packets: list[Timed]) -> None:
        self.packets = packets
        ordered = sorted(packets, key=lambda packet: packet.ts_ns)
        self.times = np.array([packet.ts_ns for packet in ordered])
        self.records = [made.pcap([packet])[24:] for packet in ordered]
        places: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in INDEXES}
        for place, packet in enumerate(ordered):
            for index, keys in made.keys_of(packet.frame).items():
                for key in set(keys):
                    places[index][key].append(place)
        self.by_key = {
            index: {key: np.array(found) for key, found in keys.items()}
            for index, keys in places.items()
        }

    def bytes_of(self, places: Array) -> bytes:
        """Return the records of packets, in time order."""
        return b"".join(self.records[place] for place in places.tolist())

    def within(self, places: Array, first_ns: int, last_ns: int) -> Array:
        """Return those of the places that are of the time."""
        times = self.times[places]
        found: Array = places[(times >= first_ns) & (times <= last_ns)]
        return found


def record(writer: StoreWriter, path: Path, name: str = "all") -> None:
    for batch in CaptureFile(path).batches():
        writer.append(name, batch.data, batch.frames, core.decode(batch.data, batch.frames))


def answer(store: Store, node: Node) -> bytes:
    """Return the records of the packets that match, in the order in which they come."""
    out = io.BytesIO()
    write_pcap(store.packets(node), out)
    return out.getvalue()[24:]


def check(store: Store, truth: Truth, count: int, seed: int = 1) -> None:
    """Compare the answers to ``count`` random keys and times of every index."""
    rng = random.Random(seed)
    for index in INDEXES:
        keys = list(truth.by_key[index])
        for number in range(count):
            key = rng.choice(keys)
            wanted = truth.by_key[index][key]
            node: Node = Match(parse_key(index, key))
            if number % 4:
                first_ns, last_ns = sorted(
                    int(truth.times[rng.randrange(len(truth.times))]) for _ in "ab"
                )
                wanted = truth.within(wanted, first_ns, last_ns)
                node = And((node, Times(first_ns, last_ns)))
            found = answer(store, node)
            assert found == truth.bytes_of(wanted), (index, key, node)
            if number % 10 == 0:
                counts = store.count(node)
                assert (counts.packets, counts.bytes + 16 * counts.packets) == (
                    len(wanted),
                    len(found),
                )
    assert store.problems == []


@pytest.fixture(scope="module")
def count(is_long: bool) -> int:
    """Return how many keys and times of every index are asked for."""
    return 200 if is_long else 20


@pytest.fixture(scope="module")
def truth(is_long: bool) -> Truth:
    return Truth(made.trace(1, 1_000_000 if is_long else 100_000, 10_000 if is_long else 2_000))


@pytest.fixture(scope="module")
def capture(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capture") / "trace.pcap"
    path.write_bytes(made.pcap(truth.packets))
    return path


def small(capture: Path) -> dict[str, Limits]:
    """Return limits by which the capture becomes about 20 segments."""
    return {"all": Limits(segment_bytes=capture.stat().st_size // 20)}


def test_in_memory(truth: Truth, capture: Path, count: int, tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    record(writer, capture)
    assert not list(tmp_path.rglob("*.npz"))
    check(StoreAt(tmp_path, writer.snapshot()), truth, count)
    writer.close()


def test_across_memory_and_disk_and_after_a_restart(
    truth: Truth, capture: Path, count: int, tmp_path: Path
) -> None:
    writer = StoreWriter(tmp_path, small(capture))
    record(writer, capture)
    assert len(list(tmp_path.rglob("*.pcap.part"))) == 1
    check(StoreAt(tmp_path, writer.snapshot()), truth, max(count, 100))
    check(Store(tmp_path), truth, 8, seed=2)  # another process: it has the files alone
    writer.close()
    assert not list(tmp_path.rglob("*.part"))
    check(Store(tmp_path), truth, count, seed=3)
    again = StoreWriter(tmp_path)
    assert again.messages == []
    again.close()
    assert list(tmp_path.glob("levels/1-*"))
    check(Store(tmp_path), truth, count, seed=4)


def test_after_deleting_indexes_levels_and_catalogue(
    truth: Truth, capture: Path, count: int, tmp_path: Path
) -> None:
    writer = StoreWriter(tmp_path, small(capture))
    record(writer, capture)
    writer.close()
    indexes = sorted(tmp_path.rglob("segments/*/*.npz"))
    for index in indexes[::2]:
        index.unlink()
    indexes[1].write_bytes(indexes[1].read_bytes()[:1000])
    reader = Store(tmp_path)
    key, numbers = next(iter(truth.by_key["port"].items()))
    assert answer(reader, Match(parse_key("port", key))) == truth.bytes_of(numbers)
    assert sum("indexed anew" in problem for problem in reader.problems) == 1 + len(indexes[::2])
    shutil.rmtree(tmp_path / "levels")
    for path in tmp_path.glob("catalogue*"):
        path.unlink()
    (tmp_path / "catalogue.sqlite").write_bytes(b"no database" * 1000)
    reader = Store(tmp_path)
    assert answer(reader, Match(parse_key("port", key))) == truth.bytes_of(numbers)
    writer = StoreWriter(tmp_path)
    assert len(writer.messages) == 2 + len(indexes[::2])
    writer.close()
    check(Store(tmp_path), truth, count)


@pytest.mark.parametrize("is_torn", [False, True])
def test_after_kill_9_in_mid_write(
    truth: Truth, capture: Path, count: int, tmp_path: Path, is_torn: bool
) -> None:
    fifo, folder = tmp_path / "fifo", tmp_path / "store"
    os.mkfifo(fifo)
    size = str(capture.stat().st_size // 20)
    process = subprocess.Popen(
        [sys.executable, "-m", "perfmeasure", "record", "-r", fifo, "--store", folder,
         "--segment-size", size],
        cwd=ROOT,
    )  # fmt: skip
    content = capture.read_bytes()

    def feed() -> None:
        with fifo.open("wb", buffering=0) as out:
            try:
                out.write(content[: len(content) * 2 // 3])
                done.wait(60)
            except BrokenPipeError:
                pass

    done = threading.Event()
    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for _ in range(600):
            # Enough is written, and a segment is open that has packets.
            parts = list(folder.rglob("*.pcap.part"))
            if len(list(folder.rglob("*.pcap"))) > 8 and parts and parts[0].stat().st_size > 24:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    finally:
        process.kill()
        done.set()
        feeder.join(60)
    parts = list(folder.rglob("*.pcap.part"))
    if is_torn:  # the kill itself may do so as well, or come between two segments
        for part in parts:
            with part.open("ab") as out:
                out.write(b"half a record")
        orphan = folder / "segments/all/00009999.npz"
        orphan.write_bytes(b"")
    before = Store(folder).count(Not(Or(()))).packets
    assert 100 < before <= len(truth.packets) * 2 // 3 + 1
    known = Truth(truth.packets[:before])
    check(Store(folder), known, 3)
    writer = StoreWriter(folder)
    said = "\n".join(writer.messages)
    assert not parts or "indexed anew" in said
    if is_torn:
        assert not parts or "cut off" in said
        assert f"{orphan}: an index without its segment" in said
    writer.close()
    assert not list(folder.rglob("*.part"))
    check(Store(folder), known, count)


def test_ports_match_in_any_order_of_the_ends_but_not_swapped(tmp_path: Path) -> None:
    """The original's version 0.1-13 found the swapped ones as well."""
    packet = made.ethernet(made.tcp("10.0.0.1", 80, "10.0.0.2", 88))
    (tmp_path / "one.pcap").write_bytes(made.pcap([Timed(made.START_NS, packet)]))
    writer = StoreWriter(tmp_path / "store")
    record(writer, tmp_path / "one.pcap")
    for store in (StoreAt(tmp_path / "store", writer.snapshot()), Store(tmp_path / "store")):
        for index, key, count in [
            ("connection4", "tcp 10.0.0.1:80 10.0.0.2:88", 1),
            ("connection4", "tcp 10.0.0.2:88 10.0.0.1:80", 1),
            ("connection4", "tcp 10.0.0.1:88 10.0.0.2:80", 0),
            ("connection4", "tcp 10.0.0.2:80 10.0.0.1:88", 0),
            ("connection4", "udp 10.0.0.1:80 10.0.0.2:88", 0),
            ("connection3", "tcp 10.0.0.1 10.0.0.2:88", 1),
            ("connection3", "tcp 10.0.0.2 10.0.0.1:80", 1),
            ("connection3", "tcp 10.0.0.1 10.0.0.2:80", 0),
        ]:
            assert store.count(Match(parse_key(index, key))).packets == count, key
    writer.close()


def test_time_ranges_hold_for_packets_in_memory(tmp_path: Path) -> None:
    """The original gave all that was in memory, whatever the range."""
    packets = [
        Timed(made.START_NS + i * 10**9, made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2)))
        for i in range(100)
    ]
    (tmp_path / "one.pcap").write_bytes(made.pcap(packets))
    writer = StoreWriter(tmp_path / "store")
    record(writer, tmp_path / "one.pcap")
    store = StoreAt(tmp_path / "store", writer.snapshot())
    node = Times(made.START_NS + 10 * 10**9, made.START_NS + 19 * 10**9)
    assert store.count(And((Match(parse_key("ip", "10.0.0.1")), node))).packets == 10
    assert store.count(Not(node)).packets == 90
    writer.close()


def test_answers_of_several_classes_and_links_are_in_time_order(tmp_path: Path) -> None:
    packets = made.trace(5, 3000, 50)
    writer = StoreWriter(tmp_path / "store", {"a": Limits(20_000), "b": Limits(30_000)})
    for number in range(0, 3000, 100):
        path = tmp_path / "part.pcap"
        path.write_bytes(made.pcap(packets[number : number + 100]))
        record(writer, path, "ab"[number // 100 % 2])
    store = StoreAt(tmp_path / "store", writer.snapshot())
    everything = Not(Or(()))
    times = [int(f["ts_ns"]) for chunk in store.packets(everything) for f in chunk.frames]
    assert times == sorted(packet.ts_ns for packet in packets)
    writer.close()


@pytest.mark.parametrize("inactivity_ms", [0, 1, 5, 10**6])
def test_intervals_end_with_the_period_of_inactivity(inactivity_ms: int, tmp_path: Path) -> None:
    packets = made.trace(5, 3000, 50)
    (tmp_path / "one.pcap").write_bytes(made.pcap(packets))
    writer = StoreWriter(tmp_path / "store", {"all": Limits(segment_bytes=50_000)})
    record(writer, tmp_path / "one.pcap")
    found = StoreAt(tmp_path / "store", writer.snapshot()).intervals(
        Match(parse_key("port", "9001")), inactivity_ms / 1000
    )
    writer.close()
    wanted: list[tuple[int, int]] = []
    for ts_ns, frame in sorted(packets):
        if "9001" not in made.keys_of(frame).get("port", ()):
            continue
        if wanted and ts_ns - wanted[-1][1] <= inactivity_ms * 10**6:
            wanted[-1] = (wanted[-1][0], ts_ns)
        else:
            wanted.append((ts_ns, ts_ns))
    assert found == wanted
    assert len(wanted) > 1 or inactivity_ms == 10**6


@pytest.mark.parametrize("size", [9018, 65549, 262_144])
def test_large_frames_are_kept_whole(size: int, tmp_path: Path) -> None:
    """The original took 8192 bytes of a frame."""
    frame = made.ethernet(made.tcp("10.0.0.1", 80, "10.0.0.2", 1024)).ljust(size, b"x")
    (tmp_path / "one.pcap").write_bytes(made.pcap([Timed(made.START_NS, frame)] * 2))
    writer = StoreWriter(tmp_path / "store")
    record(writer, tmp_path / "one.pcap")
    writer.close()
    found = answer(Store(tmp_path / "store"), Match(parse_key("port", "80")))
    assert found == made.pcap([Timed(made.START_NS, frame)] * 2)[24:]


def test_lost_packets_are_named_in_every_answer_that_they_touch(tmp_path: Path) -> None:
    packets = made.trace(5, 200, 50)
    (tmp_path / "one.pcap").write_bytes(made.pcap(packets))
    writer = StoreWriter(tmp_path / "store")
    record(writer, tmp_path / "one.pcap")
    writer.add_drops(3)
    writer.rotate()
    record(writer, tmp_path / "one.pcap")
    writer.close()
    store = Store(tmp_path / "store")
    counts = store.count(Not(Or(())))
    assert (counts.packets, counts.drops) == (400, 3)
    # The catalogue is not the only place that knows.
    for path in (tmp_path / "store").glob("catalogue*"):
        path.unlink()
    StoreWriter(tmp_path / "store").close()
    assert Store(tmp_path / "store").count(Not(Or(()))).drops == 3


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no store"):
        Store(tmp_path)


# ---- against tshark -----------------------------------------------------------------------------

FIELDS = (
    "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport",
    "udp.srcport", "udp.dstport",
)  # fmt: skip


def tshark(path: Path, *options: str) -> str:
    ran = subprocess.run(
        ["tshark", "-r", path, "-n", *options], capture_output=True, check=False, timeout=120
    )
    return ran.stdout.decode("utf-8", "replace")


def frames_of(path: Path) -> list[Timed]:
    """Return times and bytes of all frames, as tshark reads them."""
    found = []
    for item in jsonio.loads(tshark(path, "-T", "json", "-x", "-j", "frame") or "[]"):
        layers = item["_source"]["layers"]
        ts_ns = int(Decimal(layers["frame"]["frame.time_epoch"]) * 10**9)
        found.append(Timed(ts_ns, bytes.fromhex(layers.get("frame_raw", [""])[0])))
    return found


def dissected(path: Path) -> list[made.Fields]:
    """Return the outermost addresses and ports of each packet, as tshark sees them."""
    options = ["-E", "occurrence=f", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]
    names = [word for name in FIELDS for word in ("-e", name)]
    found = []
    for line in tshark(path, "-T", "fields", *options, *names).splitlines():
        row = dict(zip(FIELDS, line.split("\t"), strict=True))
        layers = row["frame.protocols"].split(":")
        kinds = [layer for layer in layers if layer in {"ip", "ipv6", "icmp", "icmpv6", "gre"}]
        kind = next((layer for layer in layers if layer in {"tcp", "udp"}), "")
        before = layers[: layers.index(kind)] if kind else []
        is_own = kind and [layer for layer in before if layer in kinds] in (["ip"], ["ipv6"])
        src, dst = (row[f"{kinds[0]}.{end}"] if kinds else "" for end in ("src", "dst"))
        ports = [row[f"{kind}.{end}port"] if is_own else "" for end in ("src", "dst")]
        if not (src and dst):  # the frame is cut within them
            src = dst = ""
        if "" in ports:
            ports = ["0", "0"]
        protocol = {"tcp": 6, "udp": 17}[kind] if ports != ["0", "0"] else -1
        found.append(made.Fields(src, dst, int(ports[0]), int(ports[1]), protocol))
    return found


def compare_with_tshark(path: Path, folder: Path) -> int:
    """Check that each key of each packet finds the same frames; return the number of packets."""
    writer = StoreWriter(folder, {"all": Limits(segment_bytes=100_000)})
    record(writer, path)
    writer.close()
    frames = frames_of(path)
    rows = dissected(path)
    assert len(rows) == len(frames)
    expected: dict[tuple[str, str], list[Timed]] = defaultdict(list)
    for row, frame in zip(rows, frames, strict=True):
        keys = made.keys_of_fields(row)
        if row.protocol < 0:
            keys = {name: keys.get(name, []) for name in ("connection2", "ip", "srcip", "dstip")}
        for index, values in keys.items():
            for value in set(values):
                expected[index, value].append(frame)
    store = Store(folder)

    def found(node: Node) -> list[Timed]:
        chunks = list(store.packets(node))
        return [
            Timed(int(frame["ts_ns"]), bytes(segment.record(frame)[16:]))
            for chunk in chunks
            for segment, frame in chunk.records()
        ]

    for (index, key), wanted in expected.items():
        answered = found(Match(parse_key(index, key)))
        assert sorted(answered) == sorted(wanted), (path.name, index, key)
        assert [packet.ts_ns for packet in answered] == sorted(packet.ts_ns for packet in wanted)
    assert sorted(found(Not(Or(())))) == sorted(frames)
    store.close()
    return len(rows)


def test_made_captures_of_every_link_agree_with_tshark(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("tshark")
    a, b, c, d = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"
    both = [made.tcp(a, 80, b, 1000, 9), made.udp(c, 53, d, 999, 9), made.tcp(b, 1000, a, 80)]
    for link in (0, 1, 101, 108, 113, 276):
        packets = [Timed(made.START_NS + i, made.framed(p, link)) for i, p in enumerate(both)]
        path = tmp_path / f"{link}.pcap"
        path.write_bytes(made.pcap(packets, link=link))
        assert compare_with_tshark(path, tmp_path / f"of {path.name}") == 3
    path = tmp_path / "snapped.pcap"
    path.write_bytes(made.pcap(made.trace(3, 500, 60), snap=70))
    assert compare_with_tshark(path, tmp_path / "snapped") == 500


def test_made_captures_of_every_header_agree_with_tshark(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    """Fragments, extension headers, tags, labels, sessions and tunnels."""
    require("tshark")
    a, b, c, d = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"
    inner, other = made.tcp("192.168.1.1", 1234, "192.168.1.2", 4321), made.udp(c, 53, d, 999, 12)
    datagram = other[40:]
    hop, later = bytes([0, 0, 1, 4, 0, 0, 0, 0]), bytes([17, 0, 0, 16, 0, 0, 0, 9])
    first = bytes([17, 0, 0, 1, 0, 0, 0, 9])
    packets = [
        made.ip(c, d, 0, bytes([17]) + hop[1:] + datagram),
        made.ip(c, d, 44, first + datagram),
        made.ip(c, d, 44, later + bytes(16)),
        made.ip(c, d, 0, bytes([44]) + hop[1:] + later + bytes(16)),
        made.ip(a, b, 17, datagram, fragment=0x2000),
        made.ip(a, b, 17, bytes(16), fragment=0x2003),
        made.ip(a, b, 47, bytes.fromhex("00000800") + inner),
        made.ip(a, b, 4, inner),
        made.ip(b, a, 1, bytes([3, 3, 0, 0, 0, 0, 0, 0]) + inner[:28]),
    ]
    session = bytes.fromhex("11000001") + (len(inner) + 2).to_bytes(2, "big") + b"\0\x21"
    frames = [
        *map(made.ethernet, packets),
        made.ethernet(inner, vlans=(7, 8, 9)),
        made.ethernet(bytes.fromhex("000010ff000021ff") + inner, ether_type=0x8847),
        made.ethernet(session + inner, ether_type=0x8864),
        made.ARP,
    ]
    path = tmp_path / "in.pcap"
    path.write_bytes(made.pcap([Timed(made.START_NS + i, f) for i, f in enumerate(frames)]))
    assert compare_with_tshark(path, tmp_path / "store") == len(frames)


def captures() -> list[Any]:
    folder = os.environ.get("PERFMEASURE_CAPTURES", "")
    found = sorted(path for path in Path(folder).iterdir() if path.is_file()) if folder else []
    return found or [
        pytest.param(Path(), marks=pytest.mark.skip("PERFMEASURE_CAPTURES names none"))
    ]


@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_captures_of_others_agree_with_tshark(
    path: Path, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("tshark")
    assert compare_with_tshark(path, tmp_path / "store")
