"""A topology written for other programs: GraphML, Graphviz dot, Mermaid, Parquet, JSON."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perfmeasure import jsonio
from perfmeasure.analysis import sql
from perfmeasure.analysis.compression import compress
from perfmeasure.errors import UsageError
from perfmeasure.units import format_bytes

_PROTOCOLS = {
    21: "FTP", 22: "SSH", 25: "SMTP", 53: "DNS", 80: "HTTP", 123: "NTP", 389: "LDAP", 443: "HTTPS",
    2181: "ZooKeeper", 2379: "etcd", 3306: "MySQL", 4222: "NATS", 5432: "PostgreSQL",
    5672: "AMQP", 6379: "Redis", 8080: "HTTP", 8428: "VictoriaMetrics", 8443: "HTTPS",
    9001: "Tor", 9042: "Cassandra", 9050: "SOCKS", 9090: "Prometheus", 9092: "Kafka",
    9200: "Elasticsearch", 11211: "memcached", 27017: "MongoDB",
}  # fmt: skip
_EDGE_COLUMNS = {
    "source": "VARCHAR", "target": "VARCHAR", "protocol": "VARCHAR", "port": "INTEGER",
    "bytes": "BIGINT", "bytes_sent": "BIGINT", "bytes_received": "BIGINT",
    "connections": "BIGINT", "first_unix_ts": "DOUBLE", "last_unix_ts": "DOUBLE",
    "sources": "VARCHAR[]", "is_inferred": "BOOLEAN",
}  # fmt: skip
_SHAPES = {"external": "box", "ambiguous": "diamond", "unattributed": "ellipse"}


def protocol_name(edge: Mapping[str, Any]) -> str:
    """Return what is usually spoken at an edge's port, such as ``HTTP:80``, or ``tcp:5000``."""
    port = edge["port"]
    return f"{_PROTOCOLS.get(port, edge['protocol'])}:{port}"


def node_name(node: Mapping[str, Any]) -> str:
    """Return what a node is called inside its machine, or among others."""
    if node["kind"] == "service":
        name = str(node["service"])
        return f"{name} ({node['pid']})" if "pid" in node else name
    if node["kind"] == "external":
        place = str(node["id"]).partition("/")[2]
        if "peers" in node:
            return f"{node['peers']} others"
        return f"{node['nickname']} {place}" if "nickname" in node else place
    return "not attributed" if node["kind"] == "unattributed" else str(node["id"])


def json_text(document: Mapping[str, Any]) -> bytes:
    """Return it in canonical form."""
    return jsonio.canonical(document)


def graphml(document: Mapping[str, Any]) -> bytes:
    """Return it as GraphML; what is a list in the document is a text with commas here."""
    import networkx as nx  # noqa: PLC0415 - it takes long to import

    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    for node in document["nodes"]:
        ports = [f"{place['port']}/{place['protocol']}" for place in node.get("ports", ())]
        graph.add_node(node["id"], **_scalars({**node, "ports": ports}, but="id"))
    for edge in document["edges"]:
        graph.add_edge(edge["source"], edge["target"], **_scalars(edge, but="source target"))
    out = io.BytesIO()
    nx.write_graphml(graph, out)
    return out.getvalue()


def _scalars(fields: Mapping[str, Any], but: str) -> dict[str, Any]:
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else value
        for name, value in fields.items()
        if name not in but.split() and value != []
    }


def _machines(document: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the nodes by their machine; those of none under an empty name."""
    machines: dict[str, list[dict[str, Any]]] = {}
    for node in document["nodes"]:
        machine = node.get("instance", "") if node["kind"] in {"service", "unattributed"} else ""
        machines.setdefault(machine, []).append(node)
    return dict(sorted(machines.items()))


def _machine_name(machine: str, nodes: list[dict[str, Any]]) -> str:
    ips = nodes[0].get("instance_ips", ())
    return f"{machine} ({', '.join(ips)})" if ips else machine


def _label(edge: Mapping[str, Any]) -> str:
    return f"{protocol_name(edge)} {format_bytes(edge['bytes'])}"


def dot(document: Mapping[str, Any]) -> bytes:
    """Return it for Graphviz, each machine as a cluster."""

    def quoted(text: object) -> str:
        return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["digraph topology {", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    for number, (machine, nodes) in enumerate(_machines(document).items()):
        inside = [
            f"{quoted(node['id'])} [label={quoted(node_name(node))}"
            + (f", shape={_SHAPES[node['kind']]}" if node["kind"] in _SHAPES else "")
            + "];"
            for node in nodes
        ]
        if machine:
            lines += [f"  subgraph cluster_{number} {{"]
            lines += [f"    label={quoted(_machine_name(machine, nodes))};"]
            lines += [f"    {line}" for line in inside]
            lines += ["  }"]
        else:
            lines += [f"  {line}" for line in inside]
    for edge in document["edges"]:
        style = ", style=dashed" if edge["is_inferred"] else ""
        ends = f"{quoted(edge['source'])} -> {quoted(edge['target'])}"
        lines.append(f"  {ends} [label={quoted(_label(edge))}{style}];")
    return "\n".join([*lines, "}", ""]).encode()


def mermaid(document: Mapping[str, Any]) -> bytes:
    """Return it as Mermaid text, each machine with its address as a subgraph."""

    def quoted(text: object) -> str:
        return '"' + str(text).replace("#", "#35;").replace('"', "#quot;") + '"'

    lines = ["flowchart LR"]
    names = {node["id"]: f"n{number}" for number, node in enumerate(document["nodes"])}
    for number, (machine, nodes) in enumerate(_machines(document).items()):
        inside = [f"{names[node['id']]}[{quoted(_mermaid_label(node))}]" for node in nodes]
        if machine:
            lines.append(f"    subgraph m{number}[{quoted(_machine_name(machine, nodes))}]")
            lines += [f"        {line}" for line in inside]
            lines.append("    end")
        else:
            lines += [f"    {line}" for line in inside]
    for edge in document["edges"]:
        arrow = "-.->" if edge["is_inferred"] else "-->"
        ends = f"{names[edge['source']]} {arrow}|{quoted(_label(edge))}| {names[edge['target']]}"
        lines.append(f"    {ends}")
    return "\n".join([*lines, ""]).encode()


def _mermaid_label(node: Mapping[str, Any]) -> str:
    ports = "".join(f"<br/>:{place['port']}" for place in node.get("ports", ()))
    return f"{node_name(node)}{ports}"


def parquet(document: Mapping[str, Any]) -> bytes:
    """Return its edges as a Parquet file."""
    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as folder:
        lines, path = Path(folder, "edges.json"), Path(folder, "edges.parquet")
        lines.write_text("".join(jsonio.compact(edge) + "\n" for edge in document["edges"]))
        with sql.cursor() as cursor:
            found = cursor.read_json(str(lines), format="newline_delimited", columns=_EDGE_COLUMNS)
            found.write_parquet(str(path), compression="zstd")
        return path.read_bytes()


FORMATS: dict[str, Callable[[Mapping[str, Any]], bytes]] = {
    ".json": json_text,
    ".graphml": graphml,
    ".dot": dot,
    ".mmd": mermaid,
    ".parquet": parquet,
}
"""What writes each kind of file, by the suffix of its name."""


def written(document: Mapping[str, Any], path: Path) -> bytes:
    """Return a topology as the name of a file says, ``.gz``, ``.xz`` and ``.zst`` included.

    Raises:
        UsageError: the name says nothing that is known.
    """
    packed = path.suffix in {".gz", ".xz", ".zst"}
    writer = FORMATS.get(path.with_suffix("").suffix if packed else path.suffix)
    if writer is None:
        raise UsageError(str(path), "no format has this suffix", ", ".join(FORMATS))
    return compress(writer(document), path.suffix)
