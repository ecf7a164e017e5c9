"""Makes the time series of a topology that was joined: its edges, and how sure it is.

An edge's ends that are no known service have what they are for a service (``external``,
``ambiguous``, ``unattributed``) and where they are for an instance.
"""

# ruff: noqa: S608 - what is put into queries is this package's own names

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
    labels = ", ".join(f"{label} VARCHAR" for label in group.labels)
    columns = ", ".join(f"{family.name} DOUBLE" for family in group.families)
    for table, kinds in (
        (group.series_table, f"id BIGINT, {labels}"),
        (group.samples_table, f"id BIGINT, at_ms BIGINT, {columns}"),
    ):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} ({kinds})")
    if at_ms is None or not values:
        return
    numbered = list(enumerate(sorted(values.items()), 1))
    rows = [(number, *key) for number, (key, _) in numbered]
    places = ", ".join("?" * (len(group.labels) + 1))
    connection.executemany(f"INSERT INTO {group.series_table} VALUES ({places})", rows)
    samples = [(number, at_ms, *totals) for number, (_, totals) in numbered]
    connection.executemany(f"INSERT INTO {group.samples_table} VALUES (?, ?, ?, ?)", samples)
