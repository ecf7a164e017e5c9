from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmeasure.analysis import buckets
from perfmeasure.errors import PerfmeasureError
from tests.analysis.topologies import call, section

ENDS = ("10.0.0.1", 5000, "192.0.2.1", 443)


def found(tmp_path: Path, *calls: dict[str, Any], **options: Any) -> dict[str, Any]:
    return section(tmp_path, connections=calls, has_buckets=True, **options)


def test_a_connection_is_spread_over_its_life(tmp_path: Path) -> None:
    document = found(tmp_path, call("m1", "web", ENDS, 100))
    assert [bucket["start_unix_ts"] for bucket in document["buckets"]] == [
        1000.0 + n for n in range(11)
    ]
    assert [bucket["edges"] for bucket in document["buckets"]] == [[[0, 10, 1]]] * 10 + [
        [[0, 0, 1]]
    ]


def test_only_the_window_is_cut(tmp_path: Path) -> None:
    document = found(tmp_path, call("m1", "web", ENDS, 100), window=2.5)
    assert [bucket["edges"] for bucket in document["buckets"]] == [
        [[0, 5, 1]],
        [[0, 10, 1]],
        [[0, 10, 1]],
        [[0, 0, 1]],
    ]


def test_without_connections_there_are_none(tmp_path: Path) -> None:
    assert "buckets" not in found(tmp_path)


@settings(max_examples=15)
@given(
    lives=st.lists(
        st.tuples(
            st.floats(1.7e9, 1.7e9 + 1e4), st.floats(0, 1e5), st.integers(0, 10**12),
            st.sampled_from(["192.0.2.1", "192.0.2.2"]),
        ),
        min_size=1, max_size=30,
    )
)  # fmt: skip
def test_the_buckets_add_up_to_the_edges(lives: list[tuple[float, float, int, str]]) -> None:
    calls = [
        call("m1", "web", ("10.0.0.1", 5000, ip, 443), size, start_unix_ts=start,
             end_unix_ts=start + length)
        for start, length, size, ip in lives
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        document = found(Path(place), *calls, most_external=1)
    assert 1 <= len(document["buckets"]) <= buckets.MOST_BUCKETS
    totals = [0] * len(document["edges"])
    for bucket in document["buckets"]:
        for at, size, connections in bucket["edges"]:
            assert connections > 0
            totals[at] += size
    assert totals == [edge["bytes"] for edge in document["edges"]]


@pytest.mark.parametrize(
    ("length", "seconds"),
    [(0, 1), (58.9, 1), (59, 2), (3600, 120), (86400, 1800), (86400 * 365, 86400 * 7)],
)
def test_lengths(length: float, seconds: int) -> None:
    assert buckets.seconds_for(length) == seconds


def test_buckets_that_do_not_add_up_are_none() -> None:
    with pytest.raises(PerfmeasureError, match="buckets"):
        buckets.document([(0, 0, 5, 1)], [{"bytes": 6}], 0.0, 1)
