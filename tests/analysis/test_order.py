from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import pipeline, tgen, torctl
from perfmeasure.analysis.clocksteps import ClockPair
from perfmeasure.analysis.order import Order, WentBack
from perfmeasure.analysis.source import Counts, Fact, Input
from tests.analysis.conftest import Lines


class Said(NamedTuple):
    text: str


class Began(NamedTuple):
    text: str


Rejected = list[tuple[int, str]]


class Rejecting(Counts):
    """Counts that keep each rejected line."""

    def __init__(self) -> None:
        super().__init__()
        self.withdrawn: Rejected = []

    def withdraw(self, line_number: int, reason: str) -> None:
        self.withdrawn.append((line_number, reason))


def ordered(facts: list[Fact], *, block: int = 1000) -> tuple[list[Fact], Rejected]:
    """Return facts in the order in which they come out, and the lines that were rejected."""
    order, counts = Order(Began), Rejecting()
    groups = []
    for at in range(0, len(facts), block):
        groups += order.take(facts[at : at + block], counts)
    groups += order.end(counts)
    assert all(of_log is counts for of_log, _ in groups)
    return [fact for _, group in groups for fact in group], counts.withdrawn


def ordered_stamps(stamps: list[float], *, block: int = 1000) -> tuple[list[object], Rejected]:
    """Return stamps in the order in which they come out, steps as ("back", seconds)."""
    facts: list[Fact] = [(n, ts, Said(f"line {n}")) for n, ts in enumerate(stamps, 1)]
    out, rejected = ordered(facts, block=block)
    return [
        ("back", fact.seconds) if isinstance(fact, WentBack) else ts for _, ts, fact in out
    ], rejected


def run(first: int, last: int) -> list[float]:
    return [float(ts) for ts in range(first, last)]


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_a_few_lines_out_of_place_are_put_in_order(block: int) -> None:
    stamps = run(0, 100)
    stamps[40], stamps[41] = stamps[41], stamps[40]
    stamps[60:60] = [stamps.pop(70), stamps.pop(70)]
    stamps.append(stamps.pop(97))
    assert ordered_stamps(stamps, block=block) == (run(0, 100), [])


@pytest.mark.parametrize(("ts", "word"), [(9999.0, "later"), (-9999.0, "earlier")])
def test_a_stamp_that_belongs_nowhere_is_rejected(ts: float, word: str) -> None:
    found, rejected = ordered_stamps([*run(0, 50), ts, *run(50, 100)])
    assert found == run(0, 100)
    [(number, reason)] = rejected
    assert number == 51
    assert reason.startswith(f"out of order: stamped {word} than the lines")


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_stamps_that_fall_and_stay_so_are_a_step_of_the_clock(block: int) -> None:
    found, rejected = ordered_stamps([*run(1000, 1030), *run(10, 40)], block=block)
    assert found == [*run(1000, 1030), ("back", 1019.0), *run(10, 40)]
    assert rejected == []


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_a_block_that_is_there_twice_is_used_once(block: int) -> None:
    facts: list[Fact] = [(n, float(n), Said(f"at {n}")) for n in range(1, 41)]
    again = [(n + 30, float(n), Said(f"at {n}")) for n in range(11, 41)]
    out, rejected = ordered([*facts, *again], block=block)
    assert out == facts
    assert rejected == [(n, "out of order: the same line again") for n in range(41, 71)]


def test_what_is_about_the_whole_log_stays_before_the_next() -> None:
    facts: list[Fact] = [(1, 5.0, Said("a")), (0, 1.0, Said("of b")), (2, 6.0, Said("b"))]
    assert ordered(facts) == (facts, [])


def with_pairs(*stamps: float | ClockPair) -> list[Fact]:
    return [
        (n, what.utc_ns / 1e9, what) if isinstance(what, ClockPair) else (n, what, Said(str(n)))
        for n, what in enumerate(stamps, 1)
    ]


def pair(utc: float, monotonic: float) -> ClockPair:
    return ClockPair(round(utc * 1e9), round(monotonic * 1e9))


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_a_step_that_a_pair_tells_a_second_late(block: int) -> None:
    before, after = pair(1000, 50), pair(975.5, 55.5)  # the clock was set back by 30 seconds
    facts = with_pairs(before, *run(1001, 1005), 974.9, 975.2, after, *run(976, 996))
    out, rejected = ordered(facts, block=block)
    assert rejected == []
    assert [n for n, _, _ in out] == [1, 2, 3, 4, 5, 8, 6, 7, *range(9, 29)]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_where_pairs_tell_of_no_step_there_is_none(block: int) -> None:
    facts = with_pairs(
        pair(1000, 50), *run(1001, 1040), *run(1030, 1036), *run(1040, 1059), pair(1060, 110)
    )
    out, rejected = ordered(facts, block=block)
    assert [ts for _, ts, _ in out] == sorted(ts for _, ts, _ in facts)
    assert rejected == []


def test_a_log_of_a_step_whose_pair_was_lost_has_no_negative_times(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    def clock(at: float, monotonic: float) -> str:
        utc = round((lines.day + at) * 1e9)
        return lines.note(
            at, f"[CLOCK] utc_ns={utc} monotonic_ns={round(monotonic * 1e9)} reason=minute"
        )

    log = log_of(
        clock(1000, 50)
        + lines.circuit_events(1020, 4)
        + "".join(lines.circuit_events(971 + n, 10 + n) for n in range(4))  # set back by 60 s
        + lines.event(990, f"CIRC 4 CLOSED ${'A' * 40}~a")
        + lines.event(991, f"CIRC 10 CLOSED ${'A' * 40}~a")
        + clock(1000, 110)
    )
    found = torctl.read_logs([log])
    assert [step.seconds for step in found.clock_steps] == [-60]
    lasted = [c.ended - c.launched for c in found.circuits if c.ended and c.launched]
    assert lasted == pytest.approx([30, 20])


def test_a_fact_of_a_whole_log_outlives_the_line_that_it_waits_with() -> None:
    facts: list[Fact] = [(n, float(n), Said(f"at {n}")) for n in range(1, 21)]
    whole: Fact = (0, 20.0, Said("of all"))
    out, rejected = ordered([*facts, whole, facts[9], (22, 22.0, Said("end"))])
    assert whole in out
    assert [number for number, _ in rejected] == [10]


def test_another_program_may_have_another_clock() -> None:
    facts: list[Fact] = [(1, 500.0, Said("a")), (2, 5.0, Began("b")), (3, 6.0, Said("b"))]
    assert ordered(facts) == (facts, [])


@given(st.lists(st.integers(0, 60), max_size=120), st.integers(1, 50))
def test_nothing_is_lost_and_the_blocks_do_not_matter(stamps: list[int], block: int) -> None:
    found, rejected = ordered_stamps([float(ts) for ts in stamps], block=block)
    assert (found, rejected) == ordered_stamps([float(ts) for ts in stamps])
    assert len([ts for ts in found if isinstance(ts, float)]) + len(rejected) == len(stamps)
    last = -1.0
    for ts in found:
        if isinstance(ts, float):
            assert ts >= last
            last = ts
        else:
            last = -1.0


def test_a_circuit_over_a_step_without_pairs_has_no_negative_times(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    text = lines.circuit_events(7200, 4) + lines.circuit_events(7201, 5, created="00:00:02")
    after = "".join(lines.circuit_events(3600 + n, 10 + n) for n in range(4))
    log = log_of(text + after + lines.event(3605, f"CIRC 4 CLOSED ${'A' * 40}~a"))
    found = torctl.read_logs([log])
    [step] = found.clock_steps
    assert (step.is_from_stamps, step.unix_ts) == (True, lines.day + 3600)
    assert step.seconds == pytest.approx(-3601.3)
    circuit = found.circuits[0]
    assert circuit.ended is not None
    assert circuit.launched is not None
    assert circuit.ended - circuit.launched == pytest.approx(5 + 1.3)
    document = pipeline.analyze([log.path] if log.path else [])
    [told] = document["meta"]["sources"]["unknown"]["clock_steps"]
    assert told["from"] == "stamps"


def test_lines_of_a_transfer_that_were_swapped(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    log = log_of(
        lines.created(1, 0, 5000)
        + lines.status(2, 0, 5000, 200)
        + lines.outcome(1, 5, 0, 5000)
        + lines.status(4, 0, 5000, 400)
        + lines.created(6, 1, 5001)
    )
    first, _ = tgen.read_logs([log]).transfers
    assert first.record["is_complete"]
    assert log.counts.rejected == {"out of order: the transfer had ended": 1}
