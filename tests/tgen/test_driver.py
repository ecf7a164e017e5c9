"""perfmeasure.tgen.driver: the walk, the end, the heartbeat."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.tgen.actions import check_actions
from perfmeasure.tgen.driver import Driver
from perfmeasure.tgen.model import client_model

Make = Callable[["nx.DiGraph[str]"], Driver]


@pytest.fixture
def drive(loop: Any, line_log: Any) -> Iterator[Make]:
    """Call with a graph to start a driver; ``driver.ends`` counts how often it said it ended."""
    drivers: list[Driver] = []

    def start(graph: nx.DiGraph[str]) -> Driver:
        ends: list[bool] = []
        driver = Driver(
            loop.reactor, check_actions(graph, "g"), line_log, lambda: ends.append(True)
        )
        drivers.append(driver)
        driver.ends = ends  # type: ignore[attr-defined]
        driver.start()
        return driver

    yield start
    for driver in drivers:
        driver.stop()


@pytest.fixture
def port(drive: Make) -> int:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start", serverport="0", heartbeat="0")
    server = drive(graph).server
    assert server is not None
    return server.port


def graph_of(port: int, nodes: dict[str, dict[str, str]], *edges: Any) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node(
        "start", peers=f"127.0.0.1:{port}", sendsize="0", recvsize="1 kib", heartbeat="0"
    )
    for name, options in nodes.items():
        graph.add_node(name, **options)
    for edge in edges:
        graph.add_edge(*edge[:2], **({"weight": edge[2]} if len(edge) > 2 else {}))
    return graph


def streams(line_log: Any) -> list[str]:
    return [
        outcome["vertexid"]
        for outcome in line_log.of("[stream-success]")
        if not outcome["vertexid"].startswith("passive")
    ]


def test_all_unweighted_edges_are_followed(
    drive: Make, loop: Any, line_log: Any, port: int
) -> None:
    nodes: dict[str, dict[str, str]] = {
        "stream1": {},
        "stream2": {},
        "pause": {},
        "end": {"count": "2"},
    }
    driver = drive(
        graph_of(port, nodes, ("start", "stream1"), ("start", "stream2"), ("stream1", "pause"),
                 ("stream2", "pause"), ("pause", "end"))
    )  # fmt: skip
    loop.until(lambda: driver.has_ended)
    assert sorted(streams(line_log)) == ["stream1", "stream2"]
    assert driver.ends == [True]  # type: ignore[attr-defined]
    assert (
        "TGen will end because we completed 2 streams and we met or exceeded the configured limit"
        " of 2 streams" in line_log.lines[-1]
    )


def test_one_of_the_weighted_edges_is_followed_by_its_weight(
    drive: Make, loop: Any, line_log: Any, port: int
) -> None:
    nodes: dict[str, dict[str, str]] = {
        "stream1": {},
        "stream2": {},
        "stream3": {},
        "end": {"count": "60"},
    }
    driver = drive(
        graph_of(port, nodes, ("start", "stream1", "1"), ("start", "stream2", "4"),
                 ("start", "stream3", "0"), ("stream1", "end"), ("stream2", "end"),
                 ("end", "start"))
    )  # fmt: skip
    loop.until(lambda: driver.has_ended)
    counts = Counter(streams(line_log))
    assert counts["stream3"] == 0
    assert counts["stream1"] + counts["stream2"] == 60
    assert 0 < counts["stream1"] < counts["stream2"]


def test_transfers_of_our_model_take_turns_and_end_by_count(
    drive: Make, loop: Any, line_log: Any, port: int
) -> None:
    peer = f"127.0.0.1:{port}"
    model = client_model(
        {"exit": peer, "onion": peer}, socks=None, size=1000, initial_pause_seconds=0.1,
        pause_seconds=0.1, num_streams=5,
    )  # fmt: skip
    begin = time.monotonic()
    driver = drive(model)
    loop.until(lambda: driver.has_ended)
    assert streams(line_log) == [f"stream_{name}" for name in ("exit", "onion") * 2] + [
        "stream_exit"
    ]
    assert time.monotonic() - begin >= 0.5
    assert not driver.context.streams


def test_a_transfer_longer_than_the_pause_delays_the_next_and_does_not_overlap(
    drive: Make, loop: Any, line_log: Any, port: int
) -> None:
    peer = f"127.0.0.1:{port}"
    model = client_model(
        {"exit": peer, "onion": peer}, socks=None, size=10**7, initial_pause_seconds=0,
        pause_seconds=0, num_streams=4,
    )  # fmt: skip
    driver = drive(model)
    loop.until(lambda: driver.has_ended)
    spans = sorted(
        (int(o["created-ts"]), int(o["now-ts"]))
        for o in line_log.of("[stream-success]")
        if not o["vertexid"].startswith("passive")
    )
    assert len(spans) == 4
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ({"recvsize": "3 kib"}, r"we received \d+ bytes .* limit of 3072 bytes"),
        ({"sendsize": "4 kib"}, r"we sent \d+ bytes .* limit of 4096 bytes"),
        ({"time": "200 ms"}, r"\d+ nanoseconds .* limit of 200000000 nanoseconds"),
        ({"count": "3", "time": "10 s"}, r"we completed 3 streams .* limit of 3 streams"),
    ],
)
def test_end_conditions(
    *, drive: Make, loop: Any, line_log: Any, port: int, conditions: dict[str, str], text: str
) -> None:
    nodes: dict[str, dict[str, str]] = {
        "stream": {},
        "end": conditions,
        "pause": {"time": "20 ms,30 ms"},
    }
    driver = drive(
        graph_of(port, nodes, ("start", "stream"), ("stream", "end"), ("end", "pause"),
                 ("pause", "stream"))
    )  # fmt: skip
    loop.until(lambda: driver.has_ended)
    assert re.search(f"TGen will end because .*{text}", line_log.lines[-1])
    assert len(streams(line_log)) > 1


def test_a_circle_without_pause_lets_the_streams_live(
    drive: Make, loop: Any, line_log: Any, port: int
) -> None:
    nodes: dict[str, dict[str, str]] = {
        "stream": {},
        "pause1": {"time": "0"},
        "pause2": {"time": "0"},
    }
    drive(
        graph_of(port, nodes, ("start", "pause1"), ("pause1", "pause2"), ("pause2", "pause1"),
                 ("start", "stream"))
    )  # fmt: skip
    loop.until(lambda: streams(line_log) == ["stream"])


def test_the_start_waits_its_time(drive: Make, loop: Any, line_log: Any, port: int) -> None:
    graph = graph_of(port, {"stream": {}}, ("start", "stream"))
    graph.nodes["start"]["time"] = "200 ms"
    drive(graph)
    loop.run(0.1)
    assert not line_log.of("stream [id=")
    loop.until(lambda: streams(line_log))


def test_the_heart_beats(drive: Make, loop: Any, line_log: Any) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start", serverport="0", heartbeat="50 ms")
    drive(graph)
    loop.run(0.3)
    beats = [line for line in line_log.lines if "[driver-heartbeat] [bytes-read=0," in line]
    assert 3 <= len(beats) <= 6
    pairs = [line for line in line_log.lines if "reason=start" in line]
    assert len(pairs) == 1
    wanted = r"\[message\] \[clock\] \[clock_pair\] \[clock\] utc_ns=\d+ monotonic_ns=\d+ r"
    assert re.search(wanted, pairs[0])


def test_nothing_to_do_is_the_end(drive: Make) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start")
    assert drive(graph).has_ended


def test_a_taken_port_is_an_error(drive: Make, port: int) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start", serverport=str(port))
    with pytest.raises(MeasurementError, match=f"port {port}"):
        drive(graph)


def test_stopping_leaves_streams_without_outcome(
    drive: Make, loop: Any, line_log: Any, port: int
) -> None:
    graph = graph_of(port, {"stream": {"recvsize": "100 GiB"}}, ("start", "stream"))
    driver = drive(graph)
    loop.until(lambda: driver.statistics.bytes_read > 10**6)
    driver.stop()
    assert not streams(line_log)
    assert not [o for o in line_log.of("[stream-error]") if o["vertexid"] == "stream"]
    assert not driver.context.streams


def test_without_a_reader_of_its_log_it_ends(drive: Make, loop: Any, line_log: Any) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("start", serverport="0")
    driver = drive(graph)
    line_log.is_broken = True
    loop.until(lambda: driver.has_ended, 3)
