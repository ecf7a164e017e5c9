"""perfmeasure.tgen.actions: real graphs, every option, and errors that name the place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import ModelError
from perfmeasure.tgen.actions import ActionGraph, End, check_actions, load_actions
from perfmeasure.tgen.graphml import format_graphml, write_graphml
from perfmeasure.tgen.markov import builtin_packet_model, builtin_stream_model
from perfmeasure.tgen.peer import Peer


def graph_of(
    nodes: dict[str, dict[str, Any]], *edges: tuple[str, str] | tuple[str, str, str]
) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, options in nodes.items():
        graph.add_node(name, **options)
    for edge in edges:
        graph.add_edge(*edge[:2], **({"weight": edge[2]} if len(edge) == 3 else {}))
    return graph


def client(start: dict[str, Any], stream: dict[str, Any]) -> ActionGraph:
    return check_actions(graph_of({"start": start, "stream": stream}, ("start", "stream")), "g")


def test_tgens_own_example(fixtures: Path) -> None:
    graph = load_actions(fixtures / "tgen/client-upstream-web.graphml.xml")
    assert graph.start_id == "start"
    assert graph.start.delay_seconds == 1
    assert graph.pauses == {"pause": (1, 2, 3), "pause_sync": ()}
    assert graph.incoming["pause_sync"] == 3
    assert graph.ends == {"end": End(20, 20, 2**30, 2**30)}
    assert graph.streams["streamB3"].recv_size_bytes == 100 * 2**20
    assert graph.streams["streamA"].peers == (Peer("localhost", 18888),)
    # In the order of the file, as TGen follows them.
    assert graph.successors["streamA"] == (("streamB2", "streamB3", "streamB1"), ())


def test_onionperfs_models(fixtures: Path) -> None:
    graph = load_actions(fixtures / "onionperf-run/tgen-client.graphml.xml")
    stream = graph.streams["stream"]
    assert (stream.send_size_bytes, stream.recv_size_bytes) == (0, 5 * 2**20)
    assert (stream.timeout_seconds, stream.stallout_seconds) == (270, 0)
    assert stream.socks_proxies == (Peer("127.0.0.1", 36448),)
    assert graph.longest_transfer_seconds() == 278
    server = load_actions(fixtures / "onionperf-run/tgen-server.graphml.xml")
    assert (server.start.server_port, server.start.heartbeat_seconds) == (18080, 60)
    assert server.edge_count == 0


def test_defaults_are_tgens() -> None:
    graph = client({"peers": "a:1"}, {})
    assert graph.start.heartbeat_seconds == 1
    assert graph.start.log_level == "message"
    stream = graph.streams["stream"]
    assert (stream.timeout_seconds, stream.stallout_seconds) == (0, 30)
    assert (stream.send_size_bytes, stream.recv_size_bytes) == (None, None)
    assert graph.longest_transfer_seconds() == math.inf


def test_the_start_vertex_has_the_defaults_of_all_streams(tmp_path: Path) -> None:
    path = tmp_path / "packets.xml"
    path.write_bytes(builtin_packet_model().text)
    start = {
        "peers": "a:1, b:2", "socksproxy": "c:3", "socksusername": "u", "sockspassword": "p",
        "sendsize": "1 KB", "recvsize": "1 kib", "timeout": "2 minutes", "stallout": "500 ms",
        "packetmodelpath": str(path), "packetmodelmode": "path", "heartbeat": "0",
    }  # fmt: skip
    graph = client(start, {"sendsize": "0", "peers": "", "timeout": "0"})
    stream = graph.streams["stream"]
    assert stream.peers == (Peer("a", 1), Peer("b", 2))
    assert stream.socks_proxies == (Peer("c", 3),)
    assert (stream.socks_username, stream.socks_password) == ("u", "p")
    assert (stream.send_size_bytes, stream.recv_size_bytes) == (0, 1024)
    assert (stream.timeout_seconds, stream.stallout_seconds) == (0, 0.5)
    assert stream.packet_model is not None
    assert stream.packet_model.path == path
    assert stream.sends_model_path
    assert graph.start.heartbeat_seconds == 0
    assert "'p'" not in repr(stream)


def test_seeds_draw_the_same_again() -> None:
    drawn = [
        client({"peers": "a:1"}, {"markovmodelseed": "7", "socksauthseed": "8"}).streams["stream"]
        for _ in range(2)
    ]
    assert drawn[0].seeds.random() == drawn[1].seeds.random()
    assert drawn[0].socks_auth is not None
    assert drawn[1].socks_auth is not None
    assert drawn[0].socks_auth.random() == drawn[1].socks_auth.random()


def test_flows_and_traffics_have_their_models(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_bytes(builtin_stream_model().text)
    graph = check_actions(
        graph_of(
            {
                "start": {"peers": "a:1"},
                "flow": {"streammodelpath": str(path)},
                "traffic": {"streammodelpath": str(path), "flowmodelpath": str(path)},
            },
            ("start", "flow"),
            ("start", "traffic"),
        ),
        "g",
    )
    assert graph.streams["flow"].stream_model is not None
    assert graph.streams["flow"].flow_model is None
    assert graph.streams["traffic"].flow_model is not None


def test_weighted_edges_are_apart_from_those_that_are_all_followed() -> None:
    graph = check_actions(
        graph_of(
            {"start": {"peers": "a:1"}, "stream1": {}, "stream2": {}, "stream3": {}},
            ("start", "stream3", "12.0"),
            ("start", "stream2", "1"),
            ("start", "stream1"),
        ),
        "g",
    )
    assert graph.successors["start"] == (("stream1",), (("stream2", 1.0), ("stream3", 12.0)))


START: dict[str, dict[str, Any]] = {"start": {"peers": "a:1"}}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (graph_of({}), "g: 0 start vertices"),
        (graph_of({"start": {}, "start2": {}}), "g: 2 start vertices"),
        (graph_of({**START, "other": {}}), "g: node other: an id of no known kind"),
        (graph_of({**START, "stream": {}}), "several parts"),
        (graph_of(START, ("start", "start")), "node start: an edge to itself"),
        (graph_of({"start": {"colour": "red"}}), "g: node start, attribute colour: unknown"),
        (graph_of({"start": {"count": "1"}}), "node start, attribute count: does not belong"),
        (graph_of({"start": {"serverport": "65536"}}), "node start, attribute serverport"),
        (graph_of({"start": {"serverport": "-1"}}), "node start, attribute serverport"),
        (graph_of({"start": {"loglevel": "loud"}}), "node start, attribute loglevel"),
        (graph_of({"start": {"heartbeat": "often"}}), "node start, attribute heartbeat"),
        (graph_of({"start": {"peers": "a:1,,b:2"}}), "node start, attribute peers"),
        (graph_of({"start": {"recvsize": "1 megabit"}}), "node start, attribute recvsize"),
        (graph_of({"start": {"packetmodelpath": "/none"}}),
         "node start, attribute packetmodelpath: /none: cannot be read"),
        (graph_of({"start": {"packetmodelmode": "x"}}), "node start, attribute packetmodelmode"),
        (graph_of({"start": {"markovmodelseed": "4294967296"}}), "attribute markovmodelseed"),
        (graph_of({"start": {}, "stream": {}}, ("start", "stream")),
         "g: node stream, attribute peers: no peers here"),
        (graph_of({**START, "end": {"count": "x"}}, ("start", "end")), "node end, attribute count"),
        (graph_of({**START, "pause": {"time": "1 s,x"}}, ("start", "pause")),
         "node pause, attribute time"),
        (graph_of({**START, "pause": {}}, ("pause", "start")), "node pause: a pause that no edge"),
        (graph_of({**START, "end": {}}, ("start", "end", "heavy")),
         "g: edge start -> end, attribute weight: 'heavy'"),
        (graph_of({**START, "end": {}}, ("start", "end", "nan")), "attribute weight"),
        (graph_of({**START, "end": {}}, ("start", "end", "0")), "weights are all 0"),
    ],
    ids=str,
)  # fmt: skip
def test_errors_name_file_node_and_attribute(graph: nx.DiGraph[str], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_actions(graph, "g")
    assert message in str(caught.value)


ATTRIBUTES = "time peers count sendsize recvsize timeout heartbeat socksproxy packetmodelpath"


@given(
    st.sampled_from(["start", "stream", "pause", "end", "flow"]),
    st.sampled_from(ATTRIBUTES.split()),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12),
)
def test_any_value_is_taken_or_its_place_is_named(node: str, name: str, value: str) -> None:
    nodes: dict[str, dict[str, Any]] = {"start": {"peers": "a:1"}, node: {}}
    nodes[node][name] = value
    graph = graph_of(nodes)
    if node != "start":
        graph.add_edge("start", node)
    said = f"node {node}, attribute {name}"
    try:
        check_actions(graph, "g")
    except ModelError as error:
        said = str(error)
    assert f"node {node}" in said
    assert name in said


def test_it_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "g.xml"
    write_graphml(graph_of({"start": {"serverport": "0"}}), path)
    assert load_actions(path).start.server_port == 0
    assert b"serverport" in format_graphml(graph_of({"start": {"serverport": "0"}}))
