from __future__ import annotations

from pathlib import Path
from typing import Any

from perfmeasure import jsonio
from perfmeasure.web.figures import files_of_days, published_dates


def put(docroot: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (docroot / name).parent.mkdir(parents=True, exist_ok=True)
        (docroot / name).write_bytes(content)


def day(name: str, transfers: int = 1) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    return {name: {"series": []}}, {name: {"series": [1]}}, list(range(transfers))


def test_a_day_brings_its_year_and_the_index_up_to_date(tmp_path: Path) -> None:
    put(tmp_path, files_of_days(tmp_path, {"2025-12-31": day("a"), "2026-01-01": day("b", 250)}))
    assert published_dates(tmp_path) == ["2025-12-31", "2026-01-01"]
    files = files_of_days(tmp_path, {"2026-01-02": day("c", 0)})
    assert sorted(files) == [
        "figures/2026-01-02/day.json", "figures/2026.json", "figures/index.json",
    ]  # fmt: skip
    assert list(files)[-1] == "figures/index.json"
    year = jsonio.loads(files["figures/2026.json"])
    assert year["days"] == {
        "2026-01-01": {"b": {"series": [1]}},
        "2026-01-02": {"c": {"series": [1]}},
    }
    index = jsonio.loads(files["figures/index.json"])
    assert index["days"] == ["2025-12-31", "2026-01-01", "2026-01-02"]


def test_transfers_are_cut_into_small_files(tmp_path: Path) -> None:
    files = files_of_days(tmp_path, {"2026-01-01": day("a", 250)})
    parts = [jsonio.loads(files[f"figures/2026-01-01/transfers-{n}.json"]) for n in range(3)]
    assert [len(part["transfers"]) for part in parts] == [100, 100, 50]
    assert [number for part in parts for number in part["transfers"]] == list(range(250))
    assert jsonio.loads(files["figures/2026-01-01/day.json"])["transfers"] == 250


def test_a_year_that_is_lost_damaged_or_lacks_a_day_is_made_again(tmp_path: Path) -> None:
    put(tmp_path, files_of_days(tmp_path, {"2026-01-01": day("a"), "2026-01-02": day("b")}))
    whole = (tmp_path / "figures/2026.json").read_bytes()
    lacking = jsonio.loads(whole)
    del lacking["days"]["2026-01-01"]
    for content in (None, b"", b"[]", b"{", jsonio.canonical(lacking)):
        (tmp_path / "figures/2026.json").unlink()
        if content is not None:
            (tmp_path / "figures/2026.json").write_bytes(content)
        files = files_of_days(tmp_path, {"2026-01-02": day("b")})
        assert files["figures/2026.json"] == whole
        (tmp_path / "figures/2026.json").write_bytes(whole)


def test_no_day_at_all(tmp_path: Path) -> None:
    files = files_of_days(tmp_path, {})
    assert list(files) == ["figures/index.json"]
    assert jsonio.loads(files["figures/index.json"])["days"] == []


def test_other_folders_are_no_days(tmp_path: Path) -> None:
    put(tmp_path, {"figures/mine/day.json": b"{}", "figures/2026-01-01x/day.json": b"{}"})
    assert published_dates(tmp_path) == []
