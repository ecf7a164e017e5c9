"""The models that `perfmeasure measure` gives to its generators.

They have the shape of those that OnionPerf makes: after a pause at the beginning, one transfer
after the other, each begun a while after the one before it began, or when that one is done if it
takes longer. All values are text, as TGen wants them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import networkx as nx

from perfmeasure.errors import ModelError
from perfmeasure.tgen.actions import KINDS, check_actions
from perfmeasure.tgen.graphml import Graph, write_graphml

__all__ = ["client_model", "longest_transfer_seconds", "server_model", "write_graphml"]

_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


def client_model(
    destinations: Mapping[str, str],
    *,
    socks: str | None,
    size: int | str,
    initial_pause_seconds: float,
    pause_seconds: float,
    num_streams: int = 0,
    timeout_seconds: float = 270,
    stallout_seconds: float = 0,
    heartbeat_seconds: float = 60,
    loglevel: str = "info",
) -> Graph:
    """Return the model of a client that downloads from each destination in turn.

    Args:
        destinations: what the transfers of one destination are called in the log after
            ``stream_``, such as ``exit``, to its ``HOST:PORT``.
        socks: ``HOST:PORT`` of the SOCKS proxy; None: directly.
        size: of each download, in bytes, or with a unit as TGen has them.
        initial_pause_seconds: before the first transfer.
        pause_seconds: from the begin of a transfer to the begin of the next.
        num_streams: how many in all; 0: without end.
        timeout_seconds: after which a transfer is given up; 0: never.
        stallout_seconds: without a byte, after which it is given up; 0: never.
        heartbeat_seconds: how often the generator says that it lives.
        loglevel: ``info`` has all that the analysis uses.

    Raises:
        ModelError: a name, peer or size that TGen would not take.
    """
    if not destinations:
        raise ModelError("client model", "no destinations", "one or more")
    graph: Graph = nx.DiGraph()
    start = {"loglevel": loglevel, "heartbeat": _seconds(heartbeat_seconds)}
    if socks is not None:
        start["socksproxy"] = socks
    graph.add_node("start", **start)
    graph.add_node("pause_initial", time=_seconds(initial_pause_seconds))
    graph.add_edge("start", "pause_initial")
    if num_streams:
        # Before the barriers, since TGen follows edges in the order of the vertices: the last
        # transfer has to end the program before a barrier begins another one.
        graph.add_node("end", count=str(num_streams))
    before = "pause_initial"
    for suffix, peer in destinations.items():
        if not _SUFFIX.match(suffix) or any(kind in suffix for kind in KINDS):
            raise ModelError("client model", f"a destination {suffix!r}", "letters and digits"
                             f" without any of {', '.join(KINDS)}")  # fmt: skip
        stream, pause, barrier = (
            f"stream_{suffix}", f"pause_between_{suffix}", f"pause_sync_{suffix}"
        )  # fmt: skip
        graph.add_node(
            stream,
            peers=peer,
            sendsize="0",
            recvsize=str(size),
            timeout=_seconds(timeout_seconds),
            stallout=_seconds(stallout_seconds),
        )
        graph.add_node(pause, time=_seconds(pause_seconds))
        graph.add_node(barrier)
        graph.add_edges_from([(before, stream), (before, pause), (pause, barrier)])
        if num_streams:
            graph.add_edge(stream, "end")
        graph.add_edge(stream, barrier)
        before = barrier
    first = next(iter(destinations))
    graph.add_edges_from([(before, f"stream_{first}"), (before, f"pause_between_{first}")])
    check_actions(graph, "client model")
    return graph


def server_model(port: int, *, heartbeat_seconds: float = 60, loglevel: str = "info") -> Graph:
    """Return the model of a server that listens on ``port`` and serves until it is stopped."""
    graph: Graph = nx.DiGraph()
    graph.add_node(
        "start",
        serverport=str(port),
        loglevel=loglevel,
        heartbeat=_seconds(heartbeat_seconds),
    )
    check_actions(graph, "server model")
    return graph


def longest_transfer_seconds(graph: Graph) -> float:
    """Return the longest time that may pass without a transfer ending, while all is well.

    Infinite when the graph sets no limit; see `ActionGraph.longest_transfer_seconds`.
    """
    return check_actions(graph, "model").longest_transfer_seconds()


def _seconds(seconds: float) -> str:
    """Return a time as TGen reads it: a whole number with a unit."""
    if seconds == int(seconds):
        return f"{int(seconds)} seconds"
    return f"{round(seconds * 1e6)} microseconds"
