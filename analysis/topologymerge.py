"""Several topologies as one: of the days of a measurement, or of its folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perfmeasure import jsonio
from perfmeasure.analysis.topology import share

_KEY = ("source", "target", "protocol", "port")


def merge(sections: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of topologies that are grouped alike; of the same one twice, one.

    They are of connections that differ: those of one day, or one machine, and of another. Both ends
    of a connection count once only within each.
    """
    by_text = {jsonio.canonical(section): section for section in sections}
    distinct = [by_text[text] for text in sorted(by_text)]
    if len(distinct) == 1:
        return dict(distinct[0])
    merged: dict[str, Any] = {
        "group_by": distinct[0]["group_by"],
        "nodes": _nodes(distinct),
        "edges": _edges(distinct),
        "coverage": _coverage([section["coverage"] for section in distinct]),
    }
    if windows := [section["window"] for section in distinct if "window" in section]:
        merged["window"] = {
            "start_unix_ts": min(window["start_unix_ts"] for window in windows),
            "end_unix_ts": max(window["end_unix_ts"] for window in windows),
        }
    return merged


def _nodes(sections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    nodes: dict[str, dict[str, Any]] = {}
    for section in sections:
        for node in section["nodes"]:
            known = nodes.setdefault(node["id"], dict(node))
            for field, value in node.items():
                if isinstance(value, list):
                    texts = {
                        jsonio.canonical(each): each for each in (*known.get(field, ()), *value)
                    }
                    known[field] = [texts[text] for text in sorted(texts)]
                elif field == "peers":  # who may be the same ones
                    known[field] = max(known[field], value)
    return [nodes[name] for name in sorted(nodes)]


def _edges(sections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    edges: dict[tuple[Any, ...], dict[str, Any]] = {}
    for section in sections:
        for edge in section["edges"]:
            key = tuple(edge[name] for name in _KEY)
            if key not in edges:
                edges[key] = dict(edge)
                continue
            known = edges[key]
            for field in ("bytes", "bytes_sent", "bytes_received", "connections"):
                known[field] += edge[field]
            known["first_unix_ts"] = min(known["first_unix_ts"], edge["first_unix_ts"])
            known["last_unix_ts"] = max(known["last_unix_ts"], edge["last_unix_ts"])
            known["sources"] = sorted({*known["sources"], *edge["sources"]})
            known["is_inferred"] = known["is_inferred"] or edge["is_inferred"]
    return [edges[key] for key in sorted(edges, key=lambda key: (-edges[key]["bytes"], key))]


def _coverage(coverages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {"lost": {}}
    for coverage in coverages:
        for field, value in coverage.items():
            if isinstance(value, int):
                merged[field] = merged.get(field, 0) + value
        for what, count in coverage["lost"].items():
            merged["lost"][what] = merged["lost"].get(what, 0) + count
    return merged | share(merged)
