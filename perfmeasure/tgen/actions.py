"""The actions of a TGen graph: what each vertex asks for, checked and with its units resolved.

A vertex's id names its kind (the first of start, end, pause, stream, flow, traffic that occurs in
it, as TGen reads it); its attributes are the options. Options of streams that stand on the start
vertex are the defaults of all others. Everything is checked when the graph is read, Markov models
included, so that a graph that starts also runs. Source: TGen's documents TGen-Overview and
TGen-Options.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import networkx as nx

from perfmeasure.errors import ModelError, UsageError
from perfmeasure.tgen.graphml import Graph, read_graphml
from perfmeasure.tgen.logline import LEVELS
from perfmeasure.tgen.markov import MarkovModel, load_model
from perfmeasure.tgen.peer import Peer, parse_peer
from perfmeasure.units import parse_bytes, parse_seconds

_T = TypeVar("_T")

KINDS = ("start", "end", "pause", "stream", "flow", "traffic")
"""The kinds of vertices, in the order in which an id is searched for them."""

DEFAULT_STALLOUT_SECONDS = 30.0

_STREAM_ATTRIBUTES = frozenset({
    "markovmodelseed", "packetmodelmode", "packetmodelpath", "peers", "recvsize", "sendsize",
    "socksauthseed", "sockspassword", "socksproxy", "socksusername", "stallout", "timeout",
})  # fmt: skip
_FLOW_ATTRIBUTES = _STREAM_ATTRIBUTES | {"streammodelpath"}
_TRAFFIC_ATTRIBUTES = _FLOW_ATTRIBUTES | {"flowmodelpath"}
_ATTRIBUTES = {
    "start": _TRAFFIC_ATTRIBUTES | {"serverport", "time", "heartbeat", "loglevel"},
    "end": frozenset({"time", "count", "sendsize", "recvsize"}),
    "pause": frozenset({"time"}),
    "stream": _STREAM_ATTRIBUTES,
    "flow": _FLOW_ATTRIBUTES,
    "traffic": _TRAFFIC_ATTRIBUTES,
}
_ALL_ATTRIBUTES = frozenset().union(*_ATTRIBUTES.values())


@dataclasses.dataclass(frozen=True)
class StreamOptions:
    """What a stream, flow or traffic vertex, or the start vertex for all of them, asks for.

    A size of None lasts until the packet model ends; 0 is no payload. Times of 0 are off.
    """

    peers: tuple[Peer, ...] = ()
    socks_proxies: tuple[Peer, ...] = ()
    socks_username: str | None = None
    socks_password: str | None = dataclasses.field(default=None, repr=False)
    socks_auth: random.Random | None = None
    """Draws the SOCKS credentials of each generator; None: username and password as given."""
    send_size_bytes: int | None = None
    recv_size_bytes: int | None = None
    timeout_seconds: float = 0.0
    stallout_seconds: float = DEFAULT_STALLOUT_SECONDS
    packet_model: MarkovModel | None = None
    """None: the built-in one."""
    sends_model_path: bool = False
    stream_model: MarkovModel | None = None
    flow_model: MarkovModel | None = None
    seeds: random.Random = dataclasses.field(default_factory=random.SystemRandom)
    """Draws the seed of each Markov model."""


@dataclasses.dataclass(frozen=True)
class Start:
    """The start vertex: the server's port, when the client begins, and how much is logged."""

    server_port: int | None
    delay_seconds: float
    heartbeat_seconds: float
    log_level: str


@dataclasses.dataclass(frozen=True)
class End:
    """An end vertex; each condition that is not None ends the program once it is reached."""

    time_seconds: float | None
    count: int | None
    send_size_bytes: int | None
    recv_size_bytes: int | None


@dataclasses.dataclass(frozen=True)
class ActionGraph:
    """A checked graph.

    `streams` has the options of each stream, flow and traffic vertex; `pauses` the times in
    seconds of each pause, none for a barrier that waits for all its incoming edges. `successors`
    has each vertex's unweighted targets, all of which are followed, and its weighted ones, of
    which one is chosen; both in the order of the vertices in the file.
    """

    name: str
    kinds: dict[str, str]
    edge_count: int
    start: Start
    start_id: str
    defaults: StreamOptions
    streams: dict[str, StreamOptions]
    pauses: dict[str, tuple[float, ...]]
    ends: dict[str, End]
    incoming: dict[str, int]
    successors: dict[str, tuple[tuple[str, ...], tuple[tuple[str, float], ...]]]

    def longest_transfer_seconds(self) -> float:
        """Return the longest time that may pass without a transfer ending, while all is well.

        That is the longest timeout and the longest pause together; infinite when a stream has no
        timeout or a generator draws its own times.
        """
        longest = 0.0
        for vertex, options in self.streams.items():
            if self.kinds[vertex] != "stream" or options.timeout_seconds == 0:
                return math.inf
            longest = max(longest, options.timeout_seconds)
        pauses = [seconds for times in self.pauses.values() for seconds in times]
        return self.start.delay_seconds + longest + max(pauses, default=0.0)


def load_actions(path: Path) -> ActionGraph:
    """Read and check the graph at ``path``.

    Raises:
        ModelError: see `check_actions` and `read_graphml`.
    """
    return check_actions(read_graphml(path), str(path))


def check_actions(graph: Graph, where: str) -> ActionGraph:
    """Return the actions of ``graph``.

    Raises:
        ModelError: a vertex, an attribute or an edge is not what TGen's documents say; names the
            file, the node or edge, and the attribute.
    """
    kinds = {vertex: _kind(vertex, where) for vertex in graph}
    starts = [vertex for vertex, kind in kinds.items() if kind == "start"]
    if len(starts) != 1:
        raise ModelError(where, f"{len(starts)} start vertices", "exactly one")
    if not nx.is_weakly_connected(graph):
        raise ModelError(where, "a graph in several parts", "a path between all vertices")
    start_id = starts[0]
    if graph.has_edge(start_id, start_id):
        raise ModelError(f"{where}: node {start_id}", "an edge to itself")
    reader = {vertex: _Attributes(graph.nodes[vertex], vertex, kinds[vertex], where)
              for vertex in graph}  # fmt: skip
    defaults = _read_stream(reader[start_id], StreamOptions())
    streams = {
        vertex: _read_stream(reader[vertex], defaults)
        for vertex, kind in kinds.items()
        if kind in ("stream", "flow", "traffic")
    }
    for vertex, options in streams.items():
        if not options.peers:
            raise ModelError(
                f"{where}: node {vertex}, attribute peers",
                "no peers here and none on the start vertex",
                "HOST:PORT, …",
            )
    incoming = {vertex: graph.in_degree(vertex) for vertex in graph}
    for vertex, kind in kinds.items():
        if kind == "pause" and incoming[vertex] == 0:
            raise ModelError(f"{where}: node {vertex}", "a pause that no edge leads to")
    return ActionGraph(
        name=where,
        kinds=kinds,
        edge_count=graph.number_of_edges(),
        start=_read_start(reader[start_id]),
        start_id=start_id,
        defaults=defaults,
        streams=streams,
        pauses={v: reader[v].get("time", _pause_times) or () for v, k in kinds.items()
                if k == "pause"},
        ends={v: _read_end(reader[v]) for v, k in kinds.items() if k == "end"},
        incoming=incoming,
        successors={vertex: _read_successors(graph, vertex, where) for vertex in graph},
    )  # fmt: skip


class _Attributes:
    """The attributes of one vertex; every error names file, node and attribute."""

    def __init__(self, values: dict[str, str], vertex: str, kind: str, where: str) -> None:
        self._values = values
        self._place = f"{where}: node {vertex}"
        self.directory = Path(where).parent
        for name, value in values.items():
            if name not in _ALL_ATTRIBUTES:
                raise self.error(name, "unknown", f"one of {', '.join(sorted(_ATTRIBUTES[kind]))}")
            if value and name not in _ATTRIBUTES[kind]:
                raise self.error(name, f"does not belong to a vertex of kind {kind}")

    def error(self, name: str, got: str, wanted: str = "") -> ModelError:
        return ModelError(f"{self._place}, attribute {name}", got, wanted)

    def get(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """Return the parsed attribute, or None where it is absent or empty."""
        text = self._values.get(name, "")
        if not text:
            return None
        try:
            return parse(text)
        except UsageError as error:
            raise self.error(name, error.got, error.wanted) from error
        except (ValueError, OverflowError) as error:
            raise self.error(name, f"{text!r}: {error}") from error

    def model(self, name: str) -> MarkovModel | None:
        path = self._values.get(name, "")
        if not path:
            return None
        try:
            return load_model(Path(path).expanduser())
        except (ModelError, RuntimeError) as error:
            raise self.error(name, str(error)) from error


def _kind(vertex: str, where: str) -> str:
    for kind in KINDS:
        if kind in vertex:
            return kind
    raise ModelError(f"{where}: node {vertex}", "an id of no known kind", f"one of {KINDS} in it")


def _read_start(attributes: _Attributes) -> Start:
    heartbeat = attributes.get("heartbeat", parse_seconds)
    return Start(
        server_port=attributes.get("serverport", lambda text: _integer(text, 65535)),
        delay_seconds=attributes.get("time", parse_seconds) or 0.0,
        heartbeat_seconds=1.0 if heartbeat is None else heartbeat,
        log_level=attributes.get("loglevel", _log_level) or "message",
    )


def _read_stream(attributes: _Attributes, defaults: StreamOptions) -> StreamOptions:
    found: dict[str, object] = {
        "peers": attributes.get("peers", _peers),
        "socks_proxies": attributes.get("socksproxy", _peers),
        "socks_username": attributes.get("socksusername", str),
        "socks_password": attributes.get("sockspassword", str),
        "socks_auth": attributes.get("socksauthseed", _seeded),
        "send_size_bytes": attributes.get("sendsize", parse_bytes),
        "recv_size_bytes": attributes.get("recvsize", parse_bytes),
        "timeout_seconds": attributes.get("timeout", parse_seconds),
        "stallout_seconds": attributes.get("stallout", parse_seconds),
        "sends_model_path": attributes.get("packetmodelmode", _is_path_mode),
        "packet_model": attributes.model("packetmodelpath"),
        "stream_model": attributes.model("streammodelpath"),
        "flow_model": attributes.model("flowmodelpath"),
        "seeds": attributes.get("markovmodelseed", _seeded),
    }
    given = {name: value for name, value in found.items() if value is not None}
    return dataclasses.replace(defaults, **given)  # type: ignore[arg-type]


def _read_end(attributes: _Attributes) -> End:
    return End(
        time_seconds=attributes.get("time", parse_seconds),
        count=attributes.get("count", lambda text: _integer(text, 2**64 - 1)),
        send_size_bytes=attributes.get("sendsize", parse_bytes),
        recv_size_bytes=attributes.get("recvsize", parse_bytes),
    )


def _read_successors(
    graph: Graph, vertex: str, where: str
) -> tuple[tuple[str, ...], tuple[tuple[str, float], ...]]:
    order = {name: index for index, name in enumerate(graph)}
    followed, weighted = [], []
    for target in sorted(graph.successors(vertex), key=order.__getitem__):
        place = f"{where}: edge {vertex} -> {target}"
        data = graph.edges[vertex, target]
        for name in data:
            if name != "weight":
                raise ModelError(f"{place}, attribute {name}", "unknown", "weight")
        text = data.get("weight", "")
        if not text:
            followed.append(target)
            continue
        weight = _number(text)
        if weight is None or weight < 0:
            raise ModelError(f"{place}, attribute weight", repr(text), "a number of 0 or more")
        weighted.append((target, weight))
    if weighted and not sum(weight for _, weight in weighted):
        raise ModelError(f"{where}: node {vertex}", "weighted edges whose weights are all 0")
    return tuple(followed), tuple(weighted)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _integer(text: str, most: int) -> int:
    if not re.fullmatch(r"\d{1,20}", text, re.ASCII) or int(text) > most:
        raise UsageError("", f"{text!r} is not a number", f"0 to {most}")
    return int(text)


def _log_level(text: str) -> str:
    if text.lower() not in LEVELS:
        raise UsageError("", f"{text!r} is not a level", f"one of {', '.join(LEVELS)}")
    return text.lower()


def _peers(text: str) -> tuple[Peer, ...]:
    return tuple(parse_peer(part.strip()) for part in text.split(","))


def _pause_times(text: str) -> tuple[float, ...]:
    return tuple(parse_seconds(part) for part in text.split(","))


def _seeded(text: str) -> random.Random:
    return random.Random(_integer(text, 2**32 - 1))  # noqa: S311 - a repeatable draw is the point


def _is_path_mode(text: str) -> bool:
    if text.lower() not in ("path", "graphml"):
        raise UsageError("", f"{text!r} is not a mode", "path or graphml")
    return text.lower() == "path"
