from __future__ import annotations

import gzip
import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import networkx as nx
import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import graph, topologyfiles
from perfmeasure.errors import UsageError
from tests.analysis import topologies


@pytest.fixture
def small(tmp_path: Path) -> dict[str, Any]:
    found = graph.enveloped(topologies.small(tmp_path))
    found["nodes"][1]["service"] = 'we"b\\#'
    return found


def test_graphml_has_all_of_it(small: dict[str, Any]) -> None:
    read = nx.read_graphml(io.BytesIO(topologyfiles.graphml(small)), force_multigraph=True)
    assert read.nodes["m2/db"]["ports"] == "3306/tcp"
    assert read.nodes["m2/db"]["instance_ips"] == "10.0.0.2"
    [edge] = read.get_edge_data("m1/web", "m2/db").values()
    assert (edge["bytes"], edge["port"], edge["sources"]) == (2048, 3306, "ebpf")
    assert read.number_of_edges() == 2


def test_mermaid_is_as_in_the_picture(small: dict[str, Any]) -> None:
    assert topologyfiles.mermaid(small).decode() == (
        "flowchart LR\n"
        '    n0["192.0.2.1:7000"]\n'
        '    subgraph m1["m1 (10.0.0.1)"]\n'
        '        n1["we#quot;b\\#35;"]\n'
        "    end\n"
        '    subgraph m2["m2 (10.0.0.2)"]\n'
        '        n2["db<br/>:3306"]\n'
        "    end\n"
        '    n1 -->|"MySQL:3306 2.0 KiB"| n2\n'
        '    n1 -.->|"tcp:7000 100 B"| n0\n'
    )


def test_dot_is_balanced_and_quoted(small: dict[str, Any]) -> None:
    text = topologyfiles.dot(small).decode()
    assert text.count("{") == text.count("}") == 3
    assert '"m1/web" [label="we\\"b\\\\#"];' in text
    assert '"m1/web" -> "m2/db" [label="MySQL:3306 2.0 KiB"];' in text
    assert text.count("style=dashed") == 1
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=text.encode(), check=True, capture_output=True)


def test_parquet_has_the_edges(small: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "edges.parquet"
    path.write_bytes(topologyfiles.parquet(small))
    with duckdb.connect() as cursor:
        found = cursor.execute(
            "SELECT source, target, bytes, sources FROM read_parquet(?)", [str(path)]
        ).fetchall()
    assert found == [
        (edge["source"], edge["target"], edge["bytes"], edge["sources"]) for edge in small["edges"]
    ]


def test_the_suffix_says_what_and_how_it_is_packed(small: dict[str, Any]) -> None:
    packed = topologyfiles.written(small, Path("a.json.gz"))
    assert jsonio.loads(gzip.decompress(packed)) == small
    with pytest.raises(UsageError, match=re.escape(".json, .graphml, .dot, .mmd, .parquet")):
        topologyfiles.written(small, Path("a.gz"))


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ({"kind": "service", "service": "web", "pid": 7}, "web (7)"),
        ({"kind": "external", "id": "external/x:1", "nickname": "guard"}, "guard x:1"),
        ({"kind": "external", "id": "external/other", "peers": 9}, "9 others"),
        ({"kind": "unattributed", "id": "m1/unattributed"}, "not attributed"),
        ({"kind": "ambiguous", "id": "ambiguous/x:1"}, "ambiguous/x:1"),
    ],
)
def test_names_of_nodes(node: dict[str, Any], name: str) -> None:
    assert topologyfiles.node_name(node) == name
