"""Small topologies, from the rows of services.log's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfmeasure.analysis import graph, services

Row = dict[str, Any]


def listener(instance: str, service: str, ip: str, port: int, **fields: Any) -> Row:
    """Return a socket that listens from 900.0 on."""
    told = {
        "instance_id": instance, "netns": 1, "service": service, "protocol": "tcp",
        "listen_ip": ip, "listen_port": port, "is_v6only": False, "pid": 1,
        "valid_from_unix_ts": 900.0, "valid_to_unix_ts": None,
    }  # fmt: skip
    return {**told, **fields}


def call(
    instance: str, service: str | None, ends: tuple[str, int, str, int], size: int = 100,
    **fields: Any,
) -> Row:  # fmt: skip
    """Return the caller's report of a connection from 1000.0 to 1010.0."""
    told = {
        "instance_id": instance, "netns": 1, "service": service, "pid": 1, "side": "active",
        "protocol": "tcp", "src_ip": ends[0], "src_port": ends[1], "dst_ip": ends[2],
        "dst_port": ends[3], "bytes_sent": size, "bytes_received": 0, "start_unix_ts": 1000.0,
        "end_unix_ts": 1010.0, "source": "ebpf",
    }  # fmt: skip
    return {**told, **fields}


def addresses(**ips: str) -> list[Row]:
    """Return one address of each instance."""
    return [{"instance_id": name, "netns": 1, "ip": ip} for name, ip in ips.items()]


def section(folder: Path, *, relays: list[Row] | None = None, **tables: Any) -> dict[str, Any]:
    """Return the topology of tables; what is no table is passed on."""
    rows = {name: tables.pop(name) for name in list(tables) if name in services.TABLES}
    services.write(folder, {**rows, "relays": relays or []})
    return graph.section(folder, **tables)


def small(folder: Path) -> dict[str, Any]:
    """Return web on m1, which calls db on m2 and somebody outside."""
    return section(
        folder,
        addresses=addresses(m1="10.0.0.1", m2="10.0.0.2"),
        listeners=[listener("m2", "db", "10.0.0.2", 3306)],
        connections=[
            call("m1", "web", ("10.0.0.1", 5000, "10.0.0.2", 3306), 2048),
            call("m1", "web", ("10.0.0.1", 50010, "192.0.2.1", 7000), side="unknown"),
        ],
    )
