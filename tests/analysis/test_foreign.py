from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.analysis import database, filters, foreign, onionperf, pipeline, validation
from perfmeasure.errors import InputError
from tests.analysis import foreign_strategies

SAMPLES = ("onionperf-run/expected", "tgen/client-socks-success", "tgen/client-transfer-timeout")


@given(st.sampled_from(onionperf.VERSIONS).flatmap(foreign_strategies.databases))
def test_there_and_back_is_exact(document: dict[str, Any]) -> None:
    assert list(validation.errors(document, "db")) == []
    losses: Counter[str] = Counter()
    found = foreign.read(document, "db", losses)
    assert list(validation.errors(found, "db")) == []
    version = str(document["version"])
    again = onionperf.written(found, version, losses)
    assert jsonio.canonical(again) == jsonio.canonical(document)
    assert not losses
    assert jsonio.canonical(foreign.read(again, "db", losses)) == jsonio.canonical(found)


@pytest.mark.parametrize("name", SAMPLES)
def test_real_databases_come_back_as_they_were(fixtures: Path, name: str) -> None:
    document = database.load(fixtures / f"{name}.onionperf-3.1.json")
    losses: Counter[str] = Counter()
    again = onionperf.to_3_1(foreign.read(document, name, losses))
    for node in document["data"].values():
        node.setdefault("tor", {"circuits": {}, "guards": [], "streams": {}})
    assert again == document
    assert not losses


@pytest.mark.parametrize("version", onionperf.VERSIONS)
@pytest.mark.parametrize(
    "place", ["onionperf-run", "torctl", "old-tgen", "tgen/client-transfer-timeout.tgen.log"]
)
def test_written_read_and_written_again(fixtures: Path, place: str, version: str) -> None:
    document = pipeline.analyze([fixtures / place], nickname="n")
    for asked in (None, filters.Filter(exclude_cbt=True, outcome="success")):
        shown = filters.apply(document, asked) if asked else document
        once = jsonio.canonical(onionperf.written(shown, version, Counter()))
        losses: Counter[str] = Counter()
        found = foreign.read(jsonio.loads(once, "db"), "db", losses)
        assert list(validation.errors(found, "db")) == []
        assert jsonio.canonical(onionperf.written(found, version, losses)) == once
        assert not losses


def test_what_is_read_is_what_the_analysis_finds(fixtures: Path) -> None:
    run = fixtures / "onionperf-run"
    # Without the server's logs, of which OnionPerf's database says nothing.
    logs = [next(run.glob("tgen-client*.log.xz")), next(run.glob("tor-client*.log.xz"))]
    analysed = pipeline.analyze(logs, nickname="testnet")["data"]["testnet"]
    document = database.load(run / "expected.onionperf-3.1.json")
    found = foreign.read(document, "db", Counter())["data"]["testnet"]
    assert found["tgen"]["transfers"].keys() == analysed["tgen"]["transfers"].keys()
    for name, transfer in found["tgen"]["transfers"].items():
        expected = analysed["tgen"]["transfers"][name]
        # OnionPerf had lost some of the circuits, those that were open at the end.
        for record in (transfer, expected):
            links = record["links"]
            record["links"] = {"status": links["status"], "stream": links["stream"]}
        if transfer["is_error"]:
            # OnionPerf keeps no payload times of a transfer that failed.
            for field in expected["elapsed_seconds"].keys() - transfer["elapsed_seconds"].keys():
                assert field.startswith("payload_")
            expected["elapsed_seconds"] = transfer["elapsed_seconds"]
        for phase, seconds in expected["phases"].items():
            assert transfer["phases"][phase] == pytest.approx(seconds, abs=2e-6)
        transfer["phases"] = expected["phases"]
        assert transfer == expected
    found_summary = found["tgen"]["transfers_summary"]
    assert found_summary == analysed["tgen"]["transfers_summary"]


def test_what_has_no_place_is_counted(fixtures: Path) -> None:
    document = database.load(fixtures / "onionperf-run/expected.onionperf-3.1.json")
    node = document["data"]["testnet"]
    node["tor"]["circuits"]["16"]["colour"] = "red"
    node["tor"]["bandwidth_summary"] = {}
    node["weather"] = "fine"
    losses: Counter[str] = Counter()
    foreign.read(document, "db", losses)
    assert losses == {"circuit: colour": 1, "nickname: weather": 1, "tor: bandwidth_summary": 1}


def test_a_version_that_is_text_or_a_number(fixtures: Path) -> None:
    run = pipeline.analyze([fixtures / "onionperf-run"])
    document = onionperf.written(run, "1.0", Counter())
    assert document["version"] == 1.0
    as_text = {**document, "version": "1.0"}
    assert foreign.read(document, "a", Counter()) == foreign.read(as_text, "b", Counter())


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("tgen/streams/{}/time_info/now-ts", "soon", "soon"),
        ("tgen/streams/{}/time_info/now-ts", "0", "numbers that cannot be"),
        ("tor/circuits/16/circuit_id", "x", "data/testnet/tor/circuits/16/circuit_id"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    fixtures: Path, path: str, value: str, words: str
) -> None:
    document = database.load(fixtures / "onionperf-run/expected.onionperf-3.1.json")
    record = document["data"]["testnet"]
    first = next(iter(record["tgen"]["streams"]))
    *keys, last = [part.format(first) for part in path.split("/")]
    for key in keys:
        record = record[key]
    record[last] = value
    with pytest.raises(InputError, match=words):
        foreign.read(document, "db", Counter())
