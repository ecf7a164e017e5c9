"""GraphML, read as untrusted input and written whole.

A file may come from anyone (a peer sends its Markov model as GraphML), so the parser loads no
DTD, expands no entity, opens no network and reads at most 10 MiB. What is read becomes a
`networkx.DiGraph` whose nodes and edges carry their attributes as text, under lower-case names,
in the order of the file. The format: http://graphml.graphdrawing.org/specification.html; of it we
read what the field's writers (networkx, igraph) write: keys, one graph, nodes, edges, data.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import networkx as nx
from lxml import etree

from perfmeasure.errors import ModelError

Graph: TypeAlias = "nx.DiGraph[str]"
"""A graph whose nodes are named by text."""

MAX_BYTES = 10 * 1024 * 1024
"""The largest GraphML text we read: TGen's own limit for a model that a peer sends."""


def parse_graphml(text: bytes, where: str) -> Graph:
    """Return the graph in ``text``.

    Args:
        text: the document, UTF-8 or as its XML declaration says.
        where: what to call it in errors, a path for instance.

    Raises:
        ModelError: too large, not XML, not GraphML, or not one directed graph without parallel
            edges; names the element.
    """
    if len(text) > MAX_BYTES:
        raise ModelError(where, f"{len(text)} bytes", f"GraphML of at most {MAX_BYTES} bytes")
    root = _parse_xml(text, where)
    if _local_name(root) != "graphml":
        raise ModelError(where, f"the root element is <{_local_name(root)}>", "<graphml>")
    keys = _read_keys(root, where)
    found = [child for child in root if _local_name(child) == "graph"]
    if len(found) != 1:
        raise ModelError(where, f"{len(found)} <graph> elements", "one")
    if found[0].get("edgedefault") == "undirected":
        raise ModelError(where, "an undirected graph", 'edgedefault="directed"')
    graph: Graph = nx.DiGraph()
    for node in _children(found[0], "node"):
        name = node.get("id")
        if not name:
            raise ModelError(f"{where}: line {node.sourceline}", "a node without an id")
        if name in graph:
            raise ModelError(f"{where}: node {name}", "defined twice")
        graph.add_node(name, **_read_data(node, keys, f"{where}: node {name}"))
    for edge in _children(found[0], "edge"):
        _add_edge(graph, edge, keys, where)
    return graph


def read_graphml(path: Path) -> Graph:
    """Return the graph in the file at ``path``; see `parse_graphml`.

    Raises:
        ModelError: not a regular file that can be read, or its content cannot be used.
    """
    try:
        # Not blocking, so that a path to a FIFO, which a peer may name, cannot hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - it is open already
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelError(str(path), "not a regular file", "a GraphML file")
            text = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelError(str(path), f"cannot be read: {reason}", "a GraphML file") from error
    return parse_graphml(text, str(path))


def format_graphml(graph: Graph) -> bytes:
    """Return the graph as GraphML text; the types of the attributes are kept."""
    buffer = io.BytesIO()
    nx.write_graphml(graph, buffer, encoding="utf-8")
    return buffer.getvalue()


def write_graphml(graph: Graph, path: Path) -> None:
    """Write the graph to ``path``, which has either its old content or the whole new one."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - it is open already
            file.write(format_graphml(graph))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _parse_xml(text: bytes, where: str) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        dtd_validation=False,
        remove_comments=True,
        remove_pis=True,
        huge_tree=False,
    )
    try:
        root = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ModelError(where, f"not XML: {error}", "GraphML") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise ModelError(where, "a document type declaration", "GraphML without DTD and entities")
    return root


def _local_name(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _children(parent: etree._Element, name: str) -> Iterator[etree._Element]:
    return (child for child in parent if _local_name(child) == name)


def _read_keys(root: etree._Element, where: str) -> dict[str, tuple[str, str]]:
    """Return key id -> (attribute name, default text)."""
    keys = {}
    for key in _children(root, "key"):
        identifier, name = key.get("id"), key.get("attr.name")
        if not identifier or not name:
            raise ModelError(
                f"{where}: line {key.sourceline}", "a key without id or attr.name", "both"
            )
        default = next((child.text or "" for child in _children(key, "default")), "")
        # igraph writes one key id for a node's and an edge's attribute of the same name.
        keys[f"{key.get('for')} {identifier}"] = (name.lower(), default.strip())
    return keys


def _read_data(
    element: etree._Element, keys: dict[str, tuple[str, str]], where: str
) -> dict[str, str]:
    kind = _local_name(element)
    found = {
        name: default
        for identifier, (name, default) in keys.items()
        if default and identifier.partition(" ")[0] in (kind, "all", "None")
    }
    for data in _children(element, "data"):
        identifier = data.get("key") or ""
        known = next(
            (keys[at] for use in (kind, "all", "None") if (at := f"{use} {identifier}") in keys),
            None,
        )
        if known is None:
            raise ModelError(where, f"data of an undeclared key {identifier!r}", "a declared key")
        if len(data):
            raise ModelError(where, f"attribute {known[0]} holds elements or entities", "text")
        found[known[0]] = (data.text or "").strip()
    return found


def _add_edge(
    graph: Graph, edge: etree._Element, keys: dict[str, tuple[str, str]], where: str
) -> None:
    source, target = edge.get("source") or "", edge.get("target") or ""
    place = f"{where}: edge {source} -> {target}"
    for end in (source, target):
        if end not in graph:
            raise ModelError(place, f"node {end!r} is not defined", "an edge between two nodes")
    if graph.has_edge(source, target):
        raise ModelError(place, "two parallel edges", "at most one edge in each direction")
    if edge.get("directed") == "false":
        raise ModelError(place, "an undirected edge", "directed edges")
    graph.add_edge(source, target, **_read_data(edge, keys, place))
