from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis.thinning import BUCKET_RATIO, POINTS, histogram, significant, thin


def test_few_points_stay_as_they_are() -> None:
    assert thin([]) == []
    assert thin([3.0, 1.0]) == [0, 1]
    assert thin([0.0] * POINTS) == list(range(POINTS))


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=200), st.integers(4, 40))
def test_the_ends_and_the_extremes_stay(values: list[float], points: int) -> None:
    kept = thin(values, points)
    assert len(kept) <= max(points, 4)
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    assert min(values) in [values[at] for at in kept]
    assert max(values) in [values[at] for at in kept]


def test_a_peak_among_many_is_kept() -> None:
    values = [1.0] * 100_000
    values[54_321] = 9.0
    kept = thin(values)
    assert len(kept) <= POINTS
    assert 54_321 in kept


@given(st.lists(st.floats(1e-6, 1e6), max_size=60))
def test_a_histogram_has_each_value_to_one_percent(values: list[float]) -> None:
    flat = histogram(values)
    found: list[float] = []
    bucket = 0
    for step, count in zip(flat[::2], flat[1::2], strict=True):
        bucket += step
        found += [BUCKET_RATIO**bucket] * count
    assert len(found) == len(values)
    for told, value in zip(found, sorted(values), strict=True):
        assert abs(told / value - 1) < 0.0101


def test_a_value_of_nothing_has_a_bucket() -> None:
    assert histogram([0.0, -1.0])[1] == 2


def test_digits() -> None:
    assert significant(0.123456789) == 0.1235
    assert significant(1234567.0, 3) == 1230000.0
