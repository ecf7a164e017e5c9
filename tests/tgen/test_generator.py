"""perfmeasure.tgen.generator."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import pytest

from perfmeasure.tgen.actions import StreamOptions
from perfmeasure.tgen.generator import Generator
from perfmeasure.tgen.graphml import format_graphml, parse_graphml
from perfmeasure.tgen.markov import MarkovModel
from perfmeasure.tgen.peer import Peer, parse_peer
from perfmeasure.tgen.server import Server
from perfmeasure.tgen.stream import Context, accept_stream


def times(count: int, delay_us: float) -> MarkovModel:
    """Return a model that makes something ``count`` times, with a delay after each."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("s0", type="state", name="start")
    graph.add_node("o", type="observation", name="+")
    graph.add_node("f", type="observation", name="F")
    for index in range(1, count + 2):
        graph.add_node(f"s{index}", type="state", name=str(index))
        graph.add_edge(f"s{index - 1}", f"s{index}", type="transition", weight=1.0)
        graph.add_edge(
            f"s{index}", "o" if index <= count else "f", type="emission", weight=1.0,
            distribution="uniform", param_low=delay_us, param_high=delay_us,
        )  # fmt: skip
    text = format_graphml(graph)
    return MarkovModel(parse_graphml(text, "m"), "m", None, text, "m")


@pytest.fixture
def served(context: Context) -> Iterator[Peer]:
    server = Server(
        context.reactor, context.log, 0,
        lambda *found: accept_stream(context, StreamOptions(), *found),
    )  # fmt: skip
    yield Peer("127.0.0.1", server.port)
    server.stop()


@pytest.fixture
def options(served: Peer) -> StreamOptions:
    return StreamOptions(peers=(served,), send_size_bytes=10, recv_size_bytes=1000)


def run(loop: Any, context: Context, kind: str, options: StreamOptions) -> None:
    done: list[bool] = []
    Generator(context, kind, "vertex", options, lambda: done.append(True)).start()
    loop.until(lambda: done)
    loop.until(lambda: not context.streams)
    assert done == [True]


def test_a_single_stream_is_a_flow_of_one(
    loop: Any, context: Context, line_log: Any, options: StreamOptions
) -> None:
    run(loop, context, "stream", options)
    assert (
        "Generator status for action 'vertex': completed 1 of 1 streams, flow is complete"
        in "".join(line_log.lines)
    )
    assert "flows-created=1,flows-succeeded=1" in context.statistics.take_heartbeat()


def test_a_flow_makes_streams_as_its_model_says(
    loop: Any, context: Context, line_log: Any, options: StreamOptions
) -> None:
    begin = loop.reactor.seconds()
    flow = dataclasses.replace(options, stream_model=times(4, 50_000))
    run(loop, context, "flow", flow)
    assert loop.reactor.seconds() - begin >= 0.2
    assert len([o for o in line_log.of("[stream-success]") if o["vertexid"] == "vertex"]) == 4
    assert "completed 4 of 4 streams, flow is complete" in "".join(line_log.lines)


def test_a_traffic_makes_flows_that_make_streams(
    loop: Any, context: Context, line_log: Any, options: StreamOptions
) -> None:
    traffic = dataclasses.replace(options, flow_model=times(3, 0), stream_model=times(2, 0))
    run(loop, context, "traffic", traffic)
    assert len([o for o in line_log.of("[stream-success]") if o["vertexid"] == "vertex"]) == 6
    assert "completed 3 of 3 flows, traffic is complete" in "".join(line_log.lines)
    heartbeat = context.statistics.take_heartbeat()
    assert "flows-succeeded=3," in heartbeat
    assert "traffics-succeeded=1," in heartbeat


def test_a_model_without_delay_and_end_lets_others_live(
    loop: Any, context: Context, options: StreamOptions
) -> None:
    Generator(
        context, "flow", "v", dataclasses.replace(options, stream_model=times(300, 0)), lambda: None
    ).start()
    ticks: list[int] = []
    loop.reactor.callLater(0, ticks.append, 1)
    loop.until(lambda: ticks, 1)
    assert context.statistics.streams_completed < 300
    loop.until(lambda: not context.streams and context.statistics.streams_completed >= 600)


def test_streams_that_fail_are_completed_too(
    loop: Any, context: Context, line_log: Any, options: StreamOptions
) -> None:
    run(loop, context, "stream", dataclasses.replace(options, peers=(Peer("127.0.0.1", 1),)))
    (outcome,) = line_log.of("[stream-error]")
    assert (outcome["error"], outcome["transport.error"]) == ("PROXY", "CONNECT")
    assert "completed 1 of 1 streams, flow is complete" in "".join(line_log.lines)
    assert "streams-failed=1,flows-created=1,flows-succeeded=1" in (
        context.statistics.take_heartbeat()
    )


def test_peers_are_chosen_among_all(
    loop: Any, context: Context, line_log: Any, options: StreamOptions
) -> None:
    port = options.peers[0].port
    both = dataclasses.replace(
        options, peers=(*options.peers, Peer("localhost", port)), stream_model=times(30, 0)
    )
    run(loop, context, "flow", both)
    hosts = {o["transport.remote"] for o in line_log.of("Created new stream [id=") if o}
    assert "localhost:127.0.0.1" in str(hosts)
    assert context.statistics.streams_completed == 60


def test_socks_credentials_are_drawn_for_each_generator_and_kept_from_the_log(
    loop: Any, context: Context, line_log: Any, options: StreamOptions,
    socks_server: Callable[..., Any],
) -> None:  # fmt: skip
    proxy = socks_server(user=None)
    drawn = dataclasses.replace(
        options, socks_proxies=(parse_peer(proxy.peer),), socks_auth=random.Random(5),
        stream_model=times(2, 0),
    )  # fmt: skip
    run(loop, context, "flow", drawn)
    run(loop, context, "stream", drawn)
    first, second, third = proxy.credentials
    assert first == second != third
    assert all(user == password and len(user) == 7 for user, password in proxy.credentials)
    text = "".join(line_log.lines)
    assert not [user for user, _ in proxy.credentials if user.decode() in text]
