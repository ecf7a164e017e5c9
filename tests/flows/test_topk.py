"""The largest flows in bounded memory, against all flows."""

from __future__ import annotations

import numpy as np
import pytest
from flow_frames import made_up_table
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.flows import keys
from perfmeasure.flows.keys import Total
from perfmeasure.flows.topk import TopFlows


@given(
    room=st.integers(1, 60),
    windows=st.lists(st.tuples(st.integers(0, 999), st.integers(0, 80)), max_size=12),
)
def test_nothing_is_lost_and_nothing_large_is_missing(
    room: int, windows: list[tuple[int, int]]
) -> None:
    top = TopFlows(room)
    tables = [made_up_table(seed, count, of=100) for seed, count in windows]
    for table in tables:
        top.add(table)
    exact = keys.merge(tables)
    true = {row["src_port"]: int(row["bytes"]) for row in exact}
    kept, missed = top.flows()

    # Exact together: what was kept and the buckets of the rest, for each protocol and direction.
    assert len(kept) <= room
    assert top.total == keys.total(exact)
    rest = top.rest()
    for direction in (0, 1):
        for protocol in (6, 17):
            there = (exact["direction"] == direction) & (exact["protocol"] == protocol)
            here = (kept["direction"] == direction) & (kept["protocol"] == protocol)
            bucket = rest.get((direction, protocol), Total())
            assert keys.total(exact[there]) == keys.total(kept[here]).plus(bucket)

    # The error is as small as was promised, for each flow and in all.
    assert top.error_bytes <= top.bound_bytes
    for row, most in zip(kept, missed, strict=True):
        assert 0 <= true[row["src_port"]] - int(row["bytes"]) <= int(most) <= top.error_bytes
    absent = set(true) - set(kept["src_port"].tolist())
    assert all(true[port] <= top.error_bytes for port in absent)
    assert kept["bytes"].tolist() == sorted(kept["bytes"].tolist(), reverse=True)

    found = top.against(exact)
    assert found["largest_missing_bytes"] == max((true[port] for port in absent), default=0)
    gaps = [true[row["src_port"]] - int(row["bytes"]) for row in kept]
    assert found["worst_error_bytes"] == max(gaps, default=0)
    assert found["mean_error_bytes"] == pytest.approx(float(np.mean(gaps)) if gaps else 0.0)


def test_with_room_for_all_it_is_the_exact_table() -> None:
    top = TopFlows(100)
    tables = [made_up_table(seed, 50, of=100) for seed in range(20)]
    for table in tables:
        top.add(table)
    kept, missed = top.flows()
    exact = keys.merge(tables)
    assert np.array_equal(np.sort(kept, order="src_port"), np.sort(exact, order="src_port"))
    assert top.error_bytes == 0
    assert not missed.any()
    assert top.rest() == {}


def test_a_flow_that_comes_in_every_window_is_found_among_large_old_ones() -> None:
    # Three flows were large once; then one that is smaller in each window, but not in all.
    top = TopFlows(3)
    old = np.zeros(3, keys.TABLE)
    old["src_port"], old["packets"], old["bytes"] = [1, 2, 3], 1, 1000
    new = np.zeros(1, keys.TABLE)
    new["src_port"], new["packets"], new["bytes"] = 4, 1, 900
    top.add(old)
    for _ in range(20):
        top.add(new)
    kept, _ = top.flows()
    assert 4 in kept["src_port"]
