from __future__ import annotations

from typing import Any

from perfmeasure.analysis.topologydiff import diff


def topology(**edges: int) -> dict[str, Any]:
    """Return one whose edges go from a to the names given."""
    return {
        "nodes": [{"id": name} for name in ("a", *edges)],
        "edges": [
            {"source": "a", "target": name, "protocol": "tcp", "port": 80, "bytes": size,
             "connections": 1}
            for name, size in edges.items()
        ],
        "coverage": {"input_bytes": sum(edges.values())},
    }  # fmt: skip


def test_each_kind_of_change() -> None:
    found = diff(topology(b=100, c=50, d=50, e=1), topology(b=300, c=25, f=75, e=1))
    assert found["nodes"] == {"appeared": ["f"], "vanished": ["d"]}
    edges = found["edges"]
    assert edges["unchanged_count"] == 1
    assert [edge["target"] for edge in edges["appeared"]] == ["f"]
    assert [edge["target"] for edge in edges["vanished"]] == ["d"]
    assert edges["grew"] == [
        {
            "source": "a", "target": "b", "protocol": "tcp", "port": 80,
            "bytes_before": 100, "bytes_after": 300, "ratio": 3.0,
            "connections_before": 1, "connections_after": 1,
            "share_before": 100 / 201, "share_after": 300 / 401,
        }
    ]  # fmt: skip
    [shrunk] = edges["shrank"]
    assert (shrunk["target"], shrunk["ratio"]) == ("c", 0.5)
    assert "ratio" not in edges["appeared"][0]
    assert found["coverage"] == {"before": {"input_bytes": 201}, "after": {"input_bytes": 401}}


def test_the_largest_change_comes_first() -> None:
    found = diff(topology(b=1, c=1, d=1), topology(b=3, c=9, d=5))
    assert [edge["target"] for edge in found["edges"]["grew"]] == ["c", "d", "b"]


def test_of_nothing_there_is_no_share() -> None:
    found = diff(topology(), topology(b=5))
    [edge] = found["edges"]["appeared"]
    assert "share_before" not in edge
    assert edge["share_after"] == 1.0
