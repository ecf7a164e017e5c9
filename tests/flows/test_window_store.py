from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.errors import MeasurementError
from perfmeasure.flows import keys, window_store
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.keys import Total
from perfmeasure.flows.window_store import WindowStore
from perfmeasure.flows.windows import Window

NOON_NS = 1_800_000_000 * 10**9
CLOCK = ClockPair(NOON_NS, 0)


def make_window(number: int, ports: tuple[int, ...] = ()) -> Window:
    table = np.zeros(len(ports), keys.TABLE)
    for row, port in zip(table, ports, strict=True):
        row["src_ip"] = np.void(bytes(10) + b"\xff\xff" + bytes((10, 0, 0, port & 255)))
        row["dst_ip"] = np.void(bytes(15) + b"\1")
        row["src_port"], row["dst_port"], row["protocol"], row["interface"] = port, 80, 6, 7
        row["direction"], row["packets"], row["bytes"], row["segments"] = 1, port, 100 * port, port
        row["first_ns"] = number * 10**9 + 1000
        row["last_ns"] = number * 10**9 + 999_999_000
    return Window(number, 10**9, table, Terms(seen=Total(9, 900)), (), CLOCK)


def rows(folder: Path, kind: str) -> list[dict[str, object]]:
    relation = duckdb.read_parquet(f"{folder}/*.{kind}.parquet")
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def test_windows_are_written_each_minute_into_the_file_of_their_hour(tmp_path: Path) -> None:
    folder = tmp_path / "kernel" / "windows"
    store = WindowStore(folder, {7: "veth0"})
    for number in (58, 59):
        store.add(make_window(number, (1, 2)))
    assert list(folder.iterdir()) == []
    store.add(make_window(60, (3,)))
    names = sorted(path.name for path in folder.iterdir())
    stem = "perfmeasure_2027-01-15_08:00:58.000000"
    assert names == [f"{stem}.accounting.parquet", f"{stem}.windows.parquet"]
    assert [row["window_start_unix_ts"] for row in rows(folder, "windows")] == [
        1.8e9 + t for t in (58, 58, 59, 59)
    ]
    store.flush()
    assert sorted(path.name for path in folder.iterdir()) == names
    found = rows(folder, "windows")
    assert [row["window_start_unix_ts"] for row in found] == [
        1.8e9 + t for t in (58, 58, 59, 59, 60)
    ]
    (row,) = (row for row in found if row["src_port"] == 3)
    assert row == {
        "window_start_unix_ts": 1.8e9 + 60, "window_seconds": 1.0, "interface": "veth0",
        "direction": "egress", "src_ip": "10.0.0.3", "src_port": 3, "dst_ip": "::1",
        "dst_port": 80, "protocol": 6, "packets": 3, "bytes": 300, "segments": 3,
        "first_seen_unix_ts": 1.8e9 + 60.000001, "last_seen_unix_ts": 1.8e9 + 60.999999,
        "tcp_flags": 0, "connects": 0, "closes": 0,
    }  # fmt: skip


def test_each_hour_has_a_file(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, {7: "veth0"})
    for number in (10, 3599, 3600, 3660, 7200):
        store.add(make_window(number, (number % 1000 + 1,)))
    store.flush()
    found = sorted(tmp_path.glob("*.windows.parquet"))
    assert [path.name[23:31] for path in found] == ["08:00:10", "09:00:00", "10:00:00"]
    assert [len(duckdb.read_parquet(str(path))) for path in found] == [2, 2, 1]
    assert [row["flows"] for row in rows(tmp_path, "accounting")] == [1] * 5


def test_with_many_flows_a_file_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_store, "_MOST_ROWS_WRITTEN_AGAIN", 2)
    monkeypatch.setattr(window_store, "_MOST_ROWS", 4)
    store = WindowStore(tmp_path, {7: "veth0"})
    for number, ports in ((0, (1, 2)), (60, (3,)), (120, (4, 5, 6)), (121, (7, 8))):
        store.add(make_window(number, ports))
    store.flush()
    found = sorted(tmp_path.glob("*.windows.parquet"))
    counts = [len(duckdb.read_parquet(str(path))) for path in found]
    assert counts == [3, 3, 2]


def test_the_files_of_days_that_are_over_are_moved(tmp_path: Path) -> None:
    folder, archive = tmp_path / "kernel" / "windows", tmp_path / "log_archive"
    folder.mkdir(parents=True)
    stem = "perfmeasure_2020-02-29_23:00:00.000000"
    (folder / f"{stem}.windows.parquet").touch()
    (folder / f".{stem}.windows.parquet").touch()  # of a process that was killed
    store = WindowStore(folder, {7: "veth0"}, archive)
    assert list(folder.iterdir()) == []
    assert (archive / "2020-02-29/kernel/windows" / f"{stem}.windows.parquet").exists()
    for number in (15 * 3600 - 1, 15 * 3600, 16 * 3600, 40 * 3600):  # 8:00 is where they begin
        store.add(make_window(number, (1,)))
    store.flush()
    days = {
        str(path.parent.relative_to(tmp_path)): len(list(path.parent.iterdir()))
        for path in tmp_path.rglob("*2027*.parquet")
    }
    assert days == {
        "log_archive/2027-01-15/kernel/windows": 4,
        "log_archive/2027-01-16/kernel/windows": 2,
        "kernel/windows": 2,
    }


def test_an_interface_without_a_name_keeps_its_number(tmp_path: Path) -> None:
    names = {6: "gone"}
    store = WindowStore(tmp_path, names)
    store.add(make_window(1, (1,)))
    store.flush()
    names[7] = "late"
    store.add(make_window(2, (1,)))
    store.flush()
    assert [row["interface"] for row in rows(tmp_path, "windows")] == ["late", "late"]
    store = WindowStore(tmp_path / "other", {})
    store.add(make_window(1, (1,)))
    store.flush()
    assert [row["interface"] for row in rows(tmp_path / "other", "windows")] == ["#7"]


def test_windows_without_flows_are_in_the_accounting(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, {})
    store.add(make_window(1))
    store.flush()
    assert rows(tmp_path, "windows") == []
    (row,) = rows(tmp_path, "accounting")
    assert row["flows"] == 0
    assert (row["seen_packets"], row["seen_bytes"], row["late_packets"]) == (9, 900, 0)
    assert (row["utc_ns"], row["monotonic_ns"]) == CLOCK


def test_a_folder_that_cannot_be_made_or_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MeasurementError, match="cannot be written"):
        WindowStore(tmp_path / "file" / "x", {})
    store = WindowStore(tmp_path / "folder", {7: "veth0"})
    store.add(make_window(1, (1,)))
    (tmp_path / "folder").rmdir()
    with pytest.raises(MeasurementError, match="cannot be written"):
        store.flush()
    # What could not be written is given up, and the next is not held up by it.
    (tmp_path / "folder").mkdir()
    store.add(make_window(2, (1,)))
    store.flush()
    assert [row["window_start_unix_ts"] for row in rows(tmp_path / "folder", "windows")] == [
        1.8e9 + 2
    ]


def test_a_folder_may_have_a_quote_in_its_name(tmp_path: Path) -> None:
    store = WindowStore(tmp_path / "it's", {7: "veth0"})
    store.add(make_window(1, (1,)))
    store.flush()
    assert len(list((tmp_path / "it's").iterdir())) == 2
