from __future__ import annotations

import csv
from pathlib import Path

import pytest

from perfmeasure import cli, jsonio
from perfmeasure.analysis import rows
from tests.analysis import downstream

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "analysis"


def _names(folder: Path) -> set[str]:
    return {path.name.split(".20")[0] + path.suffix for path in folder.iterdir()}


def test_pdf_and_csv_by_default(fixtures: Path, tmp_path: Path) -> None:
    path = str(fixtures / "tgen" / "client-direct-success.onionperf-3.1.json")
    asked = ["-d", path, "their day", "-d", path, "our day"]
    assert cli.run(["visualize", *asked, "--prefix", str(tmp_path / "out")]) == 0
    assert _names(tmp_path / "out") == {
        "onionperf.viz.pdf",
        "onionperf.outliers.pdf",
        "onionperf.viz.csv",
        "onionperf.viz.stats.csv",
        "onionperf.firstbyte_outliers.csv",
        "onionperf.lastbyte_outliers.csv",
        "onionperf.error_outliers.csv",
    }
    (table,) = (tmp_path / "out").glob("onionperf.viz.20*.csv")
    with table.open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == list(rows.COLUMNS)
    assert {line["label"] for line in lines} == {"their day", "our day"}


def test_numbers_are_those_of_onionperf(fixtures: Path, tmp_path: Path) -> None:
    path = fixtures / "onionperf-run" / "expected.onionperf-3.1.json"
    assert (
        cli.run(["visualize", "-d", str(path), "A", "--prefix", str(tmp_path), "--format", "csv"])
        == 0
    )
    (table,) = tmp_path.glob("onionperf.viz.20*.csv")
    with table.open() as file:
        found = {line["start"]: line for line in csv.DictReader(file)}
    # Its ids are of streams, these are of transfers.
    of_onionperf = downstream.visualize_rows(jsonio.loads(path.read_bytes()), "A").values()
    wanted = {rows.start_text(row["start"]): row for row in of_onionperf}
    assert len(wanted) == 12
    assert found.keys() == wanted.keys()
    for name, row in wanted.items():
        for field in ("time_to_first_byte", "time_to_last_byte", "mbps"):
            text = found[name][field]
            assert (float(text) if text else None) == row.get(field), (name, field)
        for field in ("error_code", "label", "server", "filesize_bytes"):
            assert found[name][field] == str(row.get(field) or ""), (name, field)


def test_pictures_and_a_page(tmp_path: Path) -> None:
    path = GOLDEN / "client-transfer-cut.tgen.log.json"
    asked = ["-d", str(path), "A", "--prefix", str(tmp_path)]
    formats = [part for name in ("png", "svg", "html") for part in ("--format", name)]
    assert cli.run(["visualize", *asked, *formats]) == 0
    names = _names(tmp_path)
    assert {"circuit_builds.png", "circuit_builds.svg", "perfmeasure.viz.html"} < names
    assert not any(name.endswith((".pdf", ".csv")) for name in names)


def test_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(GOLDEN / "kernel-run.json")
    assert cli.run(["visualize"]) == 2
    assert cli.run(["visualize", "-d", path, "A", "-d", path, "A"]) == 2
    assert "the label 'A' comes twice" in capsys.readouterr().err
    assert cli.run(["visualize", "-d", str(tmp_path / "none"), "A"]) == 4
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert cli.run(["visualize", "-d", path, "A", "--prefix", str(tmp_path / "file" / "x")]) == 1
    assert "cannot be made" in capsys.readouterr().err
