from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.analysis import foreign, merge, period, pipeline, validation
from tests.analysis import foreign_strategies


def documents(version: str) -> st.SearchStrategy[dict[str, Any]]:
    return foreign_strategies.databases(version).map(lambda d: foreign.read(d, "db", Counter()))


ANY = st.sampled_from(["2.0", "3.1"]).flatmap(documents)


def records_of(document: dict[str, Any]) -> Counter[bytes]:
    """Count the records by what they say, whatever their names."""
    found: Counter[bytes] = Counter()
    for nickname, node in document["data"].items():
        tor = node.get("tor", {})
        for part in (node.get("tgen", {}).get("transfers", {}), tor.get("circuits", {})):
            for record in part.values():
                told = {k: v for k, v in record.items() if k not in {"transfer_id", "links"}}
                found[nickname.encode() + jsonio.canonical(told)] += 1
    return found


@given(st.lists(ANY, min_size=2, max_size=3), st.randoms())
def test_the_order_does_not_matter_and_nothing_is_lost(
    inputs: list[dict[str, Any]], random: Any
) -> None:
    before = copy.deepcopy(inputs)
    merged = merge.merge(inputs)
    assert inputs == before
    assert list(validation.errors(merged, "db")) == []
    shuffled = list(inputs)
    random.shuffle(shuffled)
    assert jsonio.canonical(merge.merge(shuffled)) == jsonio.canonical(merged)
    assert records_of(merged).keys() == set().union(*map(records_of, inputs))


def test_connections_of_the_kernel_are_merged_and_references_follow(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "kernel-run"], nickname="n")
    later = copy.deepcopy(document)
    node = later["data"]["n"]
    for part in (node["kernel"]["connections"], node["tgen"]["transfers"], node["tor"]["circuits"]):
        for record in part.values():
            record["unix_ts_start"] += 3600
    merged = merge.merge([later, document])
    assert list(validation.errors(merged, "db")) == []
    both = merged["data"]["n"]
    assert len(both["kernel"]["connections"]) == 2 * len(node["kernel"]["connections"])
    assert both["kernel"]["accounting"] == node["kernel"]["accounting"]
    assert both["kernel"]["links"]["transfers"] == {"linked": 20, "ambiguous": 0, "unmatched": 0}
    for name, transfer in node["tgen"]["transfers"].items():
        again = both["tgen"]["transfers"][f"{name}#2"]
        connection = both["kernel"]["connections"][again["links"]["connection"]]
        was = node["kernel"]["connections"][transfer["links"]["connection"]]
        assert connection["unix_ts_start"] == was["unix_ts_start"]
        peer = both["kernel"]["connections"][connection["peer"]]
        assert (peer["pid"], peer["remote_port"]) != (connection["pid"], was["remote_port"])
        assert again["links"]["connection"].endswith("#2")
        assert [guard["connection"] for guard in again["kernel"]["guards"]] == [
            f"{guard['connection']}#2" for guard in transfer["kernel"]["guards"]
        ]
        assert both["tor"]["circuits"][again["links"]["circuit"]]["guard_connection"].endswith("#2")


def test_steps_of_the_clock_survive(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "kernel-run"], nickname="n")
    other = copy.deepcopy(document)
    step = {"kind": "connections", "unix_ts": 1795305600.0, "seconds": 2.0}
    other["meta"]["sources"]["n"]["clock_steps"] = [step]
    sources = merge.merge([document, other])["meta"]["sources"]["n"]
    assert sources["clock_steps"] == [step]


@given(ANY)
def test_the_same_twice_is_the_same(document: dict[str, Any]) -> None:
    assert merge.merge([document, copy.deepcopy(document)]) == document


def test_steps_of_the_clock_stand_together(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "tgen/client-direct-success.tgen.log"], nickname="n")
    steps = [{"kind": "tgen", "unix_ts": at, "seconds": -0.5} for at in (7.0, 8.0, 9.0)]
    others = []
    for known in (steps[1:], steps[:2]):
        others.append(copy.deepcopy(document))
        others[-1]["meta"]["sources"]["n"]["clock_steps"] = known
    merged = merge.merge(others)
    assert merged["meta"]["sources"]["n"]["clock_steps"] == steps


def test_ids_that_collide_are_numbered_and_references_follow(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"], nickname="n")
    later = copy.deepcopy(document)
    node = later["data"]["n"]
    parts = (node["tgen"]["transfers"], node["tor"]["circuits"], node["tor"]["streams"])
    for part in (*parts, node["tor"]["or_connections"]):
        for record in part.values():
            record["unix_ts_start"] += 86400
            if "unix_ts_end" in record:
                record["unix_ts_end"] += 86400
    merged = merge.merge([later, document])["data"]["n"]
    for name, transfer in document["data"]["n"]["tgen"]["transfers"].items():
        assert merged["tgen"]["transfers"][name] == transfer
        second = merged["tgen"]["transfers"][f"{name}#2"]
        assert second["unix_ts_start"] == transfer["unix_ts_start"] + 86400
        assert second["links"]["stream"] == transfer["links"]["stream"] + "#2"
    for name, stream in document["data"]["n"]["tor"]["streams"].items():
        if "circuit_id" in stream:
            assert merged["tor"]["streams"][f"{name}#2"]["circuit_id"].endswith("#2")
    links = merged["tgen"]["transfers_summary"]["links"]
    assert links == {"linked": 24, "ambiguous": 0, "unmatched": 0}


def test_what_is_only_referred_to_is_no_other_of_that_name(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"], nickname="n")
    other = copy.deepcopy(document)
    node = other["data"]["n"]
    node["tor"]["circuits"] = {}
    for stream in node["tor"]["streams"].values():
        stream["unix_ts_start"] += 1000  # another stream
    merged = merge.merge([document, other])["data"]["n"]["tor"]
    for name, stream in merged["streams"].items():
        if "#" in name and "circuit_id" in stream:
            assert stream["circuit_id"] not in merged["circuits"]


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [(("unknown", "192.0.2.1"), "192.0.2.1"), (("unknown", "unknown"), "unknown")],
)
def test_the_address_that_is_known(addresses: tuple[str, str], expected: str) -> None:
    nodes = [{"measurement_ip": a, "tgen": {"transfers": {}}} for a in addresses]
    assert merge._node(nodes)["measurement_ip"] == expected


def test_days_cut_apart_and_merged_are_the_whole(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"], nickname="n")
    node = document["data"]["n"]
    for index, transfer in enumerate(node["tgen"]["transfers"].values()):
        if index % 2:
            for field in ("unix_ts_start", "unix_ts_end"):
                transfer[field] += 86400
    days = [
        period.cut(document, "2026-11-22", "2026-11-22"),
        period.cut(document, "2026-11-23", None),
    ]
    assert all(day["data"]["n"]["tgen"]["transfers"] for day in days)
    merged = merge.merge(days)["data"]["n"]
    assert merged["tgen"]["transfers"] == node["tgen"]["transfers"]
    for field in ("bandwidth_summary", "circuits", "gaps", "guards", "or_connections", "streams"):
        assert merged["tor"][field] == node["tor"][field]


def test_connections_of_the_kernel_cut_apart_and_merged_are_the_whole(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "kernel-run"], nickname="n")
    node = document["data"]["n"]
    for index, name in enumerate(sorted(node["kernel"]["connections"])):
        if index % 2:
            node["kernel"]["connections"][name]["unix_ts_end"] += 86400
    days = [period.cut(document, None, "2026-11-22"), period.cut(document, "2026-11-23", None)]
    assert all(day["data"]["n"]["kernel"]["connections"] for day in days)
    assert merge.merge(days)["data"]["n"]["kernel"] == node["kernel"]
