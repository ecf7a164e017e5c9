"""Makes the time series of a topology that was joined: its edges, and how sure it is.

An edge's ends that are no known service have what they are for a service (``external``,
``ambiguous``, ``unattributed``) and where they are for an instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perfmeasure.topology.families import COVERAGE, EDGES, OTHER, Group

if TYPE_CHECKING:
    import duckdb

MOST_EDGES = 10_000
"""What is beyond, the smallest by bytes, is put together for each caller's service."""

_PARTS = ("input", "matched", "external", "ambiguous", "unattributed")


def build(
    connection: duckdb.DuckDBPyConnection,
    document: Mapping[str, Any],
    *,
    most_edges: int = MOST_EDGES,
) -> int:
    """Make the tables of the groups of `families.JOINED`, with one sample of each series.

    Args:
        connection: where they are made, for this connection alone.
        document: a topology (docs/formats.md), grouped by service; the samples' time is the end
            of its window. Without a window it has no edge, and there are no samples.
        most_edges: how many edges have a series of their own.

    Returns:
        How many edges are in `OTHER`.
    """
    window = document.get("window")
    at_ms = int(window["end_unix_ts"] * 1000) if window else None
    ends = {node["id"]: _end(node) for node in document["nodes"]}
    edges: dict[tuple[str, ...], tuple[int, int]] = {}
    kept: set[tuple[str, ...]] = set()
    left_out = 0
    for edge in document["edges"]:  # the largest first
        caller = ends[edge["source"]]
        key = (*caller, *ends[edge["target"]], str(edge["port"]), edge["protocol"])
        if key not in kept:
            if len(kept) < most_edges:
                kept.add(key)
            else:
                left_out += 1
                key = (OTHER, OTHER, OTHER, OTHER, OTHER, edge["protocol"])
        size, count = edges.get(key, (0, 0))
        edges[key] = (size + edge["bytes"], count + edge["connections"])
    coverage = document["coverage"]
    parts: dict[tuple[str, ...], tuple[int, int]] = {
        (part,): (coverage[f"{part}_bytes"], coverage[f"{part}_connections"]) for part in _PARTS
    }
    _fill(connection, EDGES, edges, at_ms)
    _fill(connection, COVERAGE, parts, at_ms)
    return left_out


def _end(node: Mapping[str, Any]) -> tuple[str, str]:
    """Return service and instance of a node, or what it is and where."""
    if node["kind"] == "service":
        return node["service"], node["instance"]
    return node["kind"], node.get("instance") or node["id"].partition("/")[2]


def _fill(
    connection: duckdb.DuckDBPyConnection,
    group: Group,
    values: Mapping[tuple[str, ...], tuple[int, int]],
    at_ms: int | None,
) -> None:
    keys = sorted(values) if at_ms is not None else []
    ids = list(range(1, len(keys) + 1))
    # A column at a time: row by row would take a statement each.
    columns = {
        group.series_table: [
            ("id", "BIGINT", ids),
            *(
                (label, "VARCHAR", [key[place] for key in keys])
                for place, label in enumerate(group.labels)
            ),
        ],
        group.samples_table: [
            ("id", "BIGINT", ids),
            ("at_ms", "BIGINT", [at_ms] * len(keys)),
            *(
                (family.name, "DOUBLE", [values[key][place] for key in keys])
                for place, family in enumerate(group.families)
            ),
        ],
    }
    for table, of_table in columns.items():
        selected = ", ".join(f"unnest(?::{kind}[]) AS {name}" for name, kind, _ in of_table)
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {selected}",
            [column for *_, column in of_table],
        )
