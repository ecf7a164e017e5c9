"""Markov models, from which TGen draws when packets, streams and flows come, and which way.

A model is a GraphML graph of states and observations. From ``start`` a walk follows one
*transition* after the other; each new state *emits* an observation with a delay in microseconds:
``+`` (a packet to the server; a new stream or flow), ``-`` (a packet to the origin; likewise a new
stream) or ``F`` (the model ends). Source: TGen's document TGen-Markov-Models.

The distributions are exact; the sequence of random numbers is Python's, not GLib's, so that one
seed gives the same walk at both ends of ours, but not the walk of the C program.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import networkx as nx

from perfmeasure.errors import ModelError
from perfmeasure.tgen.graphml import Graph, format_graphml, parse_graphml, read_graphml

PACKET_BYTES = 1434
"""Payload of one packet of a packet model."""
PAUSE_ABOVE_US = 10_000
"""Delays are summed up to this before a sender really pauses."""

PACKET_MODEL_NAME = "internal-packet-model"

_MOST_DELAY_US = 10**15
_MOST_DRAWS_AT_ONCE = 20_000
_MOST_KEPT_BYTES = 64 * 1024

_PARAMETERS = {
    "uniform": ("low", "high"),
    "normal": ("location", "scale"),
    "lognormal": ("location", "scale"),
    "exponential": ("rate",),
    "pareto": ("scale", "shape"),
}


class Burst(NamedTuple):
    """What a packet model lets a side send now, and what comes after it."""

    size_bytes: int
    pause_us: int
    """0: go on at once."""
    is_end: bool
    """The model has ended."""


class _Emission(NamedTuple):
    observation: str
    distribution: str
    parameters: tuple[float, ...]

    def draw_us(self, rng: random.Random) -> int:
        """Return a delay in whole microseconds, not below 0."""
        try:
            delay = _DRAW[self.distribution](rng, *self.parameters)
        except OverflowError:
            delay = math.inf
        return int(min(max(delay, 0.0), _MOST_DELAY_US))


class _State(NamedTuple):
    """Targets with the running sums of their weights, for `random.choices`-like draws."""

    next_states: tuple[str, ...]
    next_sums: tuple[float, ...]
    emissions: tuple[_Emission, ...]
    emission_sums: tuple[float, ...]


class MarkovModel:
    """A checked model; immutable, shared by all that walk it.

    Attributes:
        name: what it is called in the header of a stream.
        path: where it was read from; None for a built-in model or one that a peer sent.
        text: its GraphML.
        is_endless_and_undelayed: see `_is_shape_of_builtin`.
    """

    def __init__(self, graph: Graph, name: str, path: Path | None, text: bytes, where: str) -> None:
        self.name = name
        self.path = path
        self.text = text
        self.start, self.states = _read_states(graph, where)
        self.is_endless_and_undelayed = _is_shape_of_builtin(self.start, self.states)

    def walk(self, seed: int) -> Walk:
        """Return a walk from the start state, drawn from ``seed``."""
        return Walk(self, seed)


class Walk:
    """One walk through a model."""

    def __init__(self, model: MarkovModel, seed: int) -> None:
        self._model = model
        self._seed = seed
        self._state = model.start
        self._pause_us = 0
        self.has_ended = False
        self.is_endless_and_undelayed = model.is_endless_and_undelayed

    def next(self) -> tuple[str, int]:
        """Return the next observation, ``+``, ``-`` or ``F``, and its delay in microseconds."""
        if self.has_ended:
            return "F", 0
        rng = self._rng
        here = self._model.states[self._state]
        if here.next_states:
            self._state = here.next_states[_choose(here.next_sums, rng)]
            here = self._model.states[self._state]
        else:
            self.has_ended = True
            return "F", 0
        if not here.emissions:  # a state without emissions ends the walk, as TGen has it
            self.has_ended = True
            return "F", 0
        emission = here.emissions[_choose(here.emission_sums, rng)]
        if emission.observation == "F":
            self.has_ended = True
            return "F", 0
        return emission.observation, emission.draw_us(rng)

    @functools.cached_property
    def _rng(self) -> random.Random:
        # Made at the first draw, which the built-in model never needs.
        return random.Random(self._seed)  # noqa: S311 - repeatable from the seed in the header

    def restart(self) -> None:
        """Go back to the start state; the random numbers go on."""
        self._state = self._model.start
        self.has_ended = False

    def burst(self, limit_bytes: int, own: str, *, repeats: bool) -> Burst:
        """Return what may be sent in one go.

        Args:
            limit_bytes: send at most about this much; above it by less than one packet.
            own: the observation that is a packet of ours, ``+`` for the commander.
            repeats: the size is given, so that a model that ends begins anew.
        """
        if self.is_endless_and_undelayed:
            # Every delay is 0 and half of all packets are ours, whatever is drawn: the sender
            # never pauses nor ends, so nothing needs to be drawn to know how much it may send.
            return Burst(-(-limit_bytes // PACKET_BYTES) * PACKET_BYTES, 0, is_end=False)
        size = 0
        pause_us = self._pause_us
        for _ in range(_MOST_DRAWS_AT_ONCE):
            observation, delay_us = self.next()
            if observation == "F":
                if not repeats:
                    return Burst(size, 0, is_end=True)
                self.restart()
                continue
            if observation == own:
                size += PACKET_BYTES
                pause_us = 0  # counted from our last packet on
            pause_us += delay_us
            if pause_us > PAUSE_ABOVE_US:
                self._pause_us = 0
                return Burst(size, pause_us, is_end=False)
            if size >= limit_bytes:
                break
        self._pause_us = pause_us
        return Burst(size, 0, is_end=False)


def load_model(path: Path) -> MarkovModel:
    """Read the model at ``path``.

    Raises:
        ModelError: not a readable GraphML file, or not a Markov model.
    """
    graph = read_graphml(path)
    return MarkovModel(graph, path.name, path, format_graphml(_typed(graph)), str(path))


def parse_model(text: bytes, name: str, where: str) -> MarkovModel:
    """Return the model in a GraphML text, which a peer sent.

    Raises:
        ModelError: not GraphML, or not a Markov model.
    """
    # A peer sends the same small model with each stream; parsing it each time would delay the
    # first byte. Large ones are not kept, so that nobody can fill the memory.
    if len(text) <= _MOST_KEPT_BYTES:
        return _parse_once(text, name, where)
    return MarkovModel(parse_graphml(text, where), name, None, text, where)


@functools.lru_cache(maxsize=16)
def _parse_once(text: bytes, name: str, where: str) -> MarkovModel:
    return MarkovModel(parse_graphml(text, where), name, None, text, where)


@functools.cache
def builtin_packet_model() -> MarkovModel:
    """Return the model of packets both ways without delays worth the name, without end."""
    exponential = {"distribution": "exponential", "param_rate": 100.0}
    return _builtin(PACKET_MODEL_NAME, {"+": exponential, "-": exponential})


@functools.cache
def builtin_stream_model() -> MarkovModel:
    """Return the model of a stream about every 10 seconds, without end."""
    return _builtin("internal-stream-model", {"+": _EVERY_TEN_SECONDS})


@functools.cache
def builtin_flow_model() -> MarkovModel:
    """Return the model of a flow about every 10 seconds, without end."""
    return _builtin("internal-flow-model", {"+": _EVERY_TEN_SECONDS})


_EVERY_TEN_SECONDS: dict[str, object] = {
    "distribution": "normal",
    "param_location": 10_000_000.0,
    "param_scale": 4_000_000.0,
}


def _builtin(name: str, emissions: Mapping[str, Mapping[str, object]]) -> MarkovModel:
    graph: Graph = nx.DiGraph()
    graph.add_node("s0", type="state", name="start")
    graph.add_node("s1", type="state", name="nonstop")
    for source in ("s0", "s1"):
        graph.add_edge(source, "s1", type="transition", weight=1.0)
    for index, (observation, parameters) in enumerate(emissions.items()):
        graph.add_node(f"o{index}", type="observation", name=observation)
        weight = 1.0 / len(emissions)
        graph.add_edge("s1", f"o{index}", type="emission", weight=weight, **parameters)
    text = format_graphml(graph)
    return MarkovModel(parse_graphml(text, name), name, None, text, name)


def _typed(graph: Graph) -> Graph:
    """Return a copy whose numbers are numbers, as igraph wants them declared."""
    copy = graph.copy()
    for _, _, data in copy.edges(data=True):
        for name, value in data.items():
            if (name == "weight" or name.startswith("param_")) and value:
                data[name] = float(value)
    return copy


def _read_states(graph: Graph, where: str) -> tuple[str, dict[str, _State]]:
    """Return the id of the start state, and all states by id."""
    kinds = {vertex: data.get("type", "").lower() for vertex, data in graph.nodes(data=True)}
    for vertex, kind in kinds.items():
        place, name = f"{where}: node {vertex}", graph.nodes[vertex].get("name", "")
        if kind not in ("state", "observation"):
            raise ModelError(f"{place}, attribute type", repr(kind), "state or observation")
        if kind == "observation" and name not in ("+", "-", "F"):
            raise ModelError(f"{place}, attribute name", repr(name), "+, - or F")
    starts = [v for v, kind in kinds.items()
              if kind == "state" and graph.nodes[v].get("name") == "start"]  # fmt: skip
    if len(starts) != 1:
        raise ModelError(where, f"{len(starts)} states with the name start", "exactly one")
    return starts[0], {v: _read_state(graph, v, kinds, where) for v in kinds if kinds[v] == "state"}


def _read_state(graph: Graph, vertex: str, kinds: Mapping[str, str], where: str) -> _State:
    next_states: list[tuple[str, float]] = []
    emissions: list[tuple[_Emission, float]] = []
    for _, target, data in graph.out_edges(vertex, data=True):
        place = f"{where}: edge {vertex} -> {target}"
        kind = data.get("type", "").lower()
        wanted = {"state": "transition", "observation": "emission"}[kinds[target]]
        if kind != wanted:
            raise ModelError(
                f"{place}, attribute type", repr(kind), f"{wanted} to a {kinds[target]}"
            )
        weight = _positive(data, "weight", place, least=0.0)
        if kind == "transition":
            next_states.append((target, weight))
        else:
            emissions.append((_read_emission(graph.nodes[target]["name"], data, place), weight))
    for pairs, name in ((next_states, "transitions"), (emissions, "emissions")):
        if pairs and not sum(weight for _, weight in pairs):
            raise ModelError(f"{where}: node {vertex}", f"the weights of its {name} are all 0")
    return _State(
        tuple(target for target, _ in next_states),
        tuple(itertools.accumulate(weight for _, weight in next_states)),
        tuple(emission for emission, _ in emissions),
        tuple(itertools.accumulate(weight for _, weight in emissions)),
    )


def _read_emission(observation: str, data: Mapping[str, str], place: str) -> _Emission:
    name = data.get("distribution", "").lower()
    if name not in _PARAMETERS:
        raise ModelError(
            f"{place}, attribute distribution", repr(name), f"one of {', '.join(_PARAMETERS)}"
        )
    least = {"rate": 1e-300, "shape": 1e-300, "scale": 0.0}
    values = tuple(
        _positive(data, f"param_{key}", place, least=least.get(key, -math.inf))
        for key in _PARAMETERS[name]
    )
    if name == "uniform" and values[0] > values[1]:
        raise ModelError(
            f"{place}, attribute param_low", f"{values[0]} > param_high", "low <= high"
        )
    return _Emission(observation, name, values)


def _positive(data: Mapping[str, str], name: str, place: str, *, least: float) -> float:
    text = data.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        wanted = "a number" if least == -math.inf else "a number above 0" if least else "0 or more"
        raise ModelError(f"{place}, attribute {name}", repr(text), wanted)
    return value


def _is_shape_of_builtin(start: str, states: Mapping[str, _State]) -> bool:
    """Return whether no walk can pause or end, and half of all packets go each way.

    True for the built-in packet model, also when a peer sent it: from the start one state that
    leads only to itself, and emits both packets alike with exponential delays of rate 100 or
    more. Such a delay is below a whole microsecond, and so 0, but for one in e^100 draws.
    """
    targets = states[start].next_states
    if len(targets) != 1 or states[targets[0]].next_states != targets:
        return False
    loop = states[targets[0]]
    return (
        sorted(emission.observation for emission in loop.emissions) == ["+", "-"]
        and loop.emission_sums[1] == 2 * loop.emission_sums[0]
        and all(e.distribution == "exponential" and e.parameters[0] >= 100 for e in loop.emissions)
    )


def _choose(sums: tuple[float, ...], rng: random.Random) -> int:
    if len(sums) == 1:
        return 0
    return min(bisect.bisect_right(sums, rng.random() * sums[-1]), len(sums) - 1)


def _pareto(rng: random.Random, scale: float, shape: float) -> float:
    return scale * rng.paretovariate(shape)


_DRAW: dict[str, Callable[..., float]] = {
    "uniform": random.Random.uniform,
    "normal": random.Random.gauss,
    "lognormal": random.Random.lognormvariate,
    "exponential": random.Random.expovariate,
    "pareto": _pareto,
}
