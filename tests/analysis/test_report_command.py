from __future__ import annotations

from pathlib import Path

import pytest

from perfmeasure import cli, jsonio

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "analysis"
RUN = str(GOLDEN / "kernel-run.json")


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", RUN]) == 0
    out = capsys.readouterr().out
    for said in (
        "vm (192.0.2.1)  tor 0.4.9.11",
        "links to Tor's streams: 10 linked",
        "where the time went",
        "circuits: 18 launched, 18 built",
        "segments sent again",
        "note: vm: no windows",
    ):
        assert said in out


def test_a_database_of_onionperf(fixtures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fixtures / "onionperf-run" / "expected.onionperf-3.1.json"
    assert cli.run(["report", str(path)]) == 0
    assert "errors: 1 PROXY" in capsys.readouterr().out


def test_json_of_a_day(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", RUN, "--day", "2026-11-22", "--json"]) == 0
    found = jsonio.loads(capsys.readouterr().out)
    assert sum(each["transfers"] for each in found["transfers"]) == 10


def test_a_day_without_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", RUN, "--day", "2026-11-01"]) == 4
    assert "nothing of 2026-11-01" in capsys.readouterr().err


def test_a_day_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", RUN, "--day", "yesterday"]) == 2
    assert "yesterday" in capsys.readouterr().err


def test_no_measurement_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["report"]) == 4
    assert "perfmeasure-data/docroot: no such file" in capsys.readouterr().err
