from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.errors import MeasurementError
from perfmeasure.flows import keys
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


def test_windows_are_written_with_their_minute(tmp_path: Path) -> None:
    folder = tmp_path / "kernel" / "windows"
    store = WindowStore(folder, {7: "veth0"})
    for number in (58, 59):
        store.add(make_window(number, (1, 2)))
    assert list(folder.iterdir()) == []
    store.add(make_window(60, (3,)))
    names = sorted(path.name for path in folder.iterdir())
    stem = "perfmeasure_2027-01-15_08:00:58.000000"
    assert names == [f"{stem}.accounting.parquet", f"{stem}.windows.parquet"]
    store.flush()
    assert len(list(folder.iterdir())) == 4
    store.flush()
    assert len(list(folder.iterdir())) == 4
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


def test_a_folder_may_have_a_quote_in_its_name(tmp_path: Path) -> None:
    store = WindowStore(tmp_path / "it's", {7: "veth0"})
    store.add(make_window(1, (1,)))
    store.flush()
    assert len(list((tmp_path / "it's").iterdir())) == 2
