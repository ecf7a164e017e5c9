"""perfmeasure.clock: pairs of the two clocks, and when they are due."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from perfmeasure.clock import ClockPair, ClockWatch, read_pair

if TYPE_CHECKING:
    import pytest

MINUTE_NS = 60 * 10**9


def test_pair_lies_between_readings_around_it() -> None:
    utc_before, monotonic_before = time.time_ns(), time.monotonic_ns()
    pair = read_pair()
    assert utc_before <= pair.utc_ns <= time.time_ns()
    assert monotonic_before <= pair.monotonic_ns <= time.monotonic_ns()


def test_pairs_agree_on_the_distance_of_the_clocks_to_50_microseconds() -> None:
    distances = [read_pair().distance_ns for _ in range(1000)]
    distances.sort()
    assert distances[-10] - distances[9] < 50_000  # without the outliers of a loaded machine


def test_an_interrupted_reading_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monotonic = iter([0, 5_000_000, 5_000_100, 5_000_300])  # first 5 ms apart, then 200 ns
    monkeypatch.setattr("perfmeasure.clock.time.monotonic_ns", lambda: next(monotonic))
    utc = iter([1_000_000, 6_000_200])
    monkeypatch.setattr("perfmeasure.clock.time.time_ns", lambda: next(utc))
    assert read_pair() == ClockPair(6_000_200, 5_000_200)


def test_reading_ends_on_a_machine_that_is_always_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(0, 10**9, 10_000))
    monkeypatch.setattr("perfmeasure.clock.time.monotonic_ns", lambda: next(ticks))
    assert read_pair().monotonic_ns == 5_000


def test_a_pair_is_due_at_start_each_minute_and_at_each_step() -> None:
    watch = ClockWatch()
    pair = ClockPair(10**18, 10**12)

    def later(ns: int, step_ns: int = 0) -> ClockPair:
        return ClockPair(pair.utc_ns + ns + step_ns, pair.monotonic_ns + ns)

    assert watch.due(pair) == "start"
    assert watch.due(later(MINUTE_NS - 1)) is None
    assert watch.due(later(MINUTE_NS)) == "minute"
    assert watch.due(later(MINUTE_NS + 1)) is None
    assert watch.due(later(MINUTE_NS + 2, 1_000_000)) is None
    assert watch.due(later(MINUTE_NS + 3, 1_000_001)) == "step"
    assert watch.due(later(MINUTE_NS + 4, 1_000_001)) is None
    assert watch.due(later(MINUTE_NS + 5)) == "step"  # and back
    assert watch.due(later(2 * MINUTE_NS + 4)) is None
    assert watch.due(later(2 * MINUTE_NS + 5)) == "minute"


def test_small_drifts_add_up_to_a_step_against_the_last_pair_written() -> None:
    watch = ClockWatch()
    assert watch.due(ClockPair(0, 0)) == "start"
    assert [watch.due(ClockPair(n * 400_000, 0)) for n in range(1, 5)] == [None, None, "step", None]


def test_fields_of_the_log_line() -> None:
    assert ClockPair(12, 7).fields("start") == "utc_ns=12 monotonic_ns=7 reason=start"
