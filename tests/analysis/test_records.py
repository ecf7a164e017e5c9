from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from perfmeasure.analysis import pipeline, records


@pytest.fixture(scope="module")
def node(fixtures: Path) -> dict[str, Any]:
    document = pipeline.analyze([fixtures / "onionperf-run"], nickname="testnet")
    found: dict[str, Any] = document["data"]["testnet"]
    return found


def test_links_and_phases_are_found_again(node: dict[str, Any]) -> None:
    again = copy.deepcopy(node)
    for transfer in again["tgen"]["transfers"].values():
        del transfer["links"], transfer["phases"]
    records.link(again)
    for name, transfer in again["tgen"]["transfers"].items():
        expected = node["tgen"]["transfers"][name]
        assert transfer["links"] == expected["links"]
        assert transfer["phases"] == pytest.approx(expected["phases"], abs=2e-6)


def test_summaries_are_found_again(node: dict[str, Any]) -> None:
    again = copy.deepcopy(node)
    records.summarise(again)
    assert again["tgen"]["transfers_summary"] == node["tgen"]["transfers_summary"]
    for summary in ("circuits_summary", "streams_summary"):
        assert again["tor"][summary].keys() == node["tor"][summary].keys()
    lifetimes = again["tor"]["streams_summary"]["lifetimes"]
    for purpose, expected in node["tor"]["streams_summary"]["lifetimes"].items():
        assert sorted(lifetimes[purpose]) == sorted(expected)
    for kind, values in node["tor"]["circuits_summary"].items():
        assert sorted(again["tor"]["circuits_summary"][kind]) == pytest.approx(sorted(values))


def test_names_sort_as_their_numbers() -> None:
    names = ["10", "7#10", "7#2", "b", "a#2", "7", "a"]
    assert sorted(names, key=records.natural) == ["a", "a#2", "b", "7", "7#2", "7#10", "10"]


def test_last_seen_of_what_has_not_ended() -> None:
    circuit = {"unix_ts_start": 10.0, "elapsed_seconds": [["A:LAUNCHED", 0.0], ["A:BUILT", 2.5]]}
    assert records.last_seen(circuit) == 12.5
    transfer = {"unix_ts_start": 10.0, "elapsed_seconds": {"command": 1, "payload": {"0.0": 3.0}}}
    assert records.last_seen(transfer) == 13.0
    assert records.last_seen({"unix_ts_start": 10.0, "elapsed_seconds": []}) == 10.0


def test_an_id_that_comes_again_is_numbered() -> None:
    names = list(records.unique(["7", "8", "7", "7", "9", "8"]))
    assert names == ["7", "8", "7#2", "7#3", "9", "8#2"]
