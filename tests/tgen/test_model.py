"""perfmeasure.tgen.model: what measure gives to a generator, ours or the C program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from perfmeasure.errors import ModelError
from perfmeasure.tgen.actions import check_actions
from perfmeasure.tgen.model import (
    client_model,
    longest_transfer_seconds,
    server_model,
    write_graphml,
)

BOTH = {"exit": "127.0.0.1:8080", "onion": "abc.onion:8080"}


def make(destinations: dict[str, str] = BOTH, **options: Any) -> nx.DiGraph[str]:
    return client_model(
        destinations,
        **{"socks": "127.0.0.1:9050", "size": 5242880, "initial_pause_seconds": 0,
           "pause_seconds": 1.5, **options},
    )  # fmt: skip


def test_destinations_take_turns_and_never_overlap() -> None:
    actions = check_actions(make(num_streams=10), "m")
    follow = {vertex: followed for vertex, (followed, _) in actions.successors.items()}
    assert follow["start"] == ("pause_initial",)
    assert follow["pause_initial"] == ("stream_exit", "pause_between_exit")
    assert follow["pause_sync_exit"] == ("stream_onion", "pause_between_onion")
    assert follow["pause_sync_onion"] == ("stream_exit", "pause_between_exit")
    # The end is asked first, so that no further transfer begins after the last one.
    assert follow["stream_onion"] == ("end", "pause_sync_onion")
    assert actions.ends["end"].count == 10
    assert actions.incoming["pause_sync_exit"] == 2
    assert actions.pauses == {"pause_initial": (0,), "pause_between_exit": (1.5,),
        "pause_sync_exit": (), "pause_between_onion": (1.5,), "pause_sync_onion": ()}  # fmt: skip
    assert actions.streams["stream_onion"].peers[0].host == "abc.onion"


def test_one_destination_follows_itself() -> None:
    actions = check_actions(make({"onion": "abc.onion:1"}), "m")
    assert actions.successors["pause_sync_onion"][0] == ("stream_onion", "pause_between_onion")
    assert not actions.ends


def test_all_values_are_text_in_tgens_units(fixtures: Path) -> None:
    graph = make(initial_pause_seconds=300, size="5 MiB")
    values = [value for _, data in graph.nodes(data=True) for value in data.values()]
    assert all(isinstance(value, str) for value in values)
    assert graph.nodes["pause_initial"]["time"] == "300 seconds"
    assert graph.nodes["pause_between_exit"]["time"] == "1500000 microseconds"
    real = nx.read_graphml(fixtures / "onionperf-run/tgen-client.graphml.xml")
    stream = dict(graph.nodes["stream_exit"])
    del stream["peers"]
    assert stream == real.nodes["stream"]


def test_the_longest_transfer_is_the_timeout_and_the_pause() -> None:
    assert longest_transfer_seconds(make()) == 271.5
    assert longest_transfer_seconds(make(timeout_seconds=5, initial_pause_seconds=30)) == 35


def test_a_server_only_serves() -> None:
    actions = check_actions(server_model(8080), "m")
    assert actions.start.server_port == 8080
    assert actions.edge_count == 0


@pytest.mark.parametrize("destinations", [{}, {"weekend": "a:1"}, {"a b": "a:1"}, {"a": "a"}])
def test_what_tgen_would_misread_is_refused(destinations: dict[str, str]) -> None:
    with pytest.raises(ModelError):
        make(destinations)


def test_the_c_program_reads_it(require: Callable[..., None], tmp_path: Path) -> None:
    require("tgen")
    write_graphml(make({"exit": "127.0.0.1:1"}, socks=None, num_streams=1), tmp_path / "m.xml")
    run = subprocess.run(
        [shutil.which("tgen") or "tgen", str(tmp_path / "m.xml")],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert "successfully loaded graphml file" in run.stdout
    assert run.returncode == 0
