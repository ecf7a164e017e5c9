"""What changed between two topologies: edges that appeared, vanished, grew or shrank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEY = ("source", "target", "protocol", "port")


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs, by ``nodes`` and ``edges``, the largest change first.

    Returns:
        ``nodes``: ``appeared`` and ``vanished``, their ids. ``edges``: ``appeared``, ``vanished``,
        ``grew`` and ``shrank``; each has the edge's key, ``bytes_before``, ``bytes_after``,
        ``connections_before``, ``connections_after``, ``share_before`` and ``share_after`` of all
        bytes of its topology (absent if that has none), and ``ratio`` of the bytes (absent where
        there were none). ``unchanged_count`` is of the edges with the same bytes.
    """
    nodes = [{node["id"] for node in document["nodes"]} for document in (before, after)]
    edges = [_by_key(document) for document in (before, after)]
    totals = [sum(edge["bytes"] for edge in by_key.values()) for by_key in edges]
    found: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("appeared", "vanished", "grew", "shrank")
    }
    unchanged = 0
    for key in sorted(edges[0].keys() | edges[1].keys()):
        pair = [by_key.get(key) for by_key in edges]
        change = _change(key, pair, totals)
        grown = change["bytes_after"] - change["bytes_before"]
        if pair[0] is None:
            found["appeared"].append(change)
        elif pair[1] is None:
            found["vanished"].append(change)
        elif grown:
            found["grew" if grown > 0 else "shrank"].append(change)
        else:
            unchanged += 1
    for changes in found.values():
        changes.sort(key=lambda c: -abs(c["bytes_after"] - c["bytes_before"]))
    return {
        "type": "perfmeasure-topology-diff",
        "version": "1.0",
        "nodes": {
            "appeared": sorted(nodes[1] - nodes[0]),
            "vanished": sorted(nodes[0] - nodes[1]),
        },
        "edges": {**found, "unchanged_count": unchanged},
        "coverage": {"before": before["coverage"], "after": after["coverage"]},
    }


def _by_key(document: Mapping[str, Any]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    return {tuple(edge[name] for name in _KEY): edge for edge in document["edges"]}


def _change(
    key: tuple[Any, ...], pair: list[Mapping[str, Any] | None], totals: list[int]
) -> dict[str, Any]:
    change: dict[str, Any] = dict(zip(_KEY, key, strict=True))
    for when, edge, total in zip(("before", "after"), pair, totals, strict=True):
        change[f"bytes_{when}"] = edge["bytes"] if edge else 0
        change[f"connections_{when}"] = edge["connections"] if edge else 0
        if total:
            change[f"share_{when}"] = change[f"bytes_{when}"] / total
    if change["bytes_before"]:
        change["ratio"] = change["bytes_after"] / change["bytes_before"]
    return change
