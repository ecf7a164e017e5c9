from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from perfmeasure.stopping import StopSignals


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    signal.alarm(0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_the_reason_and_starts_the_clock(number: signal.Signals) -> None:
    stops = StopSignals()
    assert not stops
    assert stops.reason == "error"
    signal.raise_signal(number)
    signal.raise_signal(signal.SIGTERM)
    assert stops
    assert stops.reason == number.name
    assert 0 < signal.alarm(0) <= 8
