from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import statistics
from perfmeasure.analysis.statistics import Times


def transfer(start: float, remote: str = "localhost:127.0.0.1:80", **other: Any) -> dict[str, Any]:
    return {
        "endpoint_remote": remote,
        "elapsed_seconds": {"first_byte": 0.1, "last_byte": 1.0},
        "error_code": "NONE",
        "is_complete": True,
        "is_error": False,
        "is_success": True,
        "links": {"status": "linked"},
        "unix_ts_start": start,
        **other,
    }


def database(*transfers: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"a": {"tgen": {"transfers": dict(enumerate(transfers))}}, "b": {"tor": {}}}}


def test_describe() -> None:
    onion = "abc.onion:0.0.0.0:80"
    failed: dict[str, Any] = {"is_success": False, "is_error": True, "error_code": "TIMEOUT"}
    cut: dict[str, Any] = {
        "is_success": False,
        "is_complete": False,
        "links": {"status": "unmatched"},
    }
    found = statistics.describe(
        database(
            transfer(10),
            transfer(11, elapsed_seconds={"first_byte": 0.3, "last_byte": 3.0}),
            transfer(12, **failed),
            transfer(13, onion, **failed),
            transfer(14, onion, **cut),
            transfer(1),
        ),
        since_unix_ts=5,
    )
    assert (found.count, found.successes) == (5, 2)
    by_exit, by_onion = found.destinations["exit"], found.destinations["onion"]
    assert by_exit.errors == {"TIMEOUT": 1}
    assert by_exit.first_byte is not None
    assert by_exit.first_byte.median_seconds == pytest.approx(0.2)
    assert by_exit.first_byte.percentile_95_seconds == pytest.approx(0.29)
    assert by_exit.last_byte == Times(2.0, pytest.approx(2.9))  # type: ignore[arg-type]
    assert (by_onion.count, by_onion.successes, by_onion.incomplete) == (2, 0, 1)
    assert (by_onion.linked, by_onion.first_byte) == (1, None)


def test_nothing() -> None:
    found = statistics.describe({"data": {}})
    assert (found.destinations, found.count, found.successes) == ({}, 0, 0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 100))
def test_percentile_is_numpys(values: list[float], percent: float) -> None:
    expected = float(np.percentile(values, percent))
    assert statistics.percentile(values, percent) == pytest.approx(expected, abs=1e-6)
