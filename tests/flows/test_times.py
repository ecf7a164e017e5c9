from __future__ import annotations

import numpy as np

from perfmeasure.clock import ClockPair
from perfmeasure.flows.times import KernelTimes

SECOND = 10**9
NOON = 1_800_000_000 * SECOND


def pair(monotonic_seconds: int, distance_ns: int = NOON) -> ClockPair:
    return ClockPair(monotonic_seconds * SECOND + distance_ns, monotonic_seconds * SECOND)


def test_one_pair_serves_for_all_times() -> None:
    times = KernelTimes()
    times.note(pair(5))
    assert times.unix_ts(np.array([0, 7 * SECOND], "u8")).tolist() == [1.8e9, 1.8e9 + 7]


def test_after_a_step_the_nearest_pair_holds() -> None:
    times = KernelTimes()
    for second in range(10):
        times.note(pair(second))
    for second in range(10, 20):
        times.note(pair(second, NOON + 3600 * SECOND))
    found = times.unix_ts(np.array([2, 9.4, 9.6, 19]) * SECOND)
    assert (found - 1.8e9).round(3).tolist() == [2.0, 9.4, 3609.6, 3619.0]


def test_noise_below_a_step_leaves_no_trace() -> None:
    times = KernelTimes()
    for second in range(100):
        times.note(pair(second, NOON + second % 7 * 1000))
    assert len(times._pairs) == 1
