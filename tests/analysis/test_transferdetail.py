from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from perfmeasure.analysis import pipeline
from perfmeasure.analysis.transferdetail import detail, outcome


def test_a_real_transfer_has_all_its_sources(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "kernel-run"], nickname="n")
    node = document["data"]["n"]
    for name, transfer in node["tgen"]["transfers"].items():
        found = detail(name, "n", transfer, node)
        assert found["outcome"] == "success"
        assert sum(found["phases"].values()) == pytest.approx(found["seconds"], abs=1e-5)
        # All on one time line: what tor and the kernel saw lies within the transfer.
        for event, seconds in found["stream"]["events"]:
            assert -0.05 <= seconds <= found["seconds"] + 0.05, event
        steps = found["connection"]["steps"]
        assert 0 <= steps["connect"] <= steps["established"] <= steps["closed"]
        assert steps["closed"] <= found["seconds"] + 0.05
        assert found["steps"]["first_byte"] <= found["steps"]["last_byte"]
        assert "payload_progress" not in found["steps"]
        assert found["progress"]["1.0"] <= found["seconds"]
        assert len(found["circuit"]["path"]) >= 3
        for relay in found["circuit"]["path"]:
            assert len(relay["fingerprint"]) == 40
            assert relay["nickname"]
        assert found["guards"][0]["smoothed_rtt_seconds"] > 0
        assert "unix_ts_start" not in found["guards"][0]


def test_what_is_not_known_is_absent() -> None:
    document = synthetic.day("2026-11-22", transfers=1, failing=1)
    node = document["data"]["host"]
    ((name, transfer),) = node["tgen"]["transfers"].items()
    del transfer["phases"], transfer["unix_ts_end"]
    transfer["links"] = {"status": "unmatched"}
    found = detail(name, "host", transfer, node)
    assert found["error_code"] == transfer["error_code"]
    assert "packets" not in found
    transfer["packets"] = {"count": 3, "bytes": 200}
    assert detail(name, "host", transfer, node)["packets"] == {"count": 3, "bytes": 200}
    assert not {"seconds", "phases", "stream", "circuit", "connection", "guards", "server"} & set(
        found
    )


def test_the_far_end_is_on_the_same_time_line() -> None:
    document = synthetic.day("2026-11-22", transfers=1)
    node = document["data"]["host"]
    ((name, transfer),) = node["tgen"]["transfers"].items()
    transfer["server"] = {
        "status": "linked", "error_code": "NONE", "unix_ts_start": transfer["unix_ts_start"] + 0.5,
        "elapsed_seconds": {"command": 0.25, "payload_progress": {"1.0": 1.0}},
    }  # fmt: skip
    assert detail(name, "host", transfer, node)["server"] == {
        "error_code": "NONE", "steps": {"command": 0.75},
    }  # fmt: skip


def test_a_hop_that_is_no_relay_is_shown_as_it_stands() -> None:
    document = synthetic.day("2026-11-22", transfers=1)
    node = document["data"]["host"]
    ((name, transfer),) = node["tgen"]["transfers"].items()
    node["tor"]["circuits"]["0"]["path"] = [["odd"]]
    assert detail(name, "host", transfer, node)["circuit"]["path"] == [
        {"fingerprint": "odd", "nickname": ""}
    ]


def test_outcomes() -> None:
    assert outcome({"is_complete": False, "is_error": False}) == "incomplete"
    assert outcome({"is_complete": True, "is_error": True}) == "error"
    assert outcome({"is_complete": True, "is_error": False}) == "success"
