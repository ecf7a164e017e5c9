from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from perfmeasure.analysis.cautions import cautions
from perfmeasure.analysis.comparison import compare
from perfmeasure.analysis.datasets import Dataset
from tests.analysis import simulated


@pytest.fixture
def pair() -> tuple[Dataset, Dataset]:
    random = np.random.default_rng(4)
    return simulated.dataset("A", random), simulated.dataset("B", random)


def _said(a: Dataset, b: Dataset) -> str:
    return "\n".join(cautions(a, b, compare(a, b)))


def test_good_data_are_left_alone(pair: tuple[Dataset, Dataset]) -> None:
    assert _said(*pair) == ""


def test_too_few(pair: tuple[Dataset, Dataset]) -> None:
    few = dataclasses.replace(pair[1], rows=pair[1].rows[:5])
    said = _said(pair[0], few)
    assert "B has 5 transfers" in said
    assert "6 of 6 metrics have too few values" in said


def test_other_hosts(pair: tuple[Dataset, Dataset]) -> None:
    pair[1].hosts = {("elsewhere", "192.0.2.9")}
    assert "the hosts differ (A: host; B: elsewhere)" in _said(*pair)


def test_other_times(pair: tuple[Dataset, Dataset]) -> None:
    for row in pair[1].rows:
        row["start"] += 1e7
    assert "of different times" in _said(*pair)


def test_build_timeout_not_learned(pair: tuple[Dataset, Dataset]) -> None:
    pair[0].circuits, pair[0].cbt_unset = 100, 7
    assert "in A 7 of 100 circuits were launched before" in _said(*pair)
    pair[0].cbt_unset = 5
    assert _said(*pair) == ""


def test_drift(pair: tuple[Dataset, Dataset]) -> None:
    for place, row in enumerate(pair[0].rows):
        if row["time_to_first_byte"] is not None:
            row["time_to_first_byte"] *= 1 + place / 500
    assert "A drifts: the time to first byte is +" in _said(*pair)


def test_transfers_like_the_one_before(pair: tuple[Dataset, Dataset]) -> None:
    for place, row in enumerate(pair[1].rows):
        if row["time_to_first_byte"] is not None:
            row["time_to_first_byte"] *= 1 + (place // 25) % 2
    assert "in B transfers resemble the one before" in _said(*pair)


def test_another_mix(pair: tuple[Dataset, Dataset]) -> None:
    for row in pair[0].rows[:100]:
        row["server"] = "onion"
    assert "mixed differently (onion, 50KiB: 20% of A, 0% of B)" in _said(*pair)


def test_several_sizes() -> None:
    random = np.random.default_rng(4)
    first, second = (simulated.dataset(each, random, sizes=(51200, 1 << 20)) for each in "AB")
    assert "several sizes are taken together" in _said(first, second)


def test_failures() -> None:
    random = np.random.default_rng(4)
    first = simulated.dataset("A", random, failing=0.5)
    second = simulated.dataset("B", random, failing=1)
    said = _said(first, second)
    assert "transfers failed: its times are those of the fortunate ones" in said
    assert "in B every transfer failed" in said


def test_the_same_twice(pair: tuple[Dataset, Dataset]) -> None:
    assert "A and B hold the same transfers" in _said(
        pair[0], dataclasses.replace(pair[0], label="B")
    )


def test_nothing_ended() -> None:
    assert "A holds no transfer that ended" in "".join(cautions(Dataset("A"), Dataset("B"), []))
