"""Which packets are kept, against a plain account of the same packets."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.classes import PacketClass, Side
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.connections import Rules
from perfmeasure.recorder.keys import Connection, address_bytes, parse_key
from perfmeasure.recorder.recording import Recording
from perfmeasure.recorder.records import FRAME
from perfmeasure.recorder.writer import StoreWriter
from tests.recorder import made

SECOND = 10**9
Ends = tuple[str, int, str, int]


class Trial:
    """A recording of frames that are given one by one, in batches of random length."""

    def __init__(self, folder: Path, *classes: PacketClass, rules: Rules | None = None) -> None:
        self.folder = folder
        self.setup = Setup(classes=classes, rules=rules or Rules())
        self.writer = StoreWriter(folder, {each.name: each.limits for each in classes})
        self.recording = Recording(self.writer, self.setup)

    def add(self, packets: list[made.Timed], rng: random.Random | None = None) -> None:
        at = 0
        while at < len(packets):
            count = rng.randrange(1, 40) if rng else len(packets)
            batch = packets[at : at + count]
            at += count
            places = np.zeros(len(batch), FRAME)
            places["captured"] = places["original"] = [len(p.frame) for p in batch]
            places["at"] = np.cumsum(places["captured"]) - places["captured"]
            places["ts_ns"] = [p.ts_ns for p in batch]
            places["link"] = 1
            self.recording.add(b"".join(p.frame for p in batch), places)

    def kept(self) -> dict[str, list[bytes]]:
        """Close the store and return the frames in it by class."""
        self.writer.close()
        return stored(self.folder)


def stored(folder: Path) -> dict[str, list[bytes]]:
    """Return the frames of a store by class, in the order of its segments."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for path in sorted(folder.glob("segments/*/*.pcap")):
        for batch in CaptureFile(path).batches():
            found[path.parent.name] += [
                bytes(batch.data[int(f["at"]) : int(f["at"]) + int(f["captured"])])
                for f in batch.frames
            ]
    return dict(found)


def connection(text: str) -> Connection:
    key = parse_key("connection4", text)
    assert isinstance(key, Connection)
    return key


class Account:
    """What has to be kept of one class, worked out packet by packet."""

    def __init__(self, cutoff_bytes: int, rules: Rules) -> None:
        self.cutoff_bytes = cutoff_bytes
        self.rules = rules
        self.known: dict[Any, dict[str, Any]] = {}

    def keeps(self, ts_ns: int, ends: Ends, flags: int, size: int) -> bool:
        src, dst = ends[:2], ends[2:]
        key = frozenset((src, dst))
        row = self.known.get(key)
        if row is not None:
            timeout_ns = self.rules.timeout_seconds * 1e9
            is_late = timeout_ns > 0 and ts_ns - row["last"] > timeout_ns
            is_closed = row["reset"] or len(row["closed"]) == 2
            is_new = flags & (made.SYN | made.ACK) == made.SYN
            if is_late or (self.rules.ends_by_flags and is_closed and is_new):
                row = None
        if row is None:
            row = self.known[key] = {"bytes": 0, "closed": set(), "reset": False, "last": 0}
        row["last"] = ts_ns
        if flags & made.FIN:
            row["closed"].add(src)
        row["reset"] |= bool(flags & made.RST)
        is_kept = bool(row["bytes"] < self.cutoff_bytes)
        row["bytes"] += size
        return is_kept


def traffic(rng: random.Random, count: int) -> list[tuple[int, Ends, int, bytes]]:
    """Return packets of a few connections, with pauses, ends and 5-tuples that come again."""
    found = []
    now = made.START_NS
    for _ in range(count):
        now += rng.choice([1000, 10**6, 10**6, 4 * SECOND if rng.random() < 0.02 else 0])
        number = rng.randrange(9)
        ends: Ends = ("10.0.0.1", 1000 + number, "10.0.0.2", 80)
        if rng.random() < 0.5:
            ends = (*ends[2:], *ends[:2])
        flags = rng.choices(
            [made.ACK, made.SYN, made.FIN | made.ACK, made.RST, made.SYN | made.ACK],
            [30, 3, 3, 0.5, 1],
        )[0]
        frame = made.ethernet(made.tcp(*ends, rng.randrange(1200), flags))
        found.append((now, ends, flags, frame))
    return found


@pytest.mark.parametrize(
    "rules",
    [
        Rules(timeout_seconds=3, ends_by_flags=True),
        Rules(timeout_seconds=3, ends_by_flags=False),
        Rules(timeout_seconds=0, ends_by_flags=True),
        Rules(timeout_seconds=0, ends_by_flags=False),
    ],
)
def test_exactly_up_to_the_cutoff(tmp_path: Path, rules: Rules, is_long: bool) -> None:
    rng = random.Random(41)
    packets = traffic(rng, 100_000 if is_long else 4000)
    trial = Trial(tmp_path, PacketClass("all", cutoff_bytes=5000), rules=rules)
    account = Account(5000, rules)
    wanted = [p[3] for p in packets if account.keeps(p[0], p[1], p[2], len(p[3]))]
    trial.add([made.Timed(p[0], p[3]) for p in packets], rng)
    totals = trial.recording.totals
    cut_packets, cut_bytes = trial.recording.cut(0).tolist()
    assert trial.recording.seen() == (len(packets), sum(len(p[3]) for p in packets))
    assert trial.kept() == {"all": wanted}
    assert len(wanted) + cut_packets == len(packets)
    assert sum(map(len, wanted)) + cut_bytes == totals.bytes
    assert cut_packets > len(packets) // 4


def test_classes_go_to_folders_of_their_own(tmp_path: Path) -> None:
    frames = [p.frame for p in made.trace(42, 3000, connections=80)]
    trial = Trial(
        tmp_path,
        PacketClass("web", "port 80", 9, cutoff_bytes=3000),
        PacketClass("udp", "udp", 5),
    )
    trial.add([made.Timed(made.START_NS + n, frame) for n, frame in enumerate(frames)])
    none = trial.recording.classes.none
    counts = [trial.recording.cut(number)[0] for number in range(none + 1)]
    kept = trial.kept()
    assert set(kept) <= {"web", "udp"}
    assert counts[1] == 0, "udp has no cutoff"
    assert counts[none] > 0, "what no class takes is counted"
    assert sum(map(len, kept.values())) + sum(counts) == len(frames)


def test_frames_without_addresses_are_classified_each(tmp_path: Path) -> None:
    arp = made.ethernet(bytes(28), ether_type=0x0806)
    other = made.ethernet(bytes(40), ether_type=0x88CC)
    packets = [made.Timed(made.START_NS, frame) for frame in (arp, other, arp)]
    trial = Trial(tmp_path, PacketClass("arp", "arp", cutoff_bytes=50))
    trial.add(packets)
    assert trial.recording.cut(1).tolist() == [1, len(other)]
    assert trial.kept() == {"arp": [arp, arp]}


def one(flags: int = made.ACK, seconds: float = 0, port: int = 1000) -> made.Timed:
    frame = made.ethernet(made.tcp("10.0.0.1", port, "10.0.0.2", 80, 100, flags))
    return made.Timed(made.START_NS + round(seconds * 1e9), frame)


KEY = connection("tcp 10.0.0.1:1000 10.0.0.2:80")


def test_the_cutoff_of_one_connection_is_suspended(tmp_path: Path) -> None:
    trial = Trial(tmp_path, PacketClass("all", cutoff_bytes=1))
    other = one(port=1001)
    trial.add([one(), one(), other, other])
    trial.recording.suspend_cutoff(KEY)
    trial.add([one(), one(), other])
    trial.recording.suspend_cutoff(KEY, is_suspended=False)
    trial.add([one(), other])
    assert trial.recording.cut(0)[0] == 5
    assert trial.kept() == {"all": [one().frame, other.frame, one().frame, one().frame]}


def test_the_timeout_of_one_connection_is_suspended(tmp_path: Path) -> None:
    trial = Trial(
        tmp_path, PacketClass("all", cutoff_bytes=1), rules=Rules(timeout_seconds=10)
    )  # fmt: skip
    trial.add([one(), one(port=1001)])
    trial.recording.suspend_timeout(KEY)
    trial.add([one(seconds=20), one(seconds=20, port=1001)])
    trial.recording.suspend_timeout(KEY, is_suspended=False)
    trial.add([one(seconds=25), one(seconds=40)])
    kept = [one().frame, one(port=1001).frame, one(port=1001).frame, one().frame]
    assert trial.kept() == {"all": kept}, "the second pause ended the connection"


def test_an_address_is_assigned_to_a_class(tmp_path: Path) -> None:
    trial = Trial(tmp_path, PacketClass("all", cutoff_bytes=1), PacketClass("watch", "less 1"))
    trial.add([one(), one()])
    address = address_bytes("10.0.0.1")
    assert address is not None
    trial.recording.assign(address, "watch", Side.ORIGINATOR)
    trial.add([one(), one(port=7)])
    kept = trial.kept()
    assert kept == {"all": [one().frame], "watch": [one().frame, one(port=7).frame]}


def test_a_connection_that_is_not_under_way(tmp_path: Path) -> None:
    trial = Trial(tmp_path, PacketClass("all", cutoff_bytes=1))
    trial.add([one()])
    for text in ("tcp 10.0.0.1:80 10.0.0.2:1000", "udp 10.0.0.1:1000 10.0.0.2:80"):
        with pytest.raises(UsageError, match="not in the connection table"):
            trial.recording.suspend_cutoff(connection(text))
    row = trial.recording.connections.table[trial.recording.find(KEY)]
    assert (int(row["packets"]), int(row["bytes"])) == (1, len(one().frame))
    trial.writer.close()


def test_a_full_table_forgets_what_was_idle_longest(tmp_path: Path) -> None:
    trial = Trial(tmp_path, PacketClass("all", cutoff_bytes=1))
    trial.recording.connections._max = 100
    trial.add([one(seconds=port, port=port) for port in range(1, 151)])
    trial.add([one(seconds=200, port=150), one(seconds=200, port=1)])
    kept = trial.kept()["all"]
    assert len(kept) == 151, "the first port's connection began anew, the last one's did not"


def test_a_file_that_does_not_fit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(tmp_path, PacketClass("all"))

    def full(*_: object) -> None:
        raise MeasurementError("segment", "cannot be written (No space left on device)")

    monkeypatch.setattr(trial.writer, "append", full)
    with pytest.raises(MeasurementError, match="No space left"):
        trial.add([one()])
    assert not trial.recording.is_paused
    trial.writer.close()
