from __future__ import annotations

import numpy as np
import pytest

from perfmeasure.analysis.datasets import Dataset
from perfmeasure.analysis.figures import Figure, Kind, figures
from tests.analysis import simulated


def _figures(*datasets: Dataset) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(datasets)}


@pytest.fixture
def pair() -> tuple[Dataset, Dataset]:
    random = np.random.default_rng(1)
    return (
        simulated.dataset("A", random, count=40, failing=0.2),
        simulated.dataset("B", random, count=30, failing=0, sizes=(51200, 1 << 20)),
    )


def test_those_of_onionperf(pair: tuple[Dataset, Dataset]) -> None:
    found = _figures(*pair)
    assert [name for name, figure in found.items() if not figure.is_outlier] == [
        "ttfb_ecdf_public",
        "ttfb_time_public_50KiB",
        "ttfb_time_public_1MiB",
        "ttlb_ecdf_public_50KiB",
        "ttlb_ecdf_public_1MiB",
        "ttlb_box_public_50KiB",
        "ttlb_box_public_1MiB",
        "ttlb_mean_public_50KiB",
        "ttlb_mean_public_1MiB",
        "ttlb_time_public_50KiB",
        "ttlb_time_public_1MiB",
        "throughput_ecdf_public",
        "downloads_public_50KiB",
        "downloads_public_1MiB",
        "errors_public",
        "errors_time_public",
        "circuit_builds",
        "phases",
    ]


def test_what_they_show(pair: tuple[Dataset, Dataset]) -> None:
    first, second = pair
    found = _figures(first, second)
    good = [row for row in first.rows if row["error_code"] is None]
    assert found["ttfb_ecdf_public"].series["A"] == [row["time_to_first_byte"] for row in good]
    assert found["ttlb_time_public_50KiB"].series["A"] == [
        (row["start"], row["time_to_last_byte"]) for row in good
    ]
    assert found["downloads_public_50KiB"].series == {"A": [("A", len(good))], "B": [("B", 15)]}
    mean = sum(row["time_to_last_byte"] for row in good) / len(good)
    assert found["ttlb_mean_public_50KiB"].series["A"] == [("A", pytest.approx(mean))]
    assert found["errors_public"].series["A"] == [("TGEN/TIMEOUT", 40 - len(good))]
    assert found["errors_public"].series["B"] == []
    assert found["ttlb_box_public_1MiB"].series["A"] == []


def test_outliers_by_relay(pair: tuple[Dataset, Dataset]) -> None:
    for place, row in enumerate(pair[0].rows):
        row["fingerprints"] = ["GUARD", f"EXIT{place % 20}"]
    found = {f.name: f for f in figures(pair, percent=50, threshold=3)}
    shown = found["ttfb_outliers_public"]
    assert shown.kind is Kind.STRIP
    names = {name for _, name in shown.series["A"]}
    assert "GUARD" in names
    assert len(names) == 3
    assert found["error_relays_public"].series["A"][0][0] == "GUARD"


def test_nothing_gives_each_figure_empty() -> None:
    found = _figures(Dataset("A"))
    assert {"ttfb_ecdf_any", "ttlb_box_any", "errors_any", "phases"} < set(found)
    assert all(figure.is_empty for figure in found.values())
