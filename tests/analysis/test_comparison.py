from __future__ import annotations

import math

import numpy as np
import pytest

from perfmeasure.analysis import comparison, metrics
from perfmeasure.analysis.comparison import Comparison, Verdict, compare
from tests.analysis import simulated


def _by_name(found: list[Comparison]) -> dict[str, Comparison]:
    return {each.name: each for each in found}


def _pair(seed: int, **of_b: float) -> list[Comparison]:
    random = np.random.default_rng(seed)
    first = simulated.dataset("A", random)
    return compare(first, simulated.dataset("B", random, **of_b), seed)  # type: ignore[arg-type]


def test_no_difference_is_seldom_claimed(is_long: bool) -> None:
    pairs = 1000 if is_long else 20
    claims = sum(
        any(each.verdict is Verdict.DIFFERENT for each in _pair(seed)) for seed in range(pairs)
    )
    # 5 %, with four deviations of the counting for chance.
    assert claims / pairs <= (0.06 if is_long else 0.05 + 4 * math.sqrt(0.05 * 0.95 / pairs))


def test_a_tenth_more_is_found(is_long: bool) -> None:
    pairs = 1000 if is_long else 12
    found = sum(
        _by_name(_pair(seed, factor=1.1))["ttfb_p50"].verdict is Verdict.DIFFERENT
        for seed in range(pairs)
    )
    assert found / pairs >= (0.95 if is_long else 0.75)


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert _pair(3) == _pair(3)
    random = np.random.default_rng(3)
    first, second = simulated.dataset("A", random), simulated.dataset("B", random)
    assert compare(first, second, 1) != compare(first, second, 2)


def test_effects_are_those_of_the_medians() -> None:
    random = np.random.default_rng(5)
    first = simulated.dataset("A", random)
    second = simulated.dataset("B", random, factor=2.0, failing=0.3)
    found = _by_name(compare(first, second))
    for name, field in (("ttfb_p50", "time_to_first_byte"), ("ttlb_p50", "time_to_last_byte")):
        a, b = (
            float(np.median([row[field] for row in each.rows if row[field] is not None]))
            for each in (first, second)
        )
        assert (found[name].a, found[name].b) == pytest.approx((a, b))
        assert found[name].effect == pytest.approx(b / a - 1)
        assert found[name].ci_low < found[name].effect < found[name].ci_high
        assert found[name].verdict is Verdict.DIFFERENT
    rate = found["success_rate"]
    assert rate.b == sum(row["error_code"] is None for row in second.rows) / 500
    assert (rate.effect, rate.verdict) == (rate.b - rate.a, Verdict.DIFFERENT)
    assert found["throughput_p50"].effect == pytest.approx(-0.5, abs=0.05)


def test_intervals_hold_the_truth(is_long: bool) -> None:
    pairs = 400 if is_long else 12
    holds = 0
    for seed in range(pairs):
        each = _by_name(_pair(seed, factor=1.2))["ttfb_p50"]
        holds += each.ci_low <= 0.2 <= each.ci_high
    assert holds / pairs >= (0.9 if is_long else 0.75)


def test_much_data_says_the_same() -> None:
    random = np.random.default_rng(9)
    first, second = (simulated.dataset(label, random, count=10_000) for label in "AB")
    assert {each.verdict for each in compare(first, second)} == {Verdict.SAME}


def test_few_are_never_called_different() -> None:
    random = np.random.default_rng(9)
    first, second = (
        simulated.dataset(label, random, count=5, factor=factor, failing=0)
        for label, factor in (("A", 1.0), ("B", 100.0))
    )
    found = compare(first, second)
    assert {each.verdict for each in found} == {Verdict.INCONCLUSIVE}
    assert not any(each.is_enough for each in found)


def test_none_failed_of_few_does_not_mean_that_none_fails() -> None:
    random = np.random.default_rng(9)
    first, second = (simulated.dataset(each, random, count=20, failing=0) for each in "AB")
    rate = _by_name(compare(first, second))["success_rate"]
    assert rate.ci_low < -0.02 < 0.02 < rate.ci_high
    assert rate.verdict is Verdict.INCONCLUSIVE


def test_groups_share_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    first, second = (simulated.dataset(each, random, sizes=(51200, 1 << 20)) for each in "AB")
    whole = compare(first, second)
    names = [each.name for each in whole]
    assert names[:4] == ["ttfb_p50", "ttlb_p50", "throughput_p50", "success_rate"]
    assert {"ttfb_p50.50KiB", "ttfb_p95.1MiB", "success_rate.1MiB"} < set(names)
    # In pieces of any size the draws are the same kind of numbers.
    monkeypatch.setattr(comparison, "_CELLS_AT_ONCE", 1000)
    pieces = compare(first, second)
    assert [each.name for each in pieces] == names
    for one, other in zip(whole, pieces, strict=True):
        assert other.ci_low == pytest.approx(one.ci_low, abs=0.1)


def test_all_failed_leaves_the_rate() -> None:
    random = np.random.default_rng(2)
    first = simulated.dataset("A", random, failing=0)
    second = simulated.dataset("B", random, failing=1)
    found = compare(first, second)
    assert [(each.name, each.b, each.verdict) for each in found] == [
        ("success_rate", 0.0, Verdict.DIFFERENT)
    ]


def test_a_record_is_plain() -> None:
    record = _pair(1)[0].record()
    assert set(record) == {"a", "b", "effect", "ci_low", "ci_high", "n_a", "n_b", "verdict"}
    assert record["verdict"] in {"same", "different", "inconclusive"}
    assert metrics.UNITS["ttfb"] == "s"
