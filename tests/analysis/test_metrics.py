from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis.metrics import Outcomes, Values, metrics_of, size_name
from tests.analysis import simulated


@given(
    st.lists(st.floats(0.001, 1e6), min_size=1, max_size=30),
    st.integers(0, 2**32),
    st.sampled_from([0.5, 0.95]),
)
def test_drawn_quantiles_are_those_of_what_was_drawn(
    numbers: list[float], seed: int, quantile: float
) -> None:
    values = Values(np.array(numbers), np.arange(len(numbers)))
    picked = np.random.default_rng(seed).integers(len(numbers), size=(4, len(numbers)))
    times = np.stack([np.bincount(line, minlength=len(numbers)) for line in picked])
    found = values.drawn_quantiles(np.cumsum(times[:, values.places], axis=1), quantile)
    wanted = [np.quantile(np.array(numbers)[line], quantile) for line in picked]
    assert found == pytest.approx(wanted)


def test_a_draw_without_any_has_the_largest() -> None:
    values = Values(np.array([2.0, 1.0]), np.array([0, 1]))
    assert list(values.drawn_quantiles(np.zeros((1, 2), dtype=np.int64), 0.5)) == [2.0]


def test_rates_lie_around_what_was_seen() -> None:
    rates = Outcomes(90, 100).drawn_rates(np.random.default_rng(1), 20_000)
    assert float(np.mean(rates)) == pytest.approx(0.9, abs=0.01)
    assert float(np.std(rates)) == pytest.approx(0.03, abs=0.003)


@pytest.mark.parametrize(
    ("size_bytes", "name"),
    [(0, "0B"), (1000, "1000B"), (51200, "50KiB"), (5 << 20, "5MiB"), (1 << 30, "1GiB")],
)
def test_size_name(size_bytes: int, name: str) -> None:
    assert size_name(size_bytes) == name


def test_groups_only_where_there_are_several() -> None:
    rows = [simulated.row(n, 0.1, 1.0) for n in range(4)]
    names = [metric.name for metric in metrics_of(rows, rows)]
    assert names == [
        "ttfb_p50", "ttfb_p95", "ttlb_p50", "ttlb_p95", "throughput_p50", "success_rate",
    ]  # fmt: skip
    onion = [simulated.row(n, 0.1, 1.0, server="onion", filesize_bytes=1 << 20) for n in range(4)]
    names = [metric.name for metric in metrics_of(rows + onion, rows + onion)]
    # All of the onion service are of one size: told once.
    assert [name for name in names if name.startswith("ttlb_p50")] == [
        "ttlb_p50",
        "ttlb_p50.1MiB",
        "ttlb_p50.50KiB",
    ]


def test_throughput() -> None:
    rows = [
        simulated.row(0, 1.0, 2.0, filesize_bytes=1_000_000),
        simulated.row(1, 1.0, 2.0, filesize_bytes=5 << 20, mbps=3.0),
        simulated.row(2, 1.0, 2.0, filesize_bytes=5 << 20),  # all of the last MiB in one read
        simulated.row(3, 1.0, 1.0),
        simulated.row(4, 1.0, None),
    ]
    found = {m.name: m for m in metrics_of(rows, rows)}["throughput_p50"]
    assert list(found.of_a.ascending) == [3.0, 8.0]
