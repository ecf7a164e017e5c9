"""Windows of changing length on one line of time."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.flows.timeline import Timeline


def test_one_length_is_division() -> None:
    timeline = Timeline(100)
    assert timeline.number_at(1234) == 12
    assert timeline.begin_ns(12) == 1200
    assert timeline.length_ns(12) == 100
    assert struct.unpack("=QQQ", timeline.last.packed()) == (0, 0, 100)


@given(
    changes=st.lists(st.tuples(st.integers(1, 9), st.sampled_from((10, 20, 40, 80))), max_size=8)
)
def test_windows_follow_one_another_without_gap_and_overlap(
    changes: list[tuple[int, int]],
) -> None:
    timeline = Timeline(20)
    for later, length_ns in changes:
        if length_ns == timeline.last.length_ns:
            continue
        epoch = timeline.change(timeline.last.first + later, length_ns)
        assert epoch.begin_ns % length_ns == 0
        assert epoch.length_ns == length_ns
    for number in range(timeline.last.first + 5):
        begin_ns, length_ns = timeline.begin_ns(number), timeline.length_ns(number)
        assert begin_ns % length_ns == 0
        assert begin_ns + length_ns == timeline.begin_ns(number + 1)
        assert timeline.number_at(begin_ns) == number
        assert timeline.number_at(begin_ns + length_ns - 1) == number


def test_what_is_over_is_forgotten() -> None:
    timeline = Timeline(10)
    timeline.change(5, 20)
    second = timeline.change(11, 10)
    begins = [timeline.begin_ns(number) for number in range(second.first, second.first + 9)]
    timeline.forget_before(second.first - 1)
    assert timeline.length_ns(second.first - 1) == 20
    timeline.forget_before(second.first)
    assert [timeline.begin_ns(n) for n in range(second.first, second.first + 9)] == begins
    assert timeline.last == second
