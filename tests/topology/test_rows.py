# ruff: noqa: S608 - the statements are made of what stands here

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from perfmeasure.analysis import graph, services
from perfmeasure.topology import families, rows, series
from tests.topology import fleet_rows, tsdb

BEGIN = fleet_rows.BEGIN
DAY = (BEGIN, BEGIN + 86400)


def save(connection: duckdb.DuckDBPyConnection, folder: Path) -> Path:
    """Write the rows of a fleet as tables."""
    folder.mkdir(exist_ok=True)
    for table in ("listeners", "addresses", "connections", "traffic"):
        connection.execute(f"COPY {table} TO '{folder / table}.parquet'")
    with duckdb.connect() as empty:
        columns = ", ".join(f"{n} {kind}" for n, kind in services.TABLES["relays"].items())
        empty.execute(f"CREATE TABLE relays ({columns})")
        empty.execute(f"COPY relays TO '{folder / 'relays'}.parquet'")
    return folder


def there_and_back(
    connection: duckdb.DuckDBPyConnection, folder: Path, window: tuple[float, float] = DAY
) -> Path:
    """Make series of rows, and rows of these."""
    series.build(connection)
    return back(tsdb.made(connection, families.RAW), folder, window)


def back(samples: tsdb.Samples, folder: Path, window: tuple[float, float] = DAY) -> Path:
    folder.mkdir()
    path = folder / "series"
    tsdb.write_series(samples, path)
    with duckdb.connect(config={"threads": 1}) as other:
        rows.write(other, path, folder, window)
    return folder


def summed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a topology without what series do not tell: times of connections, guesses."""
    names = ("source", "target", "protocol", "port", "bytes", "bytes_sent", "connections")
    return {
        "edges": [{name: edge[name] for name in (*names, "sources")} for edge in document["edges"]],
        "nodes": document["nodes"],
        "coverage": document["coverage"],
    }


def test_the_tables_are_those_of_the_analysis(tmp_path: Path) -> None:
    folder = there_and_back(fleet_rows.fleet(hosts=1, calls=5), tmp_path / "there")
    assert set(rows.TABLES) == set(services.TABLES)
    for table, columns in services.TABLES.items():
        found = duckdb.execute(f"DESCRIBE FROM '{folder / table}.parquet'").fetchall()
        assert {row[0]: row[1] for row in found} == columns


@pytest.mark.parametrize("seed", range(3))
def test_the_topology_of_the_series_is_that_of_the_rows(tmp_path: Path, seed: int) -> None:
    connection = fleet_rows.fleet(seed=seed)
    connection.execute(
        "UPDATE connections SET end_unix_ts = NULL WHERE bytes_sent % 7 = 0 AND dst_port <> 8080"
    )
    connection.execute(  # two services on one port, and one that left another's to it
        f"""
        INSERT INTO listeners VALUES
            ('host-1', 4026531841, 'rival', 'tcp', '10.0.0.2', 3306, false, 1, {BEGIN}, NULL);
        UPDATE listeners SET valid_to_unix_ts = {BEGIN + 900}
        WHERE instance_id = 'host-2' AND service = 'app';
        INSERT INTO listeners VALUES
            ('host-2', 4026531842, 'app2', 'tcp', '0.0.0.0', 8080, false, 1, {BEGIN + 900}, NULL);
        UPDATE connections SET start_unix_ts = end_unix_ts - 0.001
        WHERE dst_ip = '10.0.0.3' AND dst_port = 8080 AND end_unix_ts IS NOT NULL
        """
    )
    expected = graph.section(save(connection, tmp_path / "here"))
    found = graph.section(there_and_back(connection, tmp_path / "there"))
    assert summed(found) == summed(expected)
    coverage = expected["coverage"]
    assert all(coverage[f"{part}_bytes"] for part in ("matched", "external", "ambiguous"))
    assert {edge["target"] for edge in found["edges"]} >= {"host-2/app", "host-2/app2"}


def test_what_a_machine_told_is_not_counted_again_at_the_other_end(tmp_path: Path) -> None:
    connection = fleet_rows.fleet(hosts=2, calls=100)
    connection.execute(  # host-1 tells of all that called it
        """
        INSERT INTO connections
        SELECT 'host-1', 4026531841, if(dst_port = 80, 'nginx', 'app'), 8, 'passive', protocol,
            dst_ip, dst_port, src_ip, src_port, bytes_received, bytes_sent, start_unix_ts,
            end_unix_ts, source
        FROM connections
        WHERE instance_id = 'host-0' AND dst_ip IN ('10.0.0.2', 'fd00::2')
            AND dst_port IN (80, 8080)
        """
    )
    connection.execute(  # and of what nobody else tells of
        f"""
        INSERT INTO connections VALUES ('host-1', 4026531841, 'nginx', 8, 'passive', 'tcp',
            '10.0.0.2', 80, '192.0.2.7', 55555, 5000, 70, {BEGIN + 9}, {BEGIN + 10}, 'ebpf')
        """
    )
    expected = graph.section(save(connection, tmp_path / "here"))
    found = graph.section(there_and_back(connection, tmp_path / "there"))
    assert summed(found)["edges"] == summed(expected)["edges"]
    for part in ("input", "matched", "external", "unattributed"):
        assert found["coverage"][f"{part}_bytes"] == expected["coverage"][f"{part}_bytes"]
    assert expected["coverage"]["paired_connections"] > 0


def test_a_window_counts_what_ended_in_it(tmp_path: Path) -> None:
    connection = fleet_rows.fleet(hosts=1, calls=100)
    window = (BEGIN + 600, BEGIN + 1200)
    folder = there_and_back(connection, tmp_path / "there", window)
    [expected] = connection.execute(
        "SELECT count(*), sum(bytes_sent + bytes_received) FROM connections "
        "WHERE end_unix_ts >= ? AND end_unix_ts < ?",
        window,
    ).fetchall()
    [found] = duckdb.execute(
        f"SELECT count(*), sum(bytes_sent + bytes_received) FROM '{folder}/connections.parquet'"
    ).fetchall()
    assert found == expected


def counter(*samples: tuple[float, float]) -> tsdb.Samples:
    """Return what a server that scrapes has of one series."""
    labels = {"src_service": "app", "src_instance_id": "m", "dst_ip": "192.0.2.1"}
    labels |= {"dst_port": "80", "protocol": "tcp", "source": "ebpf", "job": "scraped"}
    names = ("service_connection", "service_connection_sent", "service_connection_count")
    return {
        frozenset({"__name__": name, **labels}.items()): [
            (int((BEGIN + at) * 1000), value) for at, value in samples
        ]
        for name in names
    }


@pytest.mark.parametrize(
    ("samples", "grown"),
    [
        ([(5, 100), (65, 130)], 130),  # from zero at 00:00, of which nobody told
        ([(-60, 100), (5, 100), (65, 130)], 30),  # since the day before, when nobody published
        ([(-60, 100), (5, 20), (65, 50)], 50),  # a new day
        ([(5, 100), (65, 30), (125, 40)], 140),  # a new beginning
        ([(-300, 9), (-60, 100)], 0),
    ],
)
def test_a_counter_that_was_scraped(
    tmp_path: Path, samples: list[tuple[float, float]], grown: int
) -> None:
    folder = back(counter(*samples), tmp_path / "there")
    found = duckdb.execute(
        "SELECT coalesce(sum(bytes_sent + bytes_received), 0)::BIGINT, count(*) "
        f"FROM '{folder}/connections.parquet'"
    ).fetchall()
    assert found == [(grown, grown)]


def test_what_was_put_together_is_somebody_outside(tmp_path: Path) -> None:
    connection = fleet_rows.fleet(hosts=2, calls=100)
    series.build(connection, most_series=3)
    folder = back(tsdb.made(connection, families.RAW), tmp_path / "there")
    coverage = graph.section(folder)["coverage"]
    total = "SELECT count(*), sum(bytes_sent + bytes_received) FROM connections"
    [expected] = connection.execute(total).fetchall()
    assert (coverage["input_connections"], coverage["input_bytes"]) == expected
    assert coverage["external_bytes"] > 0
