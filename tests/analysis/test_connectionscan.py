from __future__ import annotations

import lzma
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.analysis.clocksteps import ClockPair
from perfmeasure.analysis.connectionscan import (
    CollectorAbsent,
    CollectorLost,
    CollectorStarted,
    ConnectionScan,
    ConnectionSeen,
)
from perfmeasure.analysis.source import Counts
from tests.analysis import kernel_lines as kernel

if TYPE_CHECKING:
    from pathlib import Path

    from perfmeasure.analysis.source import Fact


def scanned(*lines: bytes) -> tuple[list[Fact], Counts]:
    scan, counts = ConnectionScan(), Counts()
    return [*scan.batch(1, list(lines), counts), *scan.end(counts)], counts


def rejected(text: str) -> str:
    facts, counts = scanned(text.encode())
    assert facts == []
    [reason] = counts.rejected
    return reason


@pytest.fixture(scope="module")
def real(fixtures: Path) -> list[bytes]:
    return lzma.open(fixtures / "kernel-run/kernel/connections.log.xz").read().splitlines()


def test_each_record() -> None:
    stamps = {"connect": 1.0, "established": 1.5}
    text = (
        kernel.start(0)
        + kernel.clock(0)
        + kernel.connection(2, 7, stamps=stamps, pid=3, bytes_sent=9, process_seen_at="connect")
        + kernel.line("lost", 3, count=4, what="ring_reservations")
        + kernel.line("absent", 4, reason="no cgroup v2")
        + kernel.line("stop", 5, reason="SIGTERM")
    )
    facts, counts = scanned(*text.encode().splitlines())
    assert [line for line, _, _ in facts] == [1, 2, 3, 4, 5]
    assert [ts - kernel.DAY for _, ts, _ in facts] == [0, 0, 2, 3, 4]
    assert (counts.used, counts.skipped, counts.rejected) == (5, 1, {})
    assert [fact for _, _, fact in facts] == [
        CollectorStarted(kernel.BOOT, "0.1.0", "vm", "6.1.0", "sockops", "cgroup", 1.0),
        ClockPair(1795305600_000000000, kernel.MONOTONIC_NS),
        ConnectionSeen(
            7, 1, "127.0.0.1", 5000, "127.0.0.1", 9050, 4, "active", False, "", "",
            {"connect": kernel.monotonic_ns(1), "established": kernel.monotonic_ns(1.5)},
            {"pid": 3, "bytes_sent": 9},
        ),
        CollectorLost("ring_reservations", 4),
        CollectorAbsent("no cgroup v2"),
    ]  # fmt: skip


def test_every_line_of_a_real_log_is_used(real: list[bytes]) -> None:
    facts, counts = scanned(*real)
    assert len(facts) == counts.used == len(real) - 1
    assert (counts.skipped, counts.rejected) == (1, {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"local_port": 65536}, "local_port is missing or garbled"),
        ({"remote_port": -1}, "remote_port is missing or garbled"),
        ({"cookie": 1.5}, "cookie is missing or garbled"),
        ({"cookie": None}, "cookie is missing or garbled"),
        ({"netns": True}, "netns is missing or garbled"),
        ({"side": "activf"}, "side is missing or garbled"),
        ({"state": "opeN"}, "state is missing or garbled"),
        ({"state": "closed"}, "end is missing or garbled"),
        ({"end": "fin_local"}, "end is missing or garbled"),
        ({"existed_before_start": 0}, "existed_before_start is missing or garbled"),
        ({"local_ip": "127.0.0.256"}, "local_ip is missing or garbled"),
        ({"remote_ip": "::1"}, "remote_ip is missing or garbled"),
        ({"family": 6}, "local_ip is missing or garbled"),
        ({"command": 7}, "command is missing or garbled"),
        ({"bytes_sent": "9"}, "bytes_sent is missing or garbled"),
        ({"closed_monotonic_ns": 5, "connect_monotonic_ns": 6}, "closed before connect"),
        ({"last_sent_monotonic_ns": 5, "first_sent_monotonic_ns": 6},
         "last_sent before first_sent"),
        ({"unix_ts": "now"}, "no time stamp"),
        ({"unix_ts": 0.0}, "no time stamp"),
        ({"record": "connectiom"}, "a record of a name that is not known"),
        ({"record": []}, "a record of a name that is not known"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_rejected_by_its_reason(change: dict[str, Any], reason: str) -> None:
    record = jsonio.loads(kernel.connection(1, 7))
    assert rejected(jsonio.compact({**record, **change})) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line is cut"),
        (kernel.start(0)[:-20], "line is cut"),
        ("[1]}", "no JSON object"),
        ('{"unix_ts":1e999}', "no time stamp"),
        (kernel.start(0, boot="x").strip(), "boot_id is missing or garbled"),
        (kernel.line("clock", 1, utc_ns=1, monotonic_ns=-1).strip(),
         "monotonic_ns is missing or garbled"),
        (kernel.line("lost", 1, what="", count=1).strip(), "what is missing or garbled"),
    ],
)  # fmt: skip
def test_other_damage(text: str, reason: str) -> None:
    assert rejected(text) == reason


def test_a_command_may_be_anything_that_is_text() -> None:
    [(_, _, fact)], _ = scanned(kernel.connection(1, 7, command="").strip().encode())
    assert isinstance(fact, ConnectionSeen)
    assert fact.command == ""


@settings(max_examples=200)
@given(data=st.data())
def test_a_cut_line_is_never_a_record(real: list[bytes], data: st.DataObject) -> None:
    line = data.draw(st.sampled_from(real))
    facts, counts = scanned(line[: data.draw(st.integers(0, len(line) - 1))])
    assert facts == []
    assert sum(counts.rejected.values()) == 1


@settings(max_examples=200)
@given(data=st.data())
def test_flipped_bytes_raise_nothing_and_every_line_is_counted(
    real: list[bytes], data: st.DataObject
) -> None:
    line = bytearray(data.draw(st.sampled_from(real)))
    for place in data.draw(st.lists(st.integers(0, len(line) - 1), min_size=1, max_size=3)):
        line[place] ^= data.draw(st.integers(1, 255))
    parts = bytes(line).split(b"\n")
    facts, counts = scanned(*parts)
    assert counts.used + counts.skipped + sum(counts.rejected.values()) == len(parts)
    assert len(facts) == counts.used
    for _, _, fact in facts:
        if isinstance(fact, ConnectionSeen):
            assert 0 <= fact.local_port < 65536
            assert all(isinstance(number, int) for number in fact.numbers.values())
