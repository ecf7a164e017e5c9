from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perfmeasure.analysis import database, datasets, pipeline
from perfmeasure.errors import InputError


@pytest.fixture
def document(fixtures: Path) -> dict[str, object]:
    return pipeline.analyze([fixtures / "onionperf-run"], nickname="testnet")


def test_a_database_of_each_kind(
    document: dict[str, object], tmp_path: Path, fixtures: Path
) -> None:
    ours, theirs = tmp_path / "db.json.xz", tmp_path / "op.json"
    database.save(document, ours)
    shutil.copy(fixtures / "onionperf-run" / "expected.onionperf-3.1.json", theirs)
    first, second = datasets.load(str(ours), "ours"), datasets.load(str(theirs), "theirs")
    assert len(first.rows) == len(second.rows) == 12
    assert [row["time_to_first_byte"] for row in first.rows] == [
        row["time_to_first_byte"] for row in second.rows
    ]
    assert first.hosts == {("testnet", "127.0.0.1")} or len(first.hosts) == 1
    assert first.circuits >= first.cbt_unset > 0
    assert first.tor_versions == {"0.4.9.11"}


def test_what_a_docroot_holds_is_taken_once(document: dict[str, object], tmp_path: Path) -> None:
    for name in (
        "2026-11-21.perfmeasure.analysis.json.xz",
        "2026-11-21.onionperf.analysis.json.xz",
        "below/2026-11-22.perfmeasure.analysis.json",
        "below/2026-11-22.perfmeasure.analysis.json.gz",
        "latest.json",
        "latest.json.gz",
        "index.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        database.save(document, path)
    names = [str(path.relative_to(tmp_path)) for path in datasets.paths_of(str(tmp_path))]
    assert names == [
        "2026-11-21.perfmeasure.analysis.json.xz",
        "below/2026-11-22.perfmeasure.analysis.json",
    ]
    assert len(datasets.load(str(tmp_path), "A").rows) == 24
    for path in tmp_path.rglob("*perfmeasure*"):
        path.unlink()
    assert [path.name for path in datasets.paths_of(str(tmp_path))] == [
        "2026-11-21.onionperf.analysis.json.xz"
    ]


def test_a_glob(document: dict[str, object], tmp_path: Path) -> None:
    for day in (20, 21, 30):
        database.save(document, tmp_path / f"2026-11-{day}.json")
    found = datasets.paths_of(f"{tmp_path}/2026-11-2*.json")
    assert [path.name for path in found] == ["2026-11-20.json", "2026-11-21.json"]


def test_nothing_there(tmp_path: Path) -> None:
    for place, got in (("none", "no such file"), ("*.json", "no such file"), ("", "no database")):
        with pytest.raises(InputError, match=got):
            datasets.paths_of(f"{tmp_path}/{place}")


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"hello": 1}')
    with pytest.raises(InputError, match=r"x\.json"):
        datasets.load(str(tmp_path), "A")
