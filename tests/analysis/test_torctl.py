from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import source, torctl
from perfmeasure.analysis.source import Counts
from perfmeasure.analysis.torlog import Gap
from tests.analysis.scanned import balance, torctl_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perfmeasure.analysis.source import Input
    from perfmeasure.analysis.torlog import TorLog
    from tests.analysis.conftest import Lines

CLIENT = "onionperf-run/tor-client.onionperf.torctl.log.xz"


def read(path: Path) -> tuple[TorLog, Counts]:
    [log] = source.find([path])
    found = torctl.read_logs([log])
    assert balance(log.counts) == log.counts.lines
    return found, log.counts


def test_a_run_of_the_real_tor(fixtures: Path) -> None:
    log, counts = read(fixtures / CLIENT)
    assert counts.rejected == {}
    assert (log.host, log.tor_versions) == ("vm", ["0.4.9.11"])
    # Those that were open at the end are there too (OnionPerf's B10 lost them): only 1 to 25,
    # and of them only what an event named.
    assert {c.number for c in log.circuits} >= {1, 2, 5, 6, 7, 11, 13, 14, 16, 17, 23, 24, 26, 27}
    by_number = {circuit.number: circuit for circuit in log.circuits}
    assert by_number[16].built is not None
    assert by_number[16].path[0][0] == "$0F556291FB53B0638152267AE53C802BF3BAA5D2~auth1"
    assert by_number[23].ended is None
    assert by_number[23].conflux_id == by_number[24].conflux_id != ""
    # Circuit 7 was there before the log was: its path is known from its end.
    assert by_number[7].launched is None
    assert [ts for _, ts in by_number[7].path] == [None] * 3
    assert by_number[7].guard_fingerprint == "62985FD66FDA8641423D72C06CF0E4BF9FA94CCF"
    streams = {stream.number: stream for stream in log.streams}
    assert len(streams) == 13
    assert streams[28].failure_reason_local == "DESTROY"
    assert streams[29].circuit is by_number[23]
    assert sum(log.bytes_read.values()) > 50_000_000


def test_lf_only_is_the_same(fixtures: Path, tmp_path: Path) -> None:
    # OnionPerf's B5: a log that lost its CRs gave nothing.
    path = tmp_path / "x.log"
    path.write_bytes(lzma.decompress((fixtures / CLIENT).read_bytes()).replace(b"\r\n", b"\n"))
    log, counts = read(path)
    whole, _ = read(fixtures / CLIENT)
    assert counts.rejected == {}
    assert [s.events for s in log.streams] == [s.events for s in whole.streams]
    assert [c.path for c in log.circuits] == [c.path for c in whole.circuits]


def test_multi_line_events_do_not_hide_what_follows(fixtures: Path) -> None:
    log, counts = read(fixtures / "torctl/sample_400lines.torctl.log")
    assert counts.rejected == {}
    assert len(log.guards) >= 5
    assert {guard.nickname for guard in log.guards} >= {"exit4", "exit2", "auth1"}
    assert any("up_ts" in guard.times for guard in log.guards)
    assert {c.number for c in log.connections} >= {"14", "15", "16"}
    assert any(circuit.current_guards for circuit in log.circuits)


def test_build_timeouts(fixtures: Path, tmp_path: Path, lines: type[Lines]) -> None:
    text = (fixtures / "torctl/buildtimeout_samples.log").read_text()
    path = tmp_path / "x.log"
    path.write_text(
        lines.circuit_events(-99999, 1)
        + text.replace("\n", "\r\n")
        + lines.circuit_events(99999, 2)
        + lines.event(
            99999.5,
            "BUILDTIMEOUT_SET RESET TOTAL_TIMES=0 TIMEOUT_MS=60000 XM=0 ALPHA=0.0 "
            "CUTOFF_QUANTILE=1.000000",
        )
        + lines.circuit_events(100000, 3)
    )
    log, counts = read(path)
    assert counts.rejected == {}
    before, after, reset = log.circuits
    assert (before.is_cbt_set, before.build_timeout_ms) == (False, None)
    assert (after.is_cbt_set, after.build_quantile) == (True, 0.8)
    assert (reset.is_cbt_set, reset.build_timeout_ms, reset.build_quantile) == (False, 60000, 1.0)


def test_a_stream_that_tor_moved_to_another_circuit(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    target = "127.0.0.1:8080"
    log = torctl.read_logs(
        [
            log_of(
                lines.event(1, f"STREAM 9 NEW 0 {target} SOURCE_ADDR=127.0.0.1:5000 PURPOSE=USER")
                + lines.event(2, f"STREAM 9 SENTCONNECT 4 {target}")
                + lines.event(3, f"STREAM 9 DETACHED 4 {target} REASON=TIMEOUT")
                + lines.event(4, f"STREAM 9 SENTCONNECT 5 {target}")
                + lines.event(5, f"STREAM 9 SUCCEEDED 5 {target}")
                + lines.event(6, f"STREAM 9 CLOSED 0 {target} REASON=DONE")
            )
        ]
    )
    [stream] = log.streams
    assert stream.succeeded_on is not None
    assert stream.succeeded_on.number == 5
    assert stream.failure_reason_local == ""
    assert [circuit.number for circuit in log.circuits] == [4, 5]


def test_closed_after_failed_says_nothing_new(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    text = lines.stream_events(1, 5, 9, 5000).replace("CLOSED 4", "FAILED 4")
    log = torctl.read_logs([log_of(text + lines.event(6, "STREAM 9 CLOSED 4 a:8080 REASON=DONE"))])
    [stream] = log.streams
    assert (stream.ended, stream.failure_reason_local) == (lines.day + 5, "DONE")


def starting(lines: type[Lines], at: float) -> str:
    return lines.note(
        at, "Starting torctl program on host vm using Tor version 0.4.9.11 status=recommended"
    )


def gap(lines: type[Lines], at: float) -> str:
    return lines.note(at, "[GAP] control connection lost: EOF") + lines.note(
        at + 2.5, "[GAP] control connection back after 2.500000 seconds"
    )


@pytest.mark.parametrize("has_note", [True, False])
def test_a_new_tor_begins_its_numbers_again(
    log_of: Callable[..., Input], lines: type[Lines], has_note: bool
) -> None:
    text = (
        starting(lines, 0)
        + lines.circuit_events(1, 4)
        + lines.stream_events(2, 3, 9, 5000)
        + lines.event(3, "STREAM 10 NEW 0 127.0.0.1:8080 SOURCE_ADDR=127.0.0.1:5002 PURPOSE=USER")
        + (gap(lines, 10) if has_note else "")
        + lines.circuit_events(21, 4, created="00:00:21")
        + lines.stream_events(22, 23, 9, 5000)
    )
    log = torctl.read_logs([log_of(text)])
    assert [circuit.number for circuit in log.circuits] == [4, 4]
    assert [(s.number, s.ended is None) for s in log.streams] == [
        (9, False),
        (10, True),
        (9, False),
    ]
    assert log.streams[0].circuit is log.circuits[0]
    assert log.streams[2].circuit is log.circuits[1]
    assert len(log.circuits[0].events) == 5
    assert log.gaps == ([Gap(lines.day + 10, lines.day + 12.5)] if has_note else [])


def test_entries_that_the_reader_could_not_write_are_a_gap(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    text = lines.note(3, "[LOST] 17 entries were not written: No space left on device")
    log = log_of(text + lines.note(4, "[LOST] many entries"))
    assert torctl.read_logs([log]).gaps == [Gap(lines.day + 3, lines.day + 3, 17)]
    assert sum(log.counts.rejected.values()) == 1


def test_a_new_tor_that_the_reader_finds_running(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    # Circuit 4 is already built when the reader comes back: only the time of its making differs.
    text = lines.circuit_events(1, 4) + gap(lines, 10)
    late = lines.circuit_events(21, 4, created="00:00:21").splitlines(keepends=True)[-1]
    log = torctl.read_logs([log_of(text + late)])
    assert [circuit.number for circuit in log.circuits] == [4, 4]


@pytest.mark.parametrize("note", [starting, gap])
def test_a_reader_that_comes_back_to_the_same_tor_changes_nothing(
    log_of: Callable[..., Input], lines: type[Lines], note: Callable[[type[Lines], float], str]
) -> None:
    circuit = lines.circuit_events(1, 4).splitlines(keepends=True)
    stream = lines.stream_events(2, 30, 9, 5000).splitlines(keepends=True)
    text = "".join(
        [*circuit[:2], stream[0], stream[1], note(lines, 10), *circuit[2:], stream[2], stream[3]]
    )
    log = torctl.read_logs([log_of(text + lines.circuit_events(31, 5))])
    assert [circuit.number for circuit in log.circuits] == [4, 5]
    assert [stream.number for stream in log.streams] == [9]
    assert log.streams[0].ended == lines.day + 30


def test_guards_come_and_go(log_of: Callable[..., Input], lines: type[Lines]) -> None:
    guard = f"${'A' * 40}~a"
    text = "".join(
        lines.event(at, f"GUARD ENTRY {guard} {status}")
        for at, status in enumerate(("NEW", "UP", "DROPPED", "NEW", "DOWN", "GOOD_L2"))
    )
    first, second = torctl.read_logs([log_of(text + lines.circuit_events(9, 1))]).guards
    day = lines.day
    assert first.times == {"new_ts": day, "up_ts": day + 1, "dropped_ts": day + 2}
    assert second.times == {"new_ts": day + 3, "down_ts": day + 4}


def test_where_relays_are(log_of: Callable[..., Input], lines: type[Lines]) -> None:
    notes = (f"[RELAY] ${'A' * 40}~a 192.0.2.{n}:9001 [2001:db8::7]:9002" for n in (7, 8))
    found = torctl.read_logs([log_of("".join(lines.note(1, note) for note in notes))])
    addresses = {("192.0.2.7", 9001), ("192.0.2.8", 9001), ("2001:db8::7", 9002)}
    assert found.relays == {"A" * 40: addresses}


def test_two_counts_in_one_second_are_added(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    text = lines.event(1.01, "BW 10 1") + lines.event(1.99, "BW 20 2") + lines.event(2.5, "BW 5 0")
    log = torctl.read_logs([log_of(text)])
    assert list(log.bytes_read.values()) == [30, 5]
    assert list(log.bytes_written.values()) == [3, 0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("rubbish", "no time stamp"),
        ("650 BW 1 2", "no time stamp"),
        ("2026-11-22 00:00:01 17953056x1.00 650 BW 1 2", "no time stamp"),
        ("2026-11-22 00:00:01 1795305601.00 650 BW", "BW without its values"),
        ("2026-11-22 00:00:01 1795305601.00 650 BW 1", "BW is cut or garbled"),
        ("2026-11-22 00:00:01 1795305601.00 650 STR", "event of a name that is not known"),
        (
            "2026-11-22 00:00:01 1795305601.00 [RELAY] $AA~a 192.0.2.7:9001",
            "note of a relay is cut",
        ),
        ("2026-11-22 00:00:01 1795305601.00 sudden words", "neither an event nor a note"),
        (
            "2026-11-22 00:00:01 1795305601.00 650 BW 1 2026-11-22 00:00:01 1795305601.00 650 BW 1",
            "two events on one line",
        ),
    ],
)
def test_what_cannot_be_used_is_counted_by_reason(
    log_of: Callable[..., Input], lines: type[Lines], line: str, reason: str
) -> None:
    log = log_of(lines.event(0, "BW 1 1") + line + "\r\n" + lines.event(2, "BW 7 7"))
    found = torctl.read_logs([log])
    assert [key[: len(reason)] for key in log.counts.rejected] == [reason]
    assert log.counts.examples[0][0] == 2
    assert sum(found.bytes_read.values()) == 8


def test_an_event_cut_by_a_new_process_ends_there(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    log = log_of(
        lines.event(0, "x").replace("650 x", "650+NS")
        + "r exit0 FWXu2SP 2038-01-01\r\n"
        + starting(lines, 5)
        + lines.event(6, "BW 7 7")
        + "r exit1 is out of place\r\n"
    )
    found = torctl.read_logs([log])
    assert found.bytes_read == {int(lines.day) + 6: 7}
    assert log.counts.rejected == {"no time stamp": 1}


@given(st.data())
def test_damage_anywhere_never_raises(fixtures: Path, data: st.DataObject) -> None:
    whole = (fixtures / "torctl/sample_400lines.torctl.log").read_bytes().split(b"\n")
    begin = data.draw(st.integers(0, len(whole) - 30))
    text = bytearray(b"\n".join(whole[begin : begin + 30]))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text) - 1))
        if data.draw(st.booleans()):
            text[at] = data.draw(st.integers(0, 255))
        else:
            del text[at : at + data.draw(st.integers(1, 200))]
        text = text or bytearray(b" ")
    torctl_lines(bytes(text).split(b"\n"))


OLD_TOR = (
    "2016-02-28 23:59:51 1456703991.14 650 CIRC 4 LAUNCHED\n"
    "2016-02-28 23:59:51 1456703991.20 650 CIRC 4 EXTENDED $" + "A" * 40 + "=guard\n"
    "2016-02-28 23:59:51 1456703991.31 650 CIRC 4 BUILT $" + "A" * 40 + "=guard\n"
    "2016-02-28 23:59:52 1456703992.00 650 STREAM 23 NEW 0 216.17.99.183:6666\n"
    "2016-02-28 23:59:52 1456703992.00 650 STREAM 23 SENTCONNECT 4 216.17.99.183:6666\n"
    "2016-02-28 23:59:52 1456703992.32 650 STREAM 23 SUCCEEDED 4 216.17.99.183:6666\n"
    "2016-02-28 23:59:52 1456703992.98 650 STREAM 23 CLOSED 4 216.17.99.183:6666\n"
    "2016-02-28 23:59:53 1456703993.00 650 CIRC 4 CLOSED $" + "A" * 40 + "=guard\n"
)
"""As tor 0.2 wrote events before they had keywords; the numbers are the seed's."""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_events_of_an_old_tor_have_no_keywords(log_of: Callable[..., Input], end: str) -> None:
    log = log_of(OLD_TOR.replace("\n", end))
    found = torctl.read_logs([log])
    assert log.counts.rejected == {}
    [circuit], [stream] = found.circuits, found.streams
    assert (stream.started, stream.ended) == (1456703992.0, 1456703992.98)
    assert [name for name, _ in stream.events][-1] == "UNKNOWN:CLOSED"
    assert stream.succeeded_on is circuit
    assert circuit.guard_fingerprint == "A" * 40
    assert (circuit.launched, circuit.built, circuit.ended) == (
        1456703991.14,
        1456703991.31,
        1456703993.0,
    )


def test_an_event_that_was_cut_where_it_still_parses_shows_by_its_end(
    log_of: Callable[..., Input],
) -> None:
    whole = OLD_TOR.replace("\n", "\r\n")
    cut = whole.replace("CLOSED 4 216.17.99.183:6666\r\n", "CLOSED 4 216.17.99.183:66\n")
    log = log_of(cut)
    [stream] = torctl.read_logs([log]).streams
    assert (stream.ended, stream.target) == (None, "216.17.99.183:6666")
    assert log.counts.rejected == {"event is cut: its line end is not like the others'": 1}
    assert log.counts.examples == [(7, "event is cut: its line end is not like the others'")]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("STREAM 23 CLOSED 4 216.17.99.183", "STREAM with a target that is none"),
        ("STREAM 23 CLOSED 4 216.17.99.183:", "STREAM with a target that is none"),
        ("STREAM 23 CLOSED 4 a\x01b:80", "event with bytes that are no text"),
        ("STREAM 23 CLOSED 4 a\xffb:80", "event with bytes that are no text"),
        ("CIRC 4 LAUNCHED TIME_CREATED=2016-02-28T23", "CIRC with a TIME_CREATED that is none"),
        (
            "CIRC 4 LAUNCHED TIME_CREATED=2016-02-28T23:59:51.1548",
            "CIRC with a TIME_CREATED that is none",
        ),
        (
            "STREAM 23 CLO2016-02-28 23:59:52 1456703992.98 [CLOCK] utc_ns=1",
            "two events on one line",
        ),
        ("STREAM 23 CLOS2016-02-28 23:59:52 1456703992.98 650 BW 1 2", "two events on one line"),
    ],
)
def test_what_is_cut_or_garbled_is_not_believed(
    log_of: Callable[..., Input], event: str, reason: str
) -> None:
    log = log_of(f"2016-02-28 23:59:51 1456703991.14 650 {event}\n")
    found = torctl.read_logs([log])
    assert not [*found.streams, *found.circuits]
    assert log.counts.rejected == {reason: 1}
