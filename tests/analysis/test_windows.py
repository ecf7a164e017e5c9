from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import merge, period, pipeline, scans, source, validation, windows
from tests.analysis import window_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The kernel folder of a measurement over midnight, with its archive."""
    window_files.write(tmp_path / "kernel/windows", 86399, 86400, 90000)
    window_files.write(tmp_path / "log_archive/2026-11-22/kernel/windows", 5, 4000)
    window_files.write(tmp_path / "kernel/levels/1h", 5)  # the same packets, summed up
    return tmp_path


def summary(*paths: Path, **options: Any) -> list[dict[str, Any]]:
    document = pipeline.analyze(paths, nickname="n", **options)
    assert list(validation.errors(document, "db")) == []
    found: list[dict[str, Any]] = document["data"]["n"]["kernel"]["windows_summary"]
    return found


def test_each_day_has_its_sums(folder: Path) -> None:
    first, second = summary(folder)
    assert (first["date"], second["date"]) == ("2026-11-22", "2026-11-23")
    assert (first["windows"], second["windows"]) == (3, 2)
    assert first["window_seconds"] == [1.0]
    assert first["unix_ts_start"] == window_files.DAY + 5
    assert first["unix_ts_end"] == window_files.DAY + 86400
    assert first["flows"] == 6
    assert first["seen_packets"] == 18
    assert first["seen_packets"] == first["drained_packets"] + first["unparsed_packets"]
    for unit in ("packets", "bytes"):
        assert first[f"drained_{unit}"] == first["ingress"][unit] + first["egress"][unit]
    assert first["services_left_out"] == 0
    assert first["services"][0] == {
        "direction": "ingress", "protocol": 6, "ip": "127.0.0.1", "port": 9050, "connects": 0,
        "to_service_packets": 0, "to_service_bytes": 0, "to_service_segments": 0,
        "from_service_packets": 9, "from_service_bytes": 900, "from_service_segments": 9,
    }  # fmt: skip


def test_one_day_is_that_of_the_whole(folder: Path) -> None:
    days = summary(folder)
    for day in days:
        assert summary(folder, date=day["date"]) == [day]


def test_only_the_largest_services_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_SERVICES", 1)
    (first, _) = summary(folder)
    assert [entry["direction"] for entry in first["services"]] == ["ingress"]
    assert first["services_left_out"] == 1
    assert first["egress"]["packets"] == 6


def test_two_folders_of_a_nickname_are_added(folder: Path, tmp_path: Path) -> None:
    window_files.write(tmp_path / "other/kernel/windows", 7)
    found = windows.WindowsLog()
    for path in (folder / "kernel", tmp_path / "other"):
        found.add(windows.read_logs(source.find([path])))
    [first, *_] = found.record()
    assert (first["windows"], first["ingress"]["packets"]) == (2, 6)


def test_workers_and_cache_change_nothing(folder: Path, tmp_path: Path) -> None:
    expected = jsonio.canonical(pipeline.analyze([folder], nickname="n"))
    said: list[str] = []
    for processes, cache in ((2, None), (1, tmp_path / "cache"), (2, tmp_path / "cache")):
        with scans.prepared(
            processes=processes, scheduler=None, cache=cache, say=said.append
        ) as prepare:
            found = pipeline.analyze([folder], nickname="n", prepare=prepare)
        assert jsonio.canonical(found) == expected
    assert said[-1].startswith("0 logs scanned, 10 taken from")


def test_a_damaged_file_is_said_and_the_rest_is_used(folder: Path) -> None:
    [path] = (folder / "log_archive").rglob("*00:00:05*.windows.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    document = pipeline.analyze([folder], nickname="n")
    [entry] = [one for one in document["meta"]["inputs"] if one["lines"]["rejected"]]
    assert entry["name"] == path.relative_to(folder).as_posix()
    assert entry["kind"] == "windows"
    assert entry["rejected_first"] == [f"{entry['name']}:1: not a whole Parquet file"]
    (first, _) = document["data"]["n"]["kernel"]["windows_summary"]
    assert (first["windows"], first["ingress"]["packets"]) == (3, 6)


def test_days_can_be_cut_out_and_merged_again(folder: Path) -> None:
    whole = pipeline.analyze([folder], nickname="n")
    days = [period.cut(whole, date, date) for date in ("2026-11-22", "2026-11-23")]
    kernels = [day["data"]["n"]["kernel"]["windows_summary"] for day in days]
    assert [len(kernel) for kernel in kernels] == [1, 1]
    merged = merge.merge([*days, days[0]])
    assert merged["data"]["n"]["kernel"] == whole["data"]["n"]["kernel"]
