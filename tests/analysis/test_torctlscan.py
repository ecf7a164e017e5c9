from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis.clocksteps import ClockPair
from perfmeasure.analysis.events import Bandwidth, ReaderGap, ReaderStarted, RelayNote
from perfmeasure.analysis.source import Counts
from perfmeasure.analysis.torctlscan import TorctlScan

if TYPE_CHECKING:
    from perfmeasure.analysis.source import Fact
    from tests.analysis.conftest import Lines


def scanned(text: str) -> tuple[list[Fact], Counts]:
    scan, counts = TorctlScan(), Counts()
    parts = text.encode().split(b"\n")[:-1]
    return [*scan.batch(1, parts, counts), *scan.end(counts)], counts


def test_each_fact_has_its_line_and_its_stamp(lines: type[Lines]) -> None:
    text = lines.note(0, "NOTICE BOOTSTRAP PROGRESS=1") + lines.circuit_events(1, 4)
    facts, counts = scanned(text + lines.event(9, "CIRC_BW ID=4 READ=1"))
    assert [number for number, _, _ in facts] == [2, 3, 4, 5, 6]
    assert [ts - lines.day for _, ts, _ in facts] == pytest.approx([1, 1.1, 1.2, 1.3, 1.3])
    assert (counts.used, counts.skipped, counts.rejected) == (5, 2, {})


def test_bandwidth_is_one_fact_of_the_whole_log(lines: type[Lines]) -> None:
    text = "".join(lines.event(at, f"BW {at * 10} 1") for at in (1, 2, 3))
    facts, counts = scanned(text + lines.event(2.5, "BW 5 5"))
    second = int(lines.day)
    assert facts == [
        (
            0,
            lines.day + 2.5,
            Bandwidth([second + 1, second + 2, second + 3], [10, 25, 30], [1, 6, 1]),
        )
    ]
    assert counts.used == 4


def test_what_the_reader_notes(lines: type[Lines]) -> None:
    facts, _ = scanned(
        lines.note(0, "Starting torctl program on host vm using Tor version 0.4.9.11 status=x")
        + lines.note(1, "Starting torctl program on host")
        + lines.note(2, "[GAP] control connection lost: EOF")
        + lines.note(3, "[GAP] control connection back after 1.0 seconds")
        + lines.note(4, "[LOST] 7 entries were not written: full")
        + lines.note(5, "[CLOCK] utc_ns=12 monotonic_ns=3 reason=start")
        + lines.note(6, f"[RELAY] ${'a' * 40}~x 192.0.2.7:9001 [2001:db8::7]:9001")
    )
    assert [fact for _, _, fact in facts] == [
        ReaderStarted("vm", "0.4.9.11"),
        ReaderGap("lost", 0),
        ReaderGap("back", 0),
        ReaderGap("entries", 7),
        ClockPair(12, 3),
        RelayNote("A" * 40, ["192.0.2.7:9001", "[2001:db8::7]:9001"]),
    ]


def is_cut(counts: Counts) -> bool:
    return "event is cut: its line end is not like the others'" in counts.rejected


def test_a_log_without_cr_behind_one_with_it_is_whole(lines: type[Lines]) -> None:
    first, second = (
        "".join(lines.circuit_events(at, number) for at, number in ((at, at), (at + 9, at + 9)))
        for at in (1, 100)
    )
    whole, counts = scanned(first + second)
    found, other = scanned(first + second.replace("\r\n", "\n"))
    assert found == whole
    assert other == counts
    # In several blocks, as a file is read, each cut after its n-th line.
    parts = (first + second.replace("\r\n", "\n")).encode().split(b"\n")[:-1]
    for at in range(len(parts)):
        scan, of_blocks = TorctlScan(), Counts()
        facts = scan.batch(1, parts[:at], of_blocks) if at else []
        facts += scan.batch(at + 1, parts[at:], of_blocks)
        assert [*facts, *scan.end(of_blocks)] == whole
        assert of_blocks == counts


@pytest.mark.parametrize("count", [1, 2])
def test_events_that_lost_their_cr_were_cut(lines: type[Lines], count: int) -> None:
    before, after = (lines.stream_events(at, at + 1, at, 5000 + at) for at in (1, 9))
    cut = "".join(
        lines.event(5, f"STREAM {number} SENTCONNECT 4 127.0.0.1:80")[:-3] + "\n"
        for number in range(count)
    )
    whole, _ = scanned(before + after)
    for behind in ("", lines.note(6, "[CLOCK] utc_ns=1 monotonic_ns=1 reason=step")):
        facts, counts = scanned(before + cut + behind + after)
        assert [fact for _, _, fact in facts if not isinstance(fact, ClockPair)] == [
            fact for _, _, fact in whole
        ]
        assert (sum(counts.rejected.values()), is_cut(counts)) == (count, True)
    _, counts = scanned(before + cut)
    assert (sum(counts.rejected.values()), is_cut(counts)) == (count, True)


def test_the_rest_of_an_event_that_a_rotation_cut(lines: type[Lines]) -> None:
    event = (
        "2026-11-22 00:00:01 1795305601.00 650+NS\r\n"
        + "r exit0 FWXu2SP 2038-01-01\r\ns Exit Fast\r\n" * 2
        + ".\r\n650 OK\r\n"
    )
    after = lines.event(2, "BW 1 2") + event
    for at in range(event.index("\n") + 1, len(event)):
        _, counts = scanned(event[at:] + after)
        is_whole = at <= event.index("650 OK")  # else it cannot be told what it was
        assert sum(counts.rejected.values()) == (not is_whole and at < len(event) - 2)
        assert counts.used == 1
    _, counts = scanned("r exit0 FWXu2SP 2038-01-01\r\n" + after)
    assert counts.rejected == {"no time stamp": 1}
    _, counts = scanned(after + "s Exit\r\n650 OK\r\n")
    assert counts.rejected == {"no time stamp": 2}
