from __future__ import annotations

from typing import Any

import duckdb
import pytest

from perfmeasure.analysis import pairs


def paired(*reports: tuple[Any, ...]) -> list[tuple[int, int]]:
    """Return the pairs of (instance, is_caller, local port, remote port, start, end)."""
    with duckdb.connect() as cursor:
        cursor.execute(
            "CREATE TABLE directed (row BIGINT, instance_id VARCHAR, netns BIGINT, "
            "protocol VARCHAR, local_ip VARCHAR, local_port INTEGER, remote_ip VARCHAR, "
            "remote_port INTEGER, start_ts DOUBLE, end_ts DOUBLE, is_caller BOOLEAN)"
        )
        for row, (instance, is_caller, local, remote, start, end) in enumerate(reports):
            ips = ("10.0.0.1", "10.0.0.2") if is_caller else ("10.0.0.2", "10.0.0.1")
            cursor.execute(
                "INSERT INTO directed VALUES (?, ?, 1, 'tcp', ?, ?, ?, ?, ?, ?, ?)",
                [row, instance, ips[0], local, ips[1], remote, start, end, is_caller],
            )
        pairs.make(cursor)
        return cursor.execute("SELECT caller, callee FROM pair ORDER BY ALL").fetchall()


def test_ends_that_overlap_belong_together() -> None:
    assert paired(("m1", True, 5000, 80, 10.0, 11.0), ("m2", False, 80, 5000, 10.1, 11.1)) == [
        (0, 1)
    ]


def test_ports_that_come_again_go_by_time() -> None:
    calls = [("m1", True, 5000, 80, float(at), at + 0.5) for at in (10, 11, 12)]
    accepted = [("m2", False, 80, 5000, at + 0.4, at + 0.9) for at in (10, 11, 12)]
    assert paired(*calls, *accepted) == [(0, 3), (1, 4), (2, 5)]


def test_one_that_was_lost_leaves_the_others_paired() -> None:
    calls = [("m1", True, 5000, 80, float(at), at + 0.5) for at in (10, 40, 70)]
    accepted = [("m2", False, 80, 5000, float(at), at + 0.5) for at in (10, 70)]
    assert paired(*calls, *accepted) == [(0, 3), (2, 4)]


def test_clocks_that_are_far_apart_pair_nothing() -> None:
    assert paired(("m1", True, 5000, 80, 10.0, 11.0), ("m2", False, 80, 5000, 60.0, 61.0)) == []


def test_the_own_machine_comes_first_where_addresses_repeat() -> None:
    assert paired(
        ("m1", True, 5000, 80, 10.0, 11.0),
        ("m2", False, 80, 5000, 10.0, 11.0),
        ("m1", False, 80, 5000, 10.5, 11.0),
    ) == [(0, 2)]


def test_in_several_passes_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_REPORTS_AT_ONCE", 2)
    calls = [("m1", True, 5000 + n, 80, 10.0, 11.0) for n in range(7)]
    accepted = [("m2", False, 80, 5000 + n, 10.0, 11.0) for n in range(7)]
    assert paired(*calls, *accepted) == [(n, n + 7) for n in range(7)]
