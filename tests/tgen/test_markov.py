"""perfmeasure.tgen.markov: distributions as they should be, bad models refused, bursts bounded."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from pathlib import Path

import networkx as nx
import pytest

from perfmeasure.errors import ModelError
from perfmeasure.tgen import markov
from perfmeasure.tgen.graphml import format_graphml, parse_graphml, write_graphml
from perfmeasure.tgen.protocol import TOKEN


def model(*emissions: dict[str, object], transition: float = 1.0) -> nx.DiGraph[str]:
    """Return start -> s1, which returns to itself and emits."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("s0", type="state", name="start")
    graph.add_node("s1", type="state", name="x")
    graph.add_edge("s0", "s1", type="transition", weight=transition)
    graph.add_edge("s1", "s1", type="transition", weight=1.0)
    for index, emission in enumerate(emissions):
        graph.add_node(f"o{index}", type="observation", name=emission["name"])
        data = {key: value for key, value in emission.items() if key != "name"}
        graph.add_edge("s1", f"o{index}", **{"type": "emission", "weight": 1.0, **data})
    return graph


def parsed(graph: nx.DiGraph[str]) -> markov.MarkovModel:
    text = format_graphml(graph)
    return markov.MarkovModel(parse_graphml(text, "m"), "m", None, text, "m")


@pytest.mark.parametrize(
    ("emission", "mean", "deviation"),
    [
        ({"distribution": "uniform", "param_low": 1e4, "param_high": 3e4}, 2e4, 2e4 / 12**0.5),
        ({"distribution": "normal", "param_location": 1e6, "param_scale": 1e4}, 1e6, 1e4),
        ({"distribution": "lognormal", "param_location": 8.0, "param_scale": 0.5},
         math.exp(8.125), math.exp(8.125) * (math.exp(0.25) - 1) ** 0.5),
        ({"distribution": "exponential", "param_rate": 0.0001}, 1e4, 1e4),
        ({"distribution": "pareto", "param_scale": 1000.0, "param_shape": 5.0}, 1250.0,
         (1000.0**2 * 5 / (16 * 3)) ** 0.5),
    ],
    ids=lambda value: value["distribution"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_delays_have_the_mean_and_deviation_of_their_distribution(
    emission: dict[str, object], mean: float, deviation: float
) -> None:
    walk = parsed(model({"name": "+", **emission})).walk(1)
    delays = [walk.next()[1] for _ in range(20_000)]
    assert statistics.fmean(delays) == pytest.approx(mean, rel=0.03)
    assert statistics.stdev(delays) == pytest.approx(deviation, rel=0.1)


def test_a_delay_is_never_negative() -> None:
    below = {"name": "+", "distribution": "normal", "param_location": -9.0, "param_scale": 1.0}
    walk = parsed(model(below)).walk(1)
    assert {walk.next() for _ in range(100)} == {("+", 0)}


def test_weights_are_frequencies() -> None:
    none = {"distribution": "uniform", "param_low": 0.0, "param_high": 0.0}
    walk = parsed(
        model({"name": "+", "weight": 3.0, **none}, {"name": "-", "weight": 1.0, **none})
    ).walk(7)
    counts = Counter(walk.next()[0] for _ in range(20_000))
    assert counts["+"] / 20_000 == pytest.approx(0.75, abs=0.02)


def test_a_seed_gives_the_same_walk_again() -> None:
    walks = [markov.builtin_stream_model().walk(5) for _ in range(2)]
    assert [walks[0].next() for _ in range(9)] == [walks[1].next() for _ in range(9)]


def test_a_model_that_ended_stays_so_until_it_is_restarted() -> None:
    end = {"name": "F", "distribution": "uniform", "param_low": 0.0, "param_high": 0.0}
    walk = parsed(model(end)).walk(1)
    assert walk.next() == ("F", 0)
    assert walk.has_ended
    walk.restart()
    assert not walk.has_ended
    assert walk.burst(5000, "+", repeats=False) == markov.Burst(0, 0, is_end=True)


def test_the_builtin_packet_model_never_pauses_nor_ends() -> None:
    builtin = markov.builtin_packet_model()
    assert builtin.is_endless_and_undelayed
    assert builtin.walk(1).burst(14340, "+", repeats=False) == markov.Burst(14340, 0, is_end=False)
    assert builtin.walk(1).burst(1, "-", repeats=True).size_bytes == 1434
    # What the shortcut says is what drawing says.
    walk = builtin.walk(1)
    drawn = [walk.next() for _ in range(20_000)]
    assert {delay for _, delay in drawn} == {0}
    assert Counter(o for o, _ in drawn)["+"] == pytest.approx(10_000, rel=0.05)


def test_the_c_programs_text_of_the_builtin_model_is_recognised(fixtures: Path) -> None:
    transcript = (fixtures / "tgen/transcript.json").read_text().encode()
    text = transcript[transcript.index(b"<?xml") : transcript.index(b"</graphml>") + 10]
    text = text.replace(b"\\n", b"\n").replace(b'\\"', b'"')
    assert TOKEN in transcript
    assert markov.parse_model(text, "m", "m").is_endless_and_undelayed


@pytest.mark.parametrize(
    "emissions",
    [
        [("+", 100.0), ("-", 50.0)],
        [("+", 100.0), ("F", 100.0)],
        [("+", 100.0)],
    ],
)
def test_models_of_another_shape_are_walked(emissions: list[tuple[str, float]]) -> None:
    found = parsed(
        model(*({"name": n, "distribution": "exponential", "param_rate": r} for n, r in emissions))
    )
    assert not found.is_endless_and_undelayed


def test_delays_are_summed_until_they_are_worth_a_pause() -> None:
    fixed = {"name": "+", "distribution": "uniform", "param_low": 4000.0, "param_high": 4000.0}
    other = {**fixed, "name": "-"}
    walk = parsed(model(fixed)).walk(1)
    # Each packet of ours starts the sum anew, so that 4 ms each never make a pause ...
    assert walk.burst(14340, "+", repeats=True) == markov.Burst(14340, 0, is_end=False)
    # ... but those of the other side add up: three make 12 ms.
    assert parsed(model(other)).walk(1).burst(14340, "+", repeats=True) == markov.Burst(
        0, 12_000, is_end=False
    )


def test_a_burst_is_bounded_whatever_the_model() -> None:
    none = {"distribution": "uniform", "param_low": 0.0, "param_high": 0.0}
    for name in ("F", "-"):
        burst = parsed(model({"name": name, **none})).walk(1).burst(10**9, "+", repeats=True)
        assert burst == markov.Burst(0, 0, is_end=False)


def test_a_model_from_a_file_keeps_its_path_and_is_written_for_igraph(tmp_path: Path) -> None:
    path = tmp_path / "a model.xml"
    emission = {"name": "+", "distribution": "exponential", "param_rate": 0.5}
    write_graphml(model(emission), path)
    found = markov.load_model(path)
    assert (found.path, found.name) == (path, "a model.xml")
    assert b'attr.name="weight" attr.type="double"' in found.text
    assert b'attr.name="param_rate" attr.type="double"' in found.text


GOOD = {"name": "+", "distribution": "exponential", "param_rate": 1.0}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.DiGraph(), "0 states with the name start"),
        (model({**GOOD, "name": "x"}), "node o0, attribute name: 'x'"),
        (model({**GOOD, "distribution": "cauchy"}), "edge s1 -> o0, attribute distribution"),
        (model({**GOOD, "param_rate": 0.0}), "edge s1 -> o0, attribute param_rate"),
        (model({**GOOD, "weight": -1.0}), "edge s1 -> o0, attribute weight"),
        (model({**GOOD, "weight": 0.0}), "node s1: the weights of its emissions are all 0"),
        (model({**GOOD, "type": "transition"}), "edge s1 -> o0, attribute type"),
        (model({"name": "+", "distribution": "uniform", "param_low": 2.0, "param_high": 1.0}),
         "attribute param_low"),
        (model({"name": "+", "distribution": "normal", "param_location": 2.0}), "param_scale"),
        (model(GOOD, transition=math.inf), "edge s0 -> s1, attribute weight"),
    ],
)  # fmt: skip
def test_errors_name_the_place(graph: nx.DiGraph[str], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        parsed(graph)
    assert message in str(caught.value)


def test_a_node_without_a_type_is_named() -> None:
    graph = model(GOOD)
    graph.add_node("odd", name="x")
    with pytest.raises(ModelError, match="m: node odd, attribute type"):
        parsed(graph)
