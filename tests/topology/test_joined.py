from __future__ import annotations

from typing import Any

import duckdb

from perfmeasure.topology import families, joined
from tests.topology import tsdb

END_MS = 1795309200500


def document(**more: Any) -> dict[str, Any]:
    edges = [
        edge("m1/app", "m2/mysql", 3306, 900, 3),
        edge("m1/app", "external/192.0.2.1:443", 443, 500, 2),
        edge("m1/unattributed", "m2/mysql", 3306, 40, 1),
        edge("m1/app", "ambiguous/10.0.0.9:80", 80, 9, 1),
    ]
    parts = {"input": 1449, "matched": 900, "external": 500, "ambiguous": 9, "unattributed": 40}
    return {
        "nodes": [
            {"id": "m1/app", "kind": "service", "service": "app", "instance": "m1"},
            {"id": "m2/mysql", "kind": "service", "service": "mysql", "instance": "m2"},
            {"id": "m1/unattributed", "kind": "unattributed", "instance": "m1"},
            {"id": "external/192.0.2.1:443", "kind": "external"},
            {"id": "ambiguous/10.0.0.9:80", "kind": "ambiguous", "candidates": ["m3/a", "m3/b"]},
        ],
        "edges": edges,
        "coverage": {
            **{f"{part}_bytes": size for part, size in parts.items()},
            **{f"{part}_connections": size // 100 for part, size in parts.items()},
        },
        "window": {"start_unix_ts": 1795305600.0, "end_unix_ts": END_MS / 1000},
        **more,
    }


def edge(source: str, target: str, port: int, size: int, connections: int) -> dict[str, Any]:
    return {
        "source": source,
        "target": target,
        "port": port,
        "protocol": "tcp",
        "bytes": size,
        "connections": connections,
    }


def found(asked: dict[str, Any], most_edges: int = 10) -> tuple[dict[tuple[str, ...], float], int]:
    connection = duckdb.connect()
    left_out = joined.build(connection, asked, most_edges=most_edges)
    made = tsdb.made(connection, families.JOINED)
    assert {at for samples in made.values() for at, _ in samples} <= {END_MS}
    names = ("__name__", *families.EDGES.labels, "part")
    return {
        tuple(dict(labels)[name] for name in names if name in dict(labels)): value
        for labels, ((_, value),) in made.items()
    }, left_out


def test_each_edge_and_each_part_of_the_coverage_is_a_series() -> None:
    values, left_out = found(document())
    assert left_out == 0
    assert {key[1:]: value for key, value in values.items() if key[0] == "service_edge"} == {
        ("app", "m1", "mysql", "m2", "3306", "tcp"): 900,
        ("app", "m1", "external", "192.0.2.1:443", "443", "tcp"): 500,
        ("unattributed", "m1", "mysql", "m2", "3306", "tcp"): 40,
        ("app", "m1", "ambiguous", "10.0.0.9:80", "80", "tcp"): 9,
    }
    assert values["service_edge_connections", "app", "m1", "mysql", "m2", "3306", "tcp"] == 3
    assert values["service_coverage", "input"] == 1449
    assert values["service_coverage_connections", "matched"] == 9


def test_the_smallest_edges_are_put_together_beyond_the_bound() -> None:
    values, left_out = found(document(), most_edges=2)
    assert left_out == 2
    assert values["service_edge", "other", "other", "other", "other", "other", "tcp"] == 49
    assert sum(value for key, value in values.items() if key[0] == "service_edge") == 1449


def test_of_no_connection_there_is_no_sample() -> None:
    asked = document(edges=[])
    del asked["window"]
    assert found(asked) == ({}, 0)
