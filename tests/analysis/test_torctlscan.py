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
    return [*scan.batch(1, parts, counts), *scan.end()], counts


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
