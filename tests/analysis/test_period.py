from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmeasure.analysis import period, pipeline, validation
from perfmeasure.errors import UsageError

DAY = 1795305600  # 2026-11-22 00:00:00 UTC


@pytest.fixture
def document(fixtures: Path) -> dict[str, Any]:
    return pipeline.analyze([fixtures / "kernel-run"], nickname="n")


def test_a_day_is_what_analyze_finds_for_it(fixtures: Path, document: dict[str, Any]) -> None:
    cut = period.cut(document, "2026-11-22", "2026-11-22")
    assert list(validation.errors(cut, "db")) == []
    assert cut["meta"]["period"] == {"from": "2026-11-22", "to": "2026-11-22"}
    analysed = pipeline.analyze([fixtures / "kernel-run"], nickname="n", date="2026-11-22")
    node, expected = cut["data"]["n"], analysed["data"]["n"]
    assert node["tgen"]["transfers"] == expected["tgen"]["transfers"]
    for field in ("bandwidth_summary", "circuits", "gaps", "guards", "or_connections", "streams"):
        assert node["tor"][field] == expected["tor"][field]
    assert node["kernel"] == expected["kernel"]


@pytest.mark.parametrize(("first", "last"), [("2026-11-23", None), (None, "2026-11-21")])
def test_other_days_have_nothing(
    document: dict[str, Any], first: str | None, last: str | None
) -> None:
    node = period.cut(document, first, last)["data"]["n"]
    assert node["tgen"]["transfers"] == node["tor"]["streams"] == {}
    assert node["tor"]["bandwidth_summary"] == {"bytes_read": {}, "bytes_written": {}}
    assert node["tor"]["streams_summary"] == {"lifetimes": {}}
    assert node["kernel"]["accounting"] == []
    open_ones = node["tor"]["or_connections"].values()  # as far as is known, they go on
    linked = {connection["connection"] for connection in open_ones}
    kept = node["kernel"]["connections"]
    assert kept.keys() == linked | {kept[name]["peer"] for name in linked}


def test_what_crosses_midnight_is_whole_on_the_day_it_ended(document: dict[str, Any]) -> None:
    transfers = document["data"]["n"]["tgen"]["transfers"]
    first, second, *_ = transfers.values()
    first.update(unix_ts_start=DAY - 5.0, unix_ts_end=DAY + 0.0)
    second.update(unix_ts_start=DAY - 5.0, unix_ts_end=DAY - 0.000001)
    before = period.cut(document, None, "2026-11-21")["data"]["n"]
    assert list(before["tgen"]["transfers"].values()) == [second]
    # What it refers to comes with it, though that ended on another day.
    assert list(before["tor"]["streams"]) == [second["links"]["stream"]]
    assert second["links"]["circuit"] in before["tor"]["circuits"]
    after = period.cut(document, "2026-11-22", None)["data"]["n"]["tgen"]["transfers"]
    assert after == {n: t for n, t in transfers.items() if t is not second}


@pytest.mark.parametrize(
    ("first", "last"), [("today", None), (None, "2026-13-01"), ("2026-11-22", "2026-11-21")]
)
def test_days_that_are_none(first: str | None, last: str | None) -> None:
    with pytest.raises(UsageError):
        period.span_of(first, last)
