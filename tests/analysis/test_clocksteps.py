from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import clocksteps, tgen, torctl
from perfmeasure.analysis.clocksteps import ClockSteps
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.source import Input
from tests.analysis.conftest import Lines


def pair(utc: float, monotonic: float) -> str:
    return f"utc_ns={round(utc * 1e9)} monotonic_ns={round(monotonic * 1e9)} reason=minute"


def test_a_step_is_what_the_clocks_differ_by() -> None:
    clock = ClockSteps()

    def take(utc: float, monotonic: float) -> float:
        return clock.take(clocksteps.pair(pair(utc, monotonic)))

    assert [take(*times) for times in ((100, 5), (160, 65), (160.0005, 65.001))] == [0] * 3
    assert take(1000, 125.001) == pytest.approx(779.9995)
    assert take(10, 185.001) == pytest.approx(-1050)
    assert take(99, 1) == 0  # the machine was started anew
    assert [step.unix_ts for step in clock.found] == [1000, 10]


@pytest.mark.parametrize(
    "text", ["", "utc_ns=1", "utc_ns=1 monotonic_ns=", "utc_ns=1 monotonic_ns=1x"]
)
def test_what_is_no_pair(text: str) -> None:
    with pytest.raises(RejectedError):
        clocksteps.pair(text)


@given(st.text(max_size=60))
def test_rubbish_is_no_pair(text: str) -> None:
    with pytest.raises(RejectedError):
        clocksteps.pair(text)


def test_a_transfer_over_a_step_has_true_durations(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    def clock(at: float, monotonic: float) -> str:
        text = f"[message] [clock] [clock_pair] [clock] {pair(lines.day + at, monotonic)}"
        return lines.note(at, text)

    log = log_of(
        clock(0, 50)
        + lines.created(10, 0, 5000)
        + lines.status(12, 0, 5000, 500)
        + clock(3613, 63)
        + lines.status(3614, 0, 5000, 900)
        + lines.outcome(3610, 3615, 0, 5000)
    )
    found = tgen.read_logs([log])
    [step], [transfer] = found.clock_steps, found.transfers
    assert (step.unix_ts, step.seconds) == (lines.day + 3613, 3600)
    progress = transfer.record["elapsed_seconds"]["payload_progress"]
    assert (progress["0.5"], progress["0.9"], progress["1.0"]) == (2, 4, 5)
    assert log.counts.rejected == {}


@pytest.mark.parametrize("step", [0.5, 3600.0])
@pytest.mark.parametrize("from_line", range(7))
def test_without_pairs_no_time_of_a_transfer_is_outside_of_it(
    log_of: Callable[..., Input], lines: type[Lines], step: float, from_line: int
) -> None:
    def at(number: int, seconds: float) -> float:
        return seconds + (step if number >= from_line else 0)

    log = log_of(
        lines.created(at(0, 10), 0, 5000)
        + "".join(lines.status(at(n, 10 + n), 0, 5000, 200 * n) for n in (1, 2, 3, 4))
        + lines.outcome(at(5, 10), at(5, 15), 0, 5000)
    )
    [transfer] = tgen.read_logs([log]).transfers
    record = transfer.record
    assert record["unix_ts_end"] - record["unix_ts_start"] == 5
    found = record["elapsed_seconds"]["payload_progress"]
    true = {f"{n / 10:.1f}": max((n + 1) // 2, 1) for n in range(9)} | {"0.9": 5, "1.0": 5}
    if step > 5 and from_line in {2, 3, 4, 5}:
        assert found == {}
    else:
        assert found == {
            name: at - step if at < from_line <= 5 else at for name, at in true.items()
        }
    assert all(0 <= seconds <= 5 for seconds in found.values())
    assert log.counts.rejected == {}


def test_a_stream_over_a_step_back_has_true_durations(
    log_of: Callable[..., Input], lines: type[Lines]
) -> None:
    events = lines.stream_events(7210, 3615, 9, 5000, circuit=4).splitlines(keepends=True)
    log = log_of(
        lines.note(7200, "[CLOCK] " + pair(lines.day + 7200, 50))
        + lines.circuit_events(7205, 4)
        + "".join(events[:3])
        + lines.note(3613, "[CLOCK] " + pair(lines.day + 3613, 63))
        + events[3]
        + lines.note(3614, "[CLOCK] utc_ns=12")
    )
    found = torctl.read_logs([log])
    [stream], [circuit] = found.streams, found.circuits
    assert (stream.started, stream.ended) == (lines.day + 3610, lines.day + 3615)
    assert circuit.launched == lines.day + 3605
    assert [step.seconds for step in found.clock_steps] == [-3600]
    assert log.counts.rejected == {"clock pair is cut or garbled": 1}
