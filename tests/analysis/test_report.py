from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import filters
from perfmeasure.analysis.report import Report
from perfmeasure.analysis.statistics import percentile

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "analysis"


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = jsonio.loads((GOLDEN / "onionperf-run.json").read_bytes())
    return found


@pytest.fixture
def kernel_document() -> dict[str, Any]:
    found: dict[str, Any] = jsonio.loads((GOLDEN / "kernel-run.json").read_bytes())
    return found


def _report(*documents: dict[str, Any]) -> dict[str, Any]:
    report = Report()
    for document in documents:
        report.add(document)
    return report.record()


def test_transfers_by_destination_and_size(document: dict[str, Any]) -> None:
    found = _report(document)
    groups = {(each["destination"], each["size"]): each for each in found["transfers"]}
    transfers = [
        t for node in document["data"].values() for t in node["tgen"]["transfers"].values()
    ]
    assert sum(each["transfers"] for each in groups.values()) == len(transfers)
    assert groups["onion", "5MiB"]["failures"] == 1
    assert found["errors"] == {"PROXY": 1}
    times = [
        t["elapsed_seconds"]["last_byte"]
        for t in transfers
        if t["is_success"] and ".onion" not in t["endpoint_remote"]
    ]
    assert groups["exit", "5MiB"]["ttlb_seconds"]["p50"] == percentile(times, 50)
    assert found["unix_ts_start"] == min(t["unix_ts_start"] for t in transfers)


def test_phases_share_all_of_the_time(kernel_document: dict[str, Any]) -> None:
    found = _report(kernel_document)
    assert sum(each["share"] for each in found["phases"].values()) == pytest.approx(1)
    assert next(iter(found["phases"])) == "payload"
    slowest = [each["ttlb_seconds"] for each in found["slowest"]]
    assert len(slowest) == 5
    assert slowest == sorted(slowest, reverse=True)
    assert found["connections"] > 0
    assert found["circuits"] == {"built": 18, "launched": 18}
    assert found["guards"][0]["circuits"] >= found["guards"][-1]["circuits"] > 0


def test_several_are_taken_together(
    document: dict[str, Any], kernel_document: dict[str, Any]
) -> None:
    found = _report(document, kernel_document)
    assert sum(each["transfers"] for each in found["transfers"]) == 22
    assert "vm: no windows: no kernel/windows among the logs" in found["notes"]


def test_what_a_filter_left_out_is_said(document: dict[str, Any]) -> None:
    found = _report(filters.apply(document, filters.Filter(destination="exit")))
    assert {each["destination"] for each in found["transfers"]} == {"exit"}
    assert found["notes"]["transfers that a filter left out"] == 6


def test_nothing() -> None:
    report = Report()
    report.add({"data": {"x": {"measurement_ip": "192.0.2.1"}}, "meta": {}})
    assert report.is_empty
    found = report.record()
    assert found["unix_ts_start"] is None
    assert found["transfers"] == []
