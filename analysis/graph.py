"""The topology of some tables: nodes, edges, and how sure it is (docs/formats.md, "topology")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from perfmeasure.analysis import buckets, topology
from perfmeasure.analysis.endpoints import is_loopback, unmapped
from perfmeasure.analysis.topology import Joined, Window

TYPE = "perfmeasure-topology"
VERSION = "1.0"
GROUPINGS = ("process", "service", "instance")
MOST_EXTERNAL = 50
"""So many of the peers that are on no machine that is known have a node of their own, by bytes."""

_OTHER = "external/other"
_SERVICE = {
    "process": "{0}instance || '/' || {0}service || coalesce('/' || {0}pid, '')",
    "service": "{0}instance || '/' || {0}service",
    "instance": "{0}instance",
}


def _place(ip: str, port: str) -> str:
    return f"if(contains({ip}, ':'), '[' || {ip} || ']', {ip}) || ':' || {port}"


_NAMED = f"""
CREATE TEMP TABLE {{table}} AS
WITH ends AS (
    SELECT *, if(is_heard, peer_instance, instance_id) AS source_instance,
           if(is_heard, NULL, service) AS source_service, if(is_heard, NULL, pid) AS source_pid,
           if(is_heard AND service IS NOT NULL, instance_id, callee_instance) AS target_instance,
           if(is_heard AND service IS NOT NULL, service, callee_service) AS target_service,
           if(is_heard AND service IS NOT NULL, pid, callee_pid) AS target_pid
    FROM {{edges}}),
kinds AS (
    SELECT *, CASE WHEN source_service IS NOT NULL THEN 'service'
                   WHEN source_instance IS NOT NULL THEN 'unattributed'
                   ELSE 'external' END AS source_kind,
           CASE WHEN candidates IS NOT NULL THEN 'ambiguous'
                WHEN target_service IS NOT NULL THEN 'service'
                WHEN is_heard THEN 'unattributed'
                ELSE 'external' END AS target_kind
    FROM ends)
SELECT CASE source_kind WHEN 'service' THEN {{source}}
            WHEN 'unattributed' THEN {{unattributed_source}}
            ELSE 'external/' || peer_ip END AS source,
       CASE target_kind WHEN 'service' THEN {{target}}
            WHEN 'ambiguous' THEN 'ambiguous/' || if({is_loopback("ip")}, scope || '/', '')
                                  || {_place("ip", "port")}
            WHEN 'unattributed' THEN {{unattributed_target}}
            ELSE 'external/' || if({is_loopback("peer_ip")}, instance_id || '/', '')
                 || {_place("peer_ip", "port")} END AS target,
       source_kind, source_instance, source_service, source_pid, target_kind,
       if(target_kind = 'unattributed', instance_id, target_instance) AS target_instance,
       target_service, target_pid, peer_ip, candidates, protocol, port, is_inferred, bucket,
       source AS known_from, connections, bytes_sent, bytes_received, first_unix_ts, last_unix_ts
FROM kinds
"""  # noqa: S608 - all of it is ours
_KEPT = """
CREATE TEMP TABLE kept AS
SELECT id, row_number() OVER (ORDER BY size DESC, id) AS place
FROM (SELECT id, sum(size) AS size
      FROM (SELECT source AS id, bytes_sent + bytes_received AS size FROM named
            WHERE source_kind = 'external'
            UNION ALL SELECT target, bytes_sent + bytes_received FROM named
            WHERE target_kind = 'external') GROUP BY id)
QUALIFY place <= {most}
"""
_EDGES = f"""
SELECT if(source_kind = 'external' AND s.id IS NULL, '{_OTHER}', source) AS source,
       if(target_kind = 'external' AND t.id IS NULL, '{_OTHER}', target) AS target,
       protocol, port, sum(bytes_sent), sum(bytes_received), sum(connections),
       min(first_unix_ts), max(last_unix_ts), list_sort(list(DISTINCT known_from)),
       bool_or(is_inferred)
FROM named LEFT JOIN kept s ON s.id = source LEFT JOIN kept t ON t.id = target
GROUP BY ALL
ORDER BY sum(bytes_sent) + sum(bytes_received) DESC, 1, 2, protocol, port
"""  # noqa: S608 - the same
_BUCKETS = f"""
SELECT bucket, if(source_kind = 'external' AND s.id IS NULL, '{_OTHER}', source),
       if(target_kind = 'external' AND t.id IS NULL, '{_OTHER}', target), protocol, port,
       sum(bytes_sent + bytes_received), sum(connections)
FROM bucket_named LEFT JOIN kept s ON s.id = source LEFT JOIN kept t ON t.id = target
GROUP BY ALL
"""  # noqa: S608 - the same
_NODES = """
SELECT source AS id, source_kind AS kind, source_instance AS instance, source_service AS service,
       source_pid AS pid, if(source_kind = 'external', peer_ip, NULL) AS ip, NULL::INTEGER AS port,
       NULL::VARCHAR[] AS candidates FROM named
UNION SELECT target, target_kind, target_instance, target_service, target_pid,
       if(target_kind = 'external', peer_ip, NULL), if(target_kind = 'external', port, NULL),
       candidates FROM named
ORDER BY ALL
"""


def section(
    folder: Path,
    *,
    group_by: str = "service",
    window: Window | float | None = None,
    most_external: int = MOST_EXTERNAL,
    lost: dict[str, int] | None = None,
    has_buckets: bool = False,
) -> dict[str, Any]:
    """Return the topology of the tables in a folder (`services.TABLES`).

    Args:
        folder: where they are.
        group_by: what a node is, one of `GROUPINGS`.
        window: as of `topology.join`.
        most_external: so many external peers have a node of their own; the rest have one together.
        lost: what the collectors lost, by what it was, for the coverage.
        has_buckets: add the bytes of each edge by time.

    Raises:
        PerfmeasureError: as `topology.join`.
    """
    with topology.join(folder, is_by_process=group_by == "process", window=window) as joined:
        graph = _Graph(joined, folder, group_by)
        edges = graph.edges(most_external)
        found: dict[str, Any] = {
            "group_by": group_by,
            "nodes": graph.nodes(edges),
            "edges": edges,
            "coverage": {**joined.coverage, "lost": dict(sorted((lost or {}).items()))},
        }
        if joined.window:
            found["window"] = joined.window._asdict()
        if has_buckets and edges:
            found["buckets"] = graph.buckets(edges)
        return found


def enveloped(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a topology as a document of its own, with its type and version."""
    return {"type": TYPE, "version": VERSION, **section}


class _Graph:
    """Names what a join found."""

    def __init__(self, joined: Joined, folder: Path, group_by: str) -> None:
        self._joined = joined
        self._cursor = joined.cursor
        self._window = joined.window
        self._folder = folder
        self._group_by = group_by
        name = _SERVICE[group_by]
        nobody = "{0}instance" if group_by == "instance" else "{0}instance || '/unattributed'"
        self._names = {
            "source": name.format("source_"),
            "target": name.format("target_"),
            "unattributed_source": nobody.format("source_"),
            "unattributed_target": nobody.format("").replace("instance", "instance_id", 1),
        }
        self._cursor.execute(_NAMED.format(table="named", edges="edge", **self._names))

    def edges(self, most_external: int) -> list[dict[str, Any]]:
        """Return the edges, the largest first."""
        self._cursor.execute(_KEPT.format(most=most_external))
        return [
            {
                "source": source,
                "target": target,
                "protocol": protocol,
                "port": port,
                "bytes": int(sent + received),
                "bytes_sent": int(sent),
                "bytes_received": int(received),
                "connections": int(connections),
                "first_unix_ts": first,
                "last_unix_ts": last,
                "sources": sources,
                "is_inferred": is_inferred,
            }
            for (
                source, target, protocol, port, sent, received, connections, first, last, sources,
                is_inferred,
            ) in self._cursor.execute(_EDGES).fetchall()
        ]  # fmt: skip

    def buckets(self, edges: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what of the edges was when."""
        first, seconds = buckets.add_edges(self._joined)
        query = _NAMED.format(table="bucket_named", edges="bucket_edge", **self._names)
        self._cursor.execute(query)
        keys = ("source", "target", "protocol", "port")
        places = {tuple(edge[key] for key in keys): at for at, edge in enumerate(edges)}
        found = [
            (int(number), places[tuple(key)], int(size), int(connections))
            for number, *key, size, connections in self._cursor.execute(_BUCKETS).fetchall()
        ]
        return buckets.document(found, edges, first, seconds)

    def nodes(self, edges: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the nodes of the edges, and the services that nobody called, by their ids."""
        used = {edge[end] for edge in edges for end in ("source", "target")}
        nodes: dict[str, dict[str, Any]] = {}
        others = 0
        for id_, kind, instance, service, pid, ip, port, candidates in self._cursor.execute(
            _NODES
        ).fetchall():
            if kind == "external" and id_ not in used:
                others += 1
                continue
            node = nodes.setdefault(id_, {"id": id_, "kind": kind})
            told = {"service": service, "instance": instance, "candidates": candidates}
            if kind == "external":
                told |= {"ip": ip, "port": port}
            if self._group_by == "process" and service:
                told["pid"] = pid
            if self._group_by == "instance" and instance:
                told = {"kind": "instance", "instance": instance}
            node.update((key, value) for key, value in told.items() if value is not None)
        if _OTHER in used:
            nodes[_OTHER] = {"id": _OTHER, "kind": "external", "peers": others}
        self._add_listeners(nodes)
        self._add_relays(nodes)
        return [nodes[id_] for id_ in sorted(nodes)]

    def _add_listeners(self, nodes: dict[str, dict[str, Any]]) -> None:
        """Add ports and addresses to the nodes, and those that listen and were not called."""
        begin, end = self._window or (0.0, 1e11)
        id_ = _SERVICE[self._group_by].replace("{0}instance", "instance_id").format("")
        rows = self._cursor.execute(
            f"SELECT DISTINCT {id_}, instance_id, service, pid, listen_port, protocol "  # noqa: S608 - ours
            "FROM listeners WHERE valid_from_unix_ts <= ? "
            "AND coalesce(valid_to_unix_ts, 1e11) >= ? ORDER BY ALL",
            [end, begin],
        ).fetchall()
        for name, instance, service, pid, port, protocol in rows:
            told: dict[str, Any] = {"id": name, "kind": "service", "service": service}
            if self._group_by == "process":
                told["pid"] = pid
            if self._group_by == "instance":
                told = {"id": name, "kind": "instance"}
            node = nodes.setdefault(name, {**told, "instance": instance})
            place = {"port": port, "protocol": protocol}
            if place not in node.setdefault("ports", []):
                node["ports"].append(place)
        ips: dict[str, list[str]] = {}
        ip = unmapped("ip")
        for instance, address in self._cursor.execute(
            f"SELECT DISTINCT instance_id, {ip} FROM addresses "  # noqa: S608 - ours
            f"WHERE NOT {is_loopback(ip)} ORDER BY ALL"
        ).fetchall():
            ips.setdefault(instance, []).append(address)
        for node in nodes.values():
            if "instance" in node:
                node["instance_ips"] = ips.get(node["instance"], [])

    def _add_relays(self, nodes: dict[str, dict[str, Any]]) -> None:
        """Add which relay of Tor an external peer is."""
        path = str(self._folder / "relays.parquet")
        places = {
            (ip, port): (fingerprint, nickname)
            for fingerprint, nickname, ip, port in self._cursor.execute(
                "SELECT fingerprint, nickname, ip, port FROM read_parquet(?)", [path]
            ).fetchall()
        }
        for node in nodes.values():
            if relay := places.get((node.get("ip"), node.get("port"))):
                names = zip(("fingerprint", "nickname"), relay, strict=True)
                node.update((name, text) for name, text in names if text)
