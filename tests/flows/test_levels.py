"""Seconds, minutes and hours: each the sum of what is below, for each flow and each term."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from flow_frames import INGRESS, feed, made_up_table, random_datagrams

from perfmeasure.clock import ClockPair
from perfmeasure.flows import keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.keys import Array, Total
from perfmeasure.flows.levels import LEVELS, Levels
from perfmeasure.flows.windows import Overflow, Window, Windows

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

SECOND_NS = 10**9


def same_flows(one: Array, other: Array) -> bool:
    names = list(keys.KEY.names or ())
    return np.array_equal(np.sort(one, order=names), np.sort(other, order=names))


def check(windows: list[Window], periods: dict[str, list[Window]]) -> None:
    """Every period of every level is the sum of what began in it one level below."""
    below = windows
    for name, length_ns in LEVELS.items():
        numbers = [period.number for period in periods[name]]
        assert numbers == sorted(set(numbers))
        for period in periods[name]:
            assert period.length_ns == length_ns
            children = [
                child
                for child in below
                if period.begin_ns <= child.begin_ns < period.begin_ns + length_ns
            ]
            assert children
            assert same_flows(period.flows, keys.merge([child.flows for child in children]))
            terms = Terms()
            overflow: dict[tuple[int, int], Total] = {}
            for child in children:
                terms = terms.plus(child.terms)
                for part in child.overflow:
                    kind = part.direction, part.protocol
                    overflow[kind] = overflow.get(kind, Total()).plus(part.total)
            assert period.terms == terms
            assert {(p.direction, p.protocol): p.total for p in period.overflow} == overflow
            period.terms.check(name)
        assert sum(len(period.flows) > 0 for period in periods[name]) <= len(below)
        below = periods[name]


@pytest.mark.parametrize("window_ns", [SECOND_NS, SECOND_NS // 4, 300_000_000])
def test_levels_are_sums_of_the_level_below(window_ns: int) -> None:
    first = 3590 * SECOND_NS // window_ns  # so that an hour and a minute end soon
    levels, windows = Levels(), []
    periods: dict[str, list[Window]] = {name: [] for name in LEVELS}
    for number in range(first, first + 150 * SECOND_NS // window_ns):
        table = made_up_table(number, number % 30, of=100)
        drained, full = keys.total(table), Total(number % 3, 60 * (number % 3))
        overflow = (Overflow(number % 2, 6, full),) if full.packets else ()
        terms = Terms(seen=drained.plus(full), drained=drained, full=full)
        windows.append(Window(number, window_ns, table, terms, overflow, ClockPair(number, number)))
        for name, period in levels.add(windows[-1]):
            periods[name].append(period)
    complete = [len(found) for found in periods.values()]
    for name, period in levels.finish():
        periods[name].append(period)
    wanted = [len({w.begin_ns // length_ns for w in windows}) for length_ns in LEVELS.values()]
    assert [len(found) for found in periods.values()] == wanted
    assert complete == [count - 1 for count in wanted]
    assert wanted[1:] == [4, 2]
    check(windows, periods)
    assert levels.finish() == []


def test_a_long_period_is_summed_before_it_ends() -> None:
    levels, windows = Levels(), []
    periods: dict[str, list[Window]] = {name: [] for name in LEVELS}
    for number in range(40):
        table = made_up_table(number, 20_000, of=30_000)
        terms = Terms(seen=keys.total(table), drained=keys.total(table))
        windows.append(Window(number, 50_000_000, table, terms, (), ClockPair(0, 0)))
        for name, period in levels.add(windows[-1]):
            periods[name].append(period)
        assert len(levels._levels["1s"]._waiting) <= 6
    for name, period in levels.finish():
        periods[name].append(period)
    check(windows, periods)


def test_levels_of_the_kernels_windows(require: Callable[..., None]) -> None:
    require("root", "bpf")
    windows = Windows(50_000_000, 4096, functions=[INGRESS])
    flows = random_datagrams(5, 50)
    levels, swept, sent = Levels(), [], 0
    periods: dict[str, list[Window]] = {name: [] for name in LEVELS}
    windows.begin()
    end = time.monotonic() + 2.2
    while time.monotonic() < end:
        for flow in flows:
            feed(windows, flow, 7)
            sent += 7
        swept += windows.sweep()
    swept += windows.finish()
    for window in swept:
        for name, period in levels.add(window):
            periods[name].append(period)
    for name, period in levels.finish():
        periods[name].append(period)
    check(swept, periods)
    for name in LEVELS:
        assert sum(period.terms.seen.packets for period in periods[name]) == sent
    assert len(periods["1s"]) >= 3
