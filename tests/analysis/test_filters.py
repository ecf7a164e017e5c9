from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from perfmeasure.analysis import filters, pipeline, validation
from perfmeasure.analysis.filters import Filter
from perfmeasure.errors import InputError, UsageError

AUTH1 = "0F556291FB53B0638152267AE53C802BF3BAA5D2"


@pytest.fixture
def document(fixtures: Path) -> dict[str, Any]:
    return pipeline.analyze([fixtures / "onionperf-run"], nickname="n")


@pytest.fixture
def relays(tmp_path: Path) -> Path:
    path = tmp_path / "relays.txt"
    path.write_text(f"# those of one operator\n\n{AUTH1.lower()}\n")
    return path


def left(document: dict[str, Any]) -> set[str]:
    node = document["data"]["n"]
    return {
        name
        for name, transfer in node["tgen"]["transfers"].items()
        if filters.is_kept(document, node, transfer)
    }


def out(document: dict[str, Any]) -> set[str]:
    circuits = document["data"]["n"]["tor"]["circuits"]
    return {name for name, circuit in circuits.items() if "filtered_out" in circuit}


def hops(document: dict[str, Any], name: str) -> list[str]:
    path = document["data"]["n"]["tor"]["circuits"][name].get("path", [])
    return [hop[0][1:41] for hop in path]


def test_nothing_is_removed_and_what_was_done_is_said(
    document: dict[str, Any], relays: Path
) -> None:
    before = copy.deepcopy(document)
    marked = filters.apply(document, Filter(exclude=relays, guards=True, outcome="success"))
    assert document == before
    assert list(validation.errors(marked, "db")) == []
    entry = {"name": "exclude_fingerprints", "filepath": str(relays), "value": "guards"}
    outcome = [{"name": "outcome", "value": "success"}]
    assert marked.pop("filters") == {"tor/circuits": [entry], "tgen/transfers": outcome}
    node = marked["data"]["n"]
    for part in (node["tor"]["circuits"], node["tgen"]["transfers"]):
        assert any("filtered_out" in record for record in part.values())
        for record in part.values():
            record.pop("filtered_out", None)
    assert marked == before


@pytest.mark.parametrize("side", ["include", "exclude"])
@pytest.mark.parametrize("where", [{}, {"guards": True}, {"exits": True}])
def test_fingerprints(
    document: dict[str, Any], relays: Path, side: str, where: dict[str, bool]
) -> None:
    asked = Filter(**{side: relays}, **where)  # type: ignore[arg-type]
    marked = filters.apply(document, asked)
    streams = document["data"]["n"]["tor"]["streams"].values()
    onion = {s["circuit_id"] for s in streams if ".onion:" in s["target"] and "circuit_id" in s}
    for name in document["data"]["n"]["tor"]["circuits"]:
        tested = path = hops(document, name)
        if "guards" in where:
            tested = path[:1]
        if "exits" in where:
            tested = [] if name in onion else path[-1:]
        passes = (AUTH1 not in tested) if side == "exclude" else set(tested) <= {AUTH1}
        assert (name in out(marked)) == (not path or not passes), name


def test_circuits_before_a_timeout_was_learned(document: dict[str, Any]) -> None:
    circuits = document["data"]["n"]["tor"]["circuits"]
    first, second, third, *_ = circuits
    circuits[first]["cbt_set"] = True
    del circuits[third]["cbt_set"]
    marked = filters.apply(document, Filter(exclude_cbt=True))
    assert first not in out(marked)
    assert {second, third} <= out(marked)


def test_transfers(document: dict[str, Any]) -> None:
    transfers = document["data"]["n"]["tgen"]["transfers"]
    onion = {n for n, t in transfers.items() if ".onion" in t["endpoint_remote"]}
    failed = {n for n, t in transfers.items() if t["is_error"]}
    assert onion
    assert failed
    for asked, expected in (
        (Filter(destination="onion"), onion),
        (Filter(destination="exit"), set(transfers) - onion),
        (Filter(outcome="error"), failed),
        (Filter(outcome="success", destination="onion"), onion - failed),
        (Filter(outcome="incomplete"), set()),
        (Filter(min_bytes=5242880, max_bytes=5242880), set(transfers)),
        (Filter(min_bytes=5242881), set()),
        (Filter(max_bytes=5242879), set()),
        (Filter(first="2026-11-22", last="2026-11-22"), set(transfers)),
        (Filter(first="2026-11-23"), set()),
    ):
        assert left(filters.apply(document, asked)) == expected, asked


def test_a_transfer_goes_with_its_circuit(document: dict[str, Any], relays: Path) -> None:
    marked = filters.apply(document, Filter(exclude=relays))
    transfers = document["data"]["n"]["tgen"]["transfers"]
    kept = {n for n, t in transfers.items() if t["links"]["circuit"] not in out(marked)}
    assert left(marked) == kept != set(transfers)
    name = next(iter(kept), None)
    if name:
        del marked["data"]["n"]["tgen"]["transfers"][name]["links"]["circuit"]
        assert name not in left(marked)


def test_filters_add_up(document: dict[str, Any]) -> None:
    once = filters.apply(document, Filter(destination="onion"))
    twice = filters.apply(once, Filter(outcome="success"))
    assert left(twice) < left(once)
    assert [entry["name"] for entry in twice["filters"]["tgen/transfers"]] == [
        "destination",
        "outcome",
    ]
    assert filters.apply(twice, Filter(outcome="success")) == twice


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "relays"
    with pytest.raises(InputError, match="cannot be read"):
        filters.fingerprints_of(path)
    path.write_text(f"${AUTH1}~auth1 # mine\nauth2\n")
    with pytest.raises(InputError, match="relays:2: 'auth2' is no fingerprint"):
        filters.fingerprints_of(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is no text"):
        filters.fingerprints_of(path)
    path.write_text("# none today\n")
    with pytest.raises(InputError, match="without a fingerprint"):
        filters.fingerprints_of(path)
    path.write_bytes(f"\ufeff{AUTH1}\r\n".encode())
    assert filters.fingerprints_of(path) == {AUTH1}


def test_sizes_that_nothing_can_have(document: dict[str, Any]) -> None:
    for most in (0, 6):
        with pytest.raises(UsageError, match=f"--max-size: {most} bytes are less than"):
            filters.apply(document, Filter(min_bytes=7, max_bytes=most))
    assert filters.apply(document, Filter(min_bytes=7, max_bytes=7))
