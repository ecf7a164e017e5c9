from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import Any

import duckdb

from perfmeasure.analysis import services, source
from perfmeasure.analysis.services import Collection
from perfmeasure.analysis.source import Kind
from tests.analysis import service_lines as lines

DAY = lines.DAY
ANY = "0.0.0.0"  # noqa: S104 - nothing is bound here
ENDS = ("10.0.0.1", 5000, "10.0.0.2", 3306)


def read(folder: Path, **logs: str | bytes) -> tuple[Collection, dict[str, list[dict[str, Any]]]]:
    """Return what logs say, by the names of their files."""
    for name, log in logs.items():
        path = folder / "services" / name.replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(log if isinstance(log, bytes) else log.encode())
    (folder / "tables").mkdir()
    found = source.find([folder])
    assert {log.kind for log in found} <= {Kind.SERVICES}
    collection = services.read_logs(found, folder / "tables")
    tables = {}
    with duckdb.connect() as cursor:
        for name, columns in services.TABLES.items():
            path = folder / "tables" / f"{name}.parquet"
            rows = cursor.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
            described = cursor.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall()
            assert {row[0]: row[1] for row in described} == columns
            tables[name] = [dict(zip(columns, row, strict=True)) for row in rows]
    return collection, tables


def test_a_later_line_replaces_the_earlier(tmp_path: Path) -> None:
    log = (
        lines.connection(1, "m1", 1, None, ENDS, sent=5)
        + lines.connection(1, "m1", 1, "web", ENDS, end=3, sent=7, received=9)
        + lines.connection(2, "m1", 2, "web", ENDS, sent=1)
    )
    _, tables = read(tmp_path, services_log=log)
    first, second = tables["connections"]
    assert first == {
        "instance_id": "m1", "netns": 1, "service": "web", "pid": 100, "side": "active",
        "protocol": "tcp", "src_ip": "10.0.0.1", "src_port": 5000, "dst_ip": "10.0.0.2",
        "dst_port": 3306, "bytes_sent": 7, "bytes_received": 9, "start_unix_ts": DAY + 1,
        "end_unix_ts": DAY + 3, "source": "ebpf",
    }  # fmt: skip
    assert (second["bytes_sent"], second["end_unix_ts"]) == (1, None)


def test_rotated_packed_and_copied_logs_count_once(tmp_path: Path) -> None:
    """A log that was collected twice, the second time longer, and one that was packed."""
    first = lines.start(0) + lines.connection(1, "m1", 1, "web", ENDS, sent=5)
    longer = first + lines.connection(1, "m1", 1, "web", ENDS, end=3, sent=7)
    longer += lines.line("lost", 4, what="lines", count=3)
    collection, tables = read(
        tmp_path,
        a_services_log=first,
        b_services_log_xz=lzma.compress(longer.encode()),
        c_services_log_gz=gzip.compress(longer.encode()),
        d_services_log=longer,
        e_services_log=longer,
    )
    assert [row["bytes_sent"] for row in tables["connections"]] == [7]
    assert collection.instances == {"m1": "m1"}
    assert collection.host == "m1"
    # As stored the three differ, and only then they would be the same log.
    assert collection.lost == {"lines": 9}


def test_listeners_begin_and_end_and_are_told_again(tmp_path: Path) -> None:
    log = (
        lines.start(0)
        + lines.service(1, "m1", "web", (ANY, 80), pid=7)
        + lines.service(2, "m1", "db", ("::", 3306))
        + lines.service(1, "m1", "web", (ANY, 80), pid=7, ended=5)
    )
    again = lines.start(10) + lines.service(2, "m1", "mysql", ("::", 3306), unix_ts=DAY + 10)
    _, tables = read(tmp_path, a_services_log=log, b_services_log=again)
    told = [
        (row["service"], row["valid_from_unix_ts"] - DAY, row["valid_to_unix_ts"])
        for row in tables["listeners"]
    ]
    assert told == [("web", 1, DAY + 5), ("mysql", 2, None)]


def test_what_a_collector_left_open_ended_when_the_next_one_began(tmp_path: Path) -> None:
    log = (
        lines.start(0)
        + lines.service(1, "m1", "web", ("10.0.0.1", 80))
        + lines.connection(1, "m1", 1, "web", ENDS)
        + lines.start(20)
        + lines.connection(21, "m1", 2, "web", ENDS)
    )
    _, tables = read(tmp_path, services_log=log)
    assert [row["valid_to_unix_ts"] for row in tables["listeners"]] == [DAY + 20]
    assert [row["end_unix_ts"] for row in tables["connections"]] == [DAY + 20, None]


def test_addresses_traffic_and_relays_stand_once(tmp_path: Path) -> None:
    traffic = lines.line(
        "network_traffic", 7, instance_id="m1", interface="eth0", direction="egress",
        protocol="tcp", src_ip="10.0.0.1", dst_ip="10.0.0.2", dst_port=80, packets=2, bytes=300,
        window_start_unix_ts=DAY, window_end_unix_ts=DAY + 1,
    )  # fmt: skip
    relays = "".join(
        lines.line("relay", at, fingerprint="A" * 40, nickname=name, ip="192.0.2.1", port=9001)
        for at, name in ((1, "old"), (2, "new"))
    )
    log = lines.instance(0, "m1", "10.0.0.1") + lines.service(
        1, "m1", "web", ("::", 80), instance_ips=["10.0.0.1", "10.0.0.9"]
    )
    reason = lines.line("absent", 5, reason="no rights")
    collection, tables = read(tmp_path, services_log=2 * (log + traffic + relays + reason))
    assert [row["ip"] for row in tables["addresses"]] == [
        "10.0.0.1", "10.0.0.9", "127.0.0.1", "::1",
    ]  # fmt: skip
    assert [row["bytes"] for row in tables["traffic"]] == [300]
    assert tables["relays"] == [
        {"fingerprint": "A" * 40, "nickname": "new", "ip": "192.0.2.1", "port": 9001}
    ]
    assert collection.absent == ["no rights"]


def test_no_logs_are_empty_tables(tmp_path: Path) -> None:
    _, tables = read(tmp_path)
    assert tables == {name: [] for name in services.TABLES}


def test_rows_of_others_are_written_as_they_are(tmp_path: Path) -> None:
    services.write(tmp_path, {"addresses": [{"instance_id": "m1", "netns": 1, "ip": "10.0.0.1"}]})
    with duckdb.connect() as cursor:
        path = str(tmp_path / "addresses.parquet")
        found = cursor.execute("SELECT * FROM read_parquet(?)", [path]).fetchall()
    assert found == [("m1", 1, "10.0.0.1")]
