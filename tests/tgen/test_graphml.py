"""perfmeasure.tgen.graphml: what real writers write, and what nobody should."""

from __future__ import annotations

import os
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import ModelError
from perfmeasure.tgen import graphml

HEAD = (
    '<?xml version="1.0"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    '<key id="d0" for="node" attr.name="Time" attr.type="string"/>'
    '<key id="d1" for="edge" attr.name="weight" attr.type="double"><default>2</default></key>'
)
GOOD = (
    f'{HEAD}<graph edgedefault="directed"><node id="start"/><node id="pause"><data key="d0"> 5 s'
    '</data></node><edge source="start" target="pause"/></graph></graphml>'
).encode()


def test_names_are_lower_case_and_values_are_text() -> None:
    graph = graphml.parse_graphml(GOOD, "x")
    assert list(graph) == ["start", "pause"]
    assert graph.nodes["pause"] == {"time": "5 s"}
    assert graph.edges["start", "pause"] == {"weight": "2"}


@pytest.mark.parametrize("name", sorted(
    path.name for path in (Path(__file__).parent.parent / "fixtures/tgen").glob("*.graphml.xml")
))  # fmt: skip
def test_real_models_read_as_networkx_reads_them(fixtures: Path, name: str) -> None:
    path = fixtures / "tgen" / name
    ours, theirs = graphml.read_graphml(path), nx.read_graphml(path)
    assert list(ours.nodes(data=True)) == list(theirs.nodes(data=True))
    assert set(ours.edges) == set(theirs.edges)


def test_what_is_written_reads_the_same_and_replaces_as_a_whole(tmp_path: Path) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start", peers="a:1, b:2", time='<&>"')
    graph.add_edge("start", "end", weight=0.5)
    path = tmp_path / "model.xml"
    path.write_text("old")
    graphml.write_graphml(graph, path)
    again = graphml.read_graphml(path)
    assert again.nodes["start"] == {"peers": "a:1, b:2", "time": '<&>"'}
    assert again.edges["start", "end"] == {"weight": "0.5"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not XML"),
        ("<html/>", "root element is <html>"),
        (f"{HEAD}</graphml>", "0 <graph> elements"),
        (f"{HEAD}<graph edgedefault='undirected'/></graphml>", "undirected"),
        (f"{HEAD}<graph><node/></graph></graphml>", "without an id"),
        (f"{HEAD}<graph><node id='a'/><node id='a'/></graph></graphml>", "node a: defined twice"),
        (f"{HEAD}<graph><node id='a'><data key='d9'/></node></graph></graphml>", "key 'd9'"),
        (f"{HEAD}<graph><node id='a'><data key='d0'><b/></data></node></graph></graphml>",
         "attribute time holds"),
        (f"{HEAD}<graph><edge source='a' target='b'/></graph></graphml>", "edge a -> b"),
        ((f"{HEAD}<graph><node id='a'/><edge source='a' target='a'/><edge source='a' target='a'/>"
         "</graph></graphml>"), "parallel"),
        ("<graphml><key id='d0'/><graph/></graphml>", "line 1: a key without"),
    ],
)  # fmt: skip
def test_errors_name_the_place(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        graphml.parse_graphml(text.encode(), "file.xml")
    assert str(caught.value).startswith("file.xml")
    assert message in str(caught.value)


def test_no_entity_is_expanded_and_no_file_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    for doctype in (
        f'<!DOCTYPE graphml [<!ENTITY e SYSTEM "file://{secret}">]>',
        '<!DOCTYPE graphml [<!ENTITY e "SECRET">]>',
        '<!DOCTYPE graphml SYSTEM "http://127.0.0.1:1/x.dtd">',
    ):
        use = "&e;" if "ENTITY" in doctype else ""
        text = f"{doctype}<graphml><graph><node id='a{use}'/></graph></graphml>"
        with pytest.raises(ModelError) as caught:
            graphml.parse_graphml(text.encode(), "x")
        assert "SECRET" not in str(caught.value)


def test_a_bomb_of_entities_ends_at_once() -> None:
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(20))
    text = f'<!DOCTYPE graphml [<!ENTITY e0 "x">{entities}]><graphml><graph>&e20;</graph></graphml>'
    with pytest.raises(ModelError):
        graphml.parse_graphml(text.encode(), "x")


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b" " * (graphml.MAX_BYTES + 1))
    with pytest.raises(ModelError, match="at most 10485760 bytes"):
        graphml.read_graphml(path)


def test_what_is_no_file_is_refused_and_does_not_block(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, tmp_path / "none", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(ModelError):
            graphml.read_graphml(path)


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=6))
def test_garbled_text_is_a_graph_or_an_error_that_says_so(at: int, junk: bytes) -> None:
    said = "x"
    try:
        graphml.parse_graphml(GOOD[:at] + junk + GOOD[at + len(junk) :], "x")
    except ModelError as error:
        said = str(error)
    assert said.startswith("x")
