"""Rows of a fleet for tests: services, their addresses and what they called, the same each time."""

# ruff: noqa: S104, S608 - addresses are data here, and the names of tables are below

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import duckdb

from perfmeasure import jsonio

BEGIN = 1795305600.0
"""2026-11-22 00:00:00 UTC."""

SCHEMA = """
CREATE TABLE listeners (instance_id VARCHAR, netns BIGINT, service VARCHAR, protocol VARCHAR,
    listen_ip VARCHAR, listen_port INTEGER, is_v6only BOOLEAN, pid BIGINT,
    valid_from_unix_ts DOUBLE, valid_to_unix_ts DOUBLE);
CREATE TABLE addresses (instance_id VARCHAR, netns BIGINT, ip VARCHAR);
CREATE TABLE connections (instance_id VARCHAR, netns BIGINT, service VARCHAR, pid BIGINT,
    side VARCHAR, protocol VARCHAR, src_ip VARCHAR, src_port INTEGER, dst_ip VARCHAR,
    dst_port INTEGER, bytes_sent BIGINT, bytes_received BIGINT, start_unix_ts DOUBLE,
    end_unix_ts DOUBLE, source VARCHAR);
CREATE TABLE traffic (instance_id VARCHAR, interface VARCHAR, direction VARCHAR, protocol VARCHAR,
    src_ip VARCHAR, dst_ip VARCHAR, dst_port INTEGER, packets BIGINT, bytes BIGINT,
    window_start_unix_ts DOUBLE);
"""


def empty() -> duckdb.DuckDBPyConnection:
    """Return a database with the four tables of rows, and nothing in them."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(SCHEMA)
    return connection


def fleet(
    hosts: int = 3, *, calls: int = 200, begin: float = BEGIN, seconds: int = 1800, seed: int = 6
) -> duckdb.DuckDBPyConnection:
    """Return a fleet: on each host a web server, an application and a store that listen.

    The store listens on its host's address, the application on all of IPv4, the web server on
    all addresses; each host has tor's SOCKS port on its loopback. All call one another, their
    own loopback, and addresses that nobody of the fleet has.
    """
    draw = random.Random(seed)
    connection = empty()
    listeners: list[tuple[object, ...]] = []
    addresses: list[tuple[object, ...]] = []
    connections: list[tuple[object, ...]] = []
    traffic: list[tuple[object, ...]] = []
    for number in range(hosts):
        host, netns = f"host-{number}", 4026531840 + number
        ip, ip6 = _ip(number), f"fd00::{number + 1:x}"
        addresses += [(host, netns, one) for one in (ip, ip6, "127.0.0.1", "::1")]
        for service, protocol, address, port in (
            ("nginx", "tcp", "::", 80),
            ("nginx", "tcp", "::", 443),
            ("app", "tcp", "0.0.0.0", 8080),
            ("mysql", "tcp", ip, 3306),
            ("tor", "tcp", "127.0.0.1", 9050),
            ("dns", "udp", "0.0.0.0", 53),
            ("dns", "tcp", "0.0.0.0", 53),
        ):
            row = (host, netns, service, protocol, address, port, False, 100 + port, begin, None)
            listeners.append(row)
        listeners.append(  # a second process of the same service shares the port
            (host, netns, "nginx", "tcp", "::", 80, False, 99, begin + 1, begin + seconds)
        )
        for call in range(calls):
            caller, protocol, address, port = _called(draw, number, hosts)
            start = begin + 1 + draw.random() * (seconds - 60)
            sent, received = draw.randrange(1000), draw.randrange(100_000)
            connections.append(
                (
                    *(host, netns, caller, 7, "active", protocol, ip, 20000 + call),
                    *(address, port, sent, received, start, start + draw.random() * 50, "ebpf"),
                )
            )
        traffic.append((host, "eth0", "egress", "tcp", ip, _ip(number + 1), 3306, 5, 700, begin))
    for table, rows in (
        ("listeners", listeners),
        ("addresses", addresses),
        ("connections", connections),
        ("traffic", traffic),
    ):
        connection.executemany(
            f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows
        )
    return connection


def _ip(number: int) -> str:
    return f"10.0.{number // 250}.{number % 250 + 1}"


def _called(draw: random.Random, number: int, hosts: int) -> tuple[str | None, str, str, int]:
    callee = draw.randrange(hosts)
    return draw.choice(
        (
            ("nginx", "tcp", _ip(callee), 8080),
            ("app", "tcp", _ip(callee), 3306),
            ("app", "tcp", f"fd00::{callee + 1:x}", 80),
            ("app", "udp", _ip(callee), 53),
            ("tgen-client", "tcp", "127.0.0.1", 9050),
            ("tor", "tcp", f"192.0.2.{draw.randrange(1, 20)}", 9001),
            (None, "tcp", _ip(number), 8080),
        )
    )


def write_logs(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the rows as the logs of services of their machines, a folder for each."""

    def rows(table: str, instance: str) -> list[dict[str, Any]]:
        found = connection.execute(f"SELECT * FROM {table} WHERE instance_id = ?", [instance])
        names = [column[0] for column in found.description or ()]
        return [
            {n: v for n, v in zip(names, row, strict=True) if v is not None}
            for row in found.fetchall()
        ]

    instances = connection.execute("SELECT DISTINCT instance_id FROM addresses ORDER BY 1")
    for (instance,) in instances.fetchall():
        places = rows("addresses", instance)
        lines = [
            {"record": "start", "instance_id": instance, "host": instance, "source": "ebpf"},
            {
                "record": "instance",
                "instance_id": instance,
                "addresses": [{"netns": places[0]["netns"], "ips": [one["ip"] for one in places]}],
            },
        ]
        lines += [
            {"record": "service", "name": row.pop("service"), **row}
            for row in rows("listeners", instance)
        ]
        for number, row in enumerate(rows("connections", instance)):
            state = "closed" if "end_unix_ts" in row else "open"
            lines.append({"record": "service_connection", "id": f"{number}", "state": state, **row})
        for row in rows("traffic", instance):
            end = row["window_start_unix_ts"] + 1
            lines.append({"record": "network_traffic", "window_end_unix_ts": end, **row})
        log = folder / instance / "services" / "services.log"
        log.parent.mkdir(parents=True)
        head, *rest = lines
        texts = [jsonio.compact({"record": head.pop("record"), "unix_ts": BEGIN, **head})]
        texts += [
            jsonio.compact({"record": line.pop("record"), "unix_ts": BEGIN + 3600, **line})
            for line in rest
        ]
        log.write_text("\n".join(texts) + "\n")
