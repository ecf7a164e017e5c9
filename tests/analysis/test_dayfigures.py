from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from perfmeasure import jsonio
from perfmeasure.analysis import pipeline
from perfmeasure.analysis.dayfigures import day_figures
from perfmeasure.analysis.statistics import percentile

DAY = "2026-11-22"


def test_a_real_day(fixtures: Path) -> None:
    document = pipeline.analyze([fixtures / "kernel-run"], nickname="n")
    found = day_figures(document, DAY)
    transfers = document["data"]["n"]["tgen"]["transfers"]
    assert len(found.transfers) == len(transfers) == 10
    starts = [transfer["unix_ts_start"] for transfer in found.transfers]
    assert starts == sorted(starts)
    points = found.points["n"]
    assert [series["destination"] for series in points["series"]] == ["exit", "onion"]
    for series in points["series"]:
        curve = series["ttlb"]
        assert curve["count"] == 5
        for ts, value, place in zip(
            curve["unix_ts"], curve["values"], curve["transfers"], strict=True
        ):
            transfer = transfers[found.transfers[place]["id"]]
            assert ts == pytest.approx(transfer["unix_ts_start"], abs=1e-3)
            assert value == pytest.approx(transfer["elapsed_seconds"]["last_byte"], rel=1e-4)
    assert points["errors"] == {}
    assert points["circuits"]["count"] == len(points["circuits"]["values"]) > 0
    assert sum(guard["transfers"] for guard in points["guards"]) == 10
    (exit_series, onion_series) = found.summary["n"]["series"]
    assert (exit_series["success"], onion_series["success"]) == (5, 5)


def test_a_summary_is_that_of_the_transfers() -> None:
    document = synthetic.day(DAY, transfers=600, nicknames=("a", "b"), failing=0.1)
    found = day_figures(document, DAY)
    assert sorted(found.summary) == ["a", "b"]
    transfers = document["data"]["a"]["tgen"]["transfers"].values()
    for series in found.summary["a"]["series"]:
        own = [
            t for t in transfers
            if t["filesize_bytes"] == series["size_bytes"]
            and (".onion" in t["endpoint_remote"]) == (series["destination"] == "onion")
        ]  # fmt: skip
        good = [t["elapsed_seconds"]["last_byte"] for t in own if t["is_success"]]
        assert series["success"] == len(good)
        assert sum(series["errors"].values()) == len(own) - len(good)
        assert series["ttlb"]["percentiles"] == pytest.approx(
            [percentile(good, percent) for percent in (0, 5, 50, 95, 100)], rel=1e-3
        )
        assert sum(series["ttlb"]["histogram"][1::2]) == len(good)
        assert ("histogram" in series["mbps"]) == (series["size_bytes"] != 51200)
    hours = found.points["a"]["errors"]
    assert sum(map(sum, hours.values())) == sum(t["is_error"] for t in transfers)


def test_curves_stay_small_and_keep_their_extremes() -> None:
    document = synthetic.day(DAY, transfers=12_000)
    found = day_figures(document, DAY)
    for series in found.points["host"]["series"]:
        curve = series["ttlb"]
        assert curve["count"] > len(curve["values"])
        assert len(curve["values"]) <= 1000
        percentiles = next(
            summary["ttlb"]["percentiles"]
            for summary in found.summary["host"]["series"]
            if summary["destination"] == series["destination"]
            and summary["size_bytes"] == series["size_bytes"]
        )
        assert min(curve["values"]) == pytest.approx(percentiles[0], rel=1e-3)
        assert max(curve["values"]) == pytest.approx(percentiles[4], rel=1e-3)
    assert len(found.points["host"]["circuits"]["values"]) <= 1000


def test_what_is_of_another_day_or_filtered_out_is_not_there() -> None:
    document = synthetic.day(DAY, transfers=10)
    transfers = document["data"]["host"]["tgen"]["transfers"]
    next(iter(transfers.values()))["filtered_out"] = True
    assert len(day_figures(document, DAY).transfers) == 9
    other = day_figures(document, "2026-11-21")
    assert (other.points, other.summary, other.transfers) == ({}, {}, [])


def test_a_transfer_without_an_end_is_listed_and_not_drawn() -> None:
    document = synthetic.day(DAY, transfers=2, failing=0)
    transfer = next(iter(document["data"]["host"]["tgen"]["transfers"].values()))
    transfer |= {"is_complete": False, "is_success": False}
    del transfer["unix_ts_end"]
    found = day_figures(document, DAY)
    assert [one["outcome"] for one in found.transfers] == ["incomplete", "success"]
    assert [series["incomplete"] for series in found.summary["host"]["series"]] == [1, 0]
    assert len(found.points["host"]["series"]) == 1


def test_the_same_database_gives_the_same_bytes() -> None:
    document = synthetic.day(DAY, transfers=50, nicknames=("b", "a"))
    again = jsonio.loads(jsonio.canonical(document))
    one, two = (day_figures(each, DAY) for each in (document, again))
    for name in ("points", "summary", "transfers"):
        assert jsonio.canonical(getattr(one, name)) == jsonio.canonical(getattr(two, name))
