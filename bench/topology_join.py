# ruff: noqa: S608 - the queries are made of our own numbers
"""What the join of connections with listeners costs: CPU seconds and memory, from Parquet.

    python bench/topology_join.py [--connections 10000000] [--both-ends] [--shuffled]

The fleet: hosts of 20 services with two listeners each, some wildcard, some on loopback; each
service calls two others, something on its own loopback and a peer outside. The rows of a host
stand together, as the reader of the logs writes them, unless --shuffled. The join runs in a process
of its own, so that its memory is only its own; then some hosts are joined again in plain Python,
and all bytes are counted in the file.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import duckdb

from perfmeasure.analysis import topology

SERVICES = 20  # of a host
_IP = "printf('10.%d.%d.%d', {0} // 65536, ({0} // 256) % 256, {0} % 256)"
_SAMPLED_HOSTS = 20


def make(folder: Path, connections: int, hosts: int, *, shuffled: bool, both_ends: bool) -> None:
    """Write the tables."""
    with duckdb.connect(config={"threads": 2, "memory_limit": "1GB"}) as cursor:
        cursor.execute("SET preserve_insertion_order = false")
        own = _IP.format("h")
        cursor.execute(f"""
COPY (SELECT printf('h%05d', h) AS instance_id, 1::BIGINT AS netns, 'service-' || s AS service,
             'tcp' AS protocol, CASE WHEN s % 10 = 0 THEN '0.0.0.0' WHEN s % 10 = 1 THEN '127.0.0.1'
             ELSE {own} END AS listen_ip, (2000 + 2 * s + p)::INTEGER AS listen_port,
             false AS is_v6only, (1000 + s)::BIGINT AS pid, 1.7e9::DOUBLE AS valid_from_unix_ts,
             NULL::DOUBLE AS valid_to_unix_ts
      FROM range({hosts}) a(h), range({SERVICES}) b(s), range(2) c(p))
TO '{folder}/listeners.parquet' (COMPRESSION zstd)""")
        cursor.execute(f"""
COPY (SELECT printf('h%05d', h) AS instance_id, 1::BIGINT AS netns,
             unnest([{own}, '127.0.0.1', '::1']) AS ip FROM range({hosts}) a(h))
TO '{folder}/addresses.parquet' (COMPRESSION zstd)""")
        calls = connections // 2 if both_ends else connections
        host = f"hash(i) % {hosts}" if shuffled else f"i * {hosts} // {calls}"
        row = f"""
SELECT printf('h%05d', h) AS instance_id, 1::BIGINT AS netns, 'service-' || s AS service,
       (1000 + s)::BIGINT AS pid, 'active' AS side, 'tcp' AS protocol,
       if(kind >= 95, '127.0.0.1', {own}) AS src_ip, (32768 + i % 28000)::INTEGER AS src_port,
       CASE WHEN kind < 5 THEN printf('93.184.%d.%d', h % 50, s) WHEN kind >= 95 THEN '127.0.0.1'
            ELSE {_IP.format("th")} END AS dst_ip,
       CASE WHEN kind < 5 THEN 443 WHEN kind >= 95 THEN 2000 + 2 * (s % 2)
            ELSE 2000 + 2 * if(ts % 10 = 1, ts + 1, ts) + k END::INTEGER AS dst_port,
       (hash(i + 5) % 100000)::BIGINT AS bytes_sent,
       (hash(i + 6) % 900000)::BIGINT AS bytes_received,
       round(t, 6) AS start_unix_ts, round(t + (hash(i + 7) % 1000000) / 1e6, 6) AS end_unix_ts,
       'ebpf' AS source, th, ts, kind
FROM (SELECT *, (h * 31 + s * 7 + k * 1777 + 1) % {hosts} AS th, (s * 3 + k * 5) % {SERVICES} AS ts
      FROM (SELECT i, {host} AS h, hash(i + 77777777) % {SERVICES} AS s,
                   hash(i + 1234567) % 100 AS kind, hash(i + 999) % 2 AS k,
                   1.7e9 + (i % ({calls} // {hosts} + 1)) * 86400.0 * {hosts} / {calls} AS t
            FROM range({calls}) a(i)))"""
        other = """
SELECT CASE WHEN kind >= 95 THEN instance_id ELSE printf('h%05d', th) END, netns,
       'service-' || CASE WHEN kind >= 95 THEN (dst_port - 2000) // 2
                          ELSE if(ts % 10 = 1, ts + 1, ts) END,
       1::BIGINT, 'passive', protocol, dst_ip, dst_port, src_ip, src_port, bytes_received,
       bytes_sent, start_unix_ts, end_unix_ts, source FROM row WHERE kind >= 5"""
        both = f" UNION ALL {other}" if both_ends else ""
        cursor.execute(
            f"COPY (WITH row AS ({row}) SELECT * EXCLUDE (th, ts, kind) FROM row{both}) "
            f"TO '{folder}/connections.parquet' (COMPRESSION zstd)"
        )


def join(folder: Path) -> None:
    """Join, write the edges beside the tables, and print what it took."""
    import_cpu = time.process_time()
    with topology.join(folder) as joined:
        cpu = time.process_time()
        coverage = joined.coverage
        [(edges,)] = joined.cursor.execute("SELECT count(*) FROM edge").fetchall()
        joined.cursor.execute(f"COPY (FROM edge) TO '{folder}/edges.parquet'")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"join: {cpu:.2f} CPU s ({import_cpu:.2f} of it to start Python), peak {peak:.0f} MiB; "
        f"{coverage['reported_connections']} reports of {coverage['input_connections']} "
        f"connections, {edges} edges, {coverage['input_bytes']} bytes: "
        + ", ".join(f"{coverage[f'{name}_bytes']} {name}" for name in topology.CATEGORIES)
    )


def check(folder: Path, hosts: int) -> None:
    """Compare some hosts' edges with plain Python, and all bytes with those in the file."""
    with duckdb.connect(config={"threads": 2}) as cursor:
        listening: dict[tuple[str, str, int], str] = {}
        for instance, ip, port, service, own in cursor.execute(
            "SELECT l.instance_id, listen_ip, listen_port, service, a.ip "
            f"FROM '{folder}/listeners.parquet' l JOIN '{folder}/addresses.parquet' a "
            "ON a.instance_id = l.instance_id AND starts_with(a.ip, '10.')"
        ).fetchall():
            for address in (own, "127.0.0.1") if ip == "0.0.0.0" else (ip,):  # noqa: S104 - a name
                scope = instance if address == "127.0.0.1" else ""
                listening[scope, address, port] = f"{instance}/{service}"
        sampled = [f"h{n * hosts // _SAMPLED_HOSTS:05d}" for n in range(_SAMPLED_HOSTS)]
        wanted: Counter[tuple[str, str]] = Counter()
        for instance, service, ip, port, size in cursor.execute(
            "SELECT instance_id, service, dst_ip, dst_port, bytes_sent + bytes_received "
            f"FROM '{folder}/connections.parquet' WHERE side = 'active' AND instance_id IN ?",
            [sampled],
        ).fetchall():
            scope = instance if ip == "127.0.0.1" else ""
            wanted[f"{instance}/{service}", listening.get((scope, ip, port), f"{ip}:{port}")] += (
                size
            )
        found: Counter[tuple[str, str]] = Counter()
        for caller, callee, size in cursor.execute(
            "SELECT instance_id || '/' || service, coalesce(callee_instance || '/' || "
            "callee_service, peer_ip || ':' || port), (bytes_sent + bytes_received)::BIGINT "
            f"FROM '{folder}/edges.parquet' WHERE instance_id IN ? AND NOT is_heard",
            [sampled],
        ).fetchall():
            found[caller, callee] += size
        assert found == wanted, "the sample differs from plain Python"
        [(there,)] = cursor.execute(
            "SELECT sum(bytes_sent + bytes_received)::BIGINT "
            f"FROM '{folder}/connections.parquet' WHERE side = 'active'"
        ).fetchall()
        [(joined,)] = cursor.execute(
            f"SELECT sum(bytes_sent + bytes_received)::BIGINT FROM '{folder}/edges.parquet'"
        ).fetchall()
        assert joined == there, f"{joined} bytes of {there}"
    print(f"check: {len(wanted)} edges of {len(sampled)} hosts as in plain Python, {there} bytes")


def main() -> None:
    """Make, join, check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000_000)
    parser.add_argument("--services", type=int, default=100_000)
    parser.add_argument(
        "--both-ends", action="store_true", help="half of the rows: the other end's"
    )
    parser.add_argument("--shuffled", action="store_true", help="the rows of hosts mixed")
    parser.add_argument("--join", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.join:
        join(asked.join)
        return
    hosts = asked.services // SERVICES
    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        folder = Path(place)
        make(folder, asked.connections, hosts, shuffled=asked.shuffled, both_ends=asked.both_ends)
        size = (folder / "connections.parquet").stat().st_size
        print(f"{asked.connections} rows, {2 * asked.services} listeners, {size / 1e6:.0f} MB")
        subprocess.run([sys.executable, __file__, "--join", place], check=True)
        check(folder, hosts)


if __name__ == "__main__":
    main()
