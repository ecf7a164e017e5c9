"""What a fleet's topology costs as time series: made, imported, asked for, fetched.

Makes the rows of some hosts in an hour, each with some listeners and a number of places that it
calls, and imports them into a victoria-metrics of its own on loopback:

    python -m bench.topology_import [--hosts 1000] [--calls 100]

CPU seconds are user and system of this process and of the server, memory is the most that each
held. MB are 10^6.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb

from perfmeasure import jsonio
from perfmeasure.analysis import graph
from perfmeasure.topology import database, families, fetching, rows
from perfmeasure.topology.batches import batches
from perfmeasure.topology.importer import Importer
from perfmeasure.topology.server import Server

BEGIN = 1795305600
SECONDS = 3600
LISTENERS = 20
QUESTIONS = Path(__file__).resolve().parent.parent / "docs" / "series.md"

# Each host calls so many of the fleet's places, each twelve times in the hour, at any time.
ROWS = """
CREATE TABLE listeners AS
SELECT 'host-' || h AS instance_id, h AS netns, 'service-' || (h * {listeners} + p) % 2000
    AS service, 'tcp' AS protocol, '0.0.0.0' AS listen_ip, 1000 + p AS listen_port,
    false AS is_v6only, p AS pid, {begin}::DOUBLE AS valid_from_unix_ts,
    NULL::DOUBLE AS valid_to_unix_ts
FROM range({hosts}) AS a(h), range({listeners}) AS b(p);
CREATE TABLE addresses AS
SELECT 'host-' || h AS instance_id, h AS netns, unnest(['10.' || h // 65536 || '.' ||
    h // 256 % 256 || '.' || h % 256, '127.0.0.1']) AS ip FROM range({hosts}) AS a(h);
CREATE TABLE connections AS
SELECT 'host-' || h AS instance_id, h AS netns, 'service-' || (h * {listeners} + c % 5) % 2000
    AS service, c AS pid, 'active' AS side, 'tcp' AS protocol, '10.0.0.1' AS src_ip,
    40000 AS src_port,
    '10.' || d // 65536 || '.' || d // 256 % 256 || '.' || d % 256 AS dst_ip,
    (1000 + hash(h, c, 2) % ({listeners} + 1))::INTEGER AS dst_port,
    (hash(h, c, n, 3) % 10000)::BIGINT AS bytes_sent,
    (hash(h, c, n, 4) % 1000000)::BIGINT AS bytes_received, s AS start_unix_ts,
    s + 1 AS end_unix_ts, 'ebpf' AS source
FROM (SELECT h, c, n, (hash(h, c, 1) % {hosts})::BIGINT AS d,
    {begin} + (hash(h, c, n, 5) % {seconds}000) / 1000 AS s
    FROM range({hosts}) AS a(h), range({calls}) AS b(c), range(12) AS e(n)) ORDER BY h, s;
CREATE TABLE traffic (instance_id VARCHAR, interface VARCHAR, direction VARCHAR, protocol VARCHAR,
    src_ip VARCHAR, dst_ip VARCHAR, dst_port INTEGER, packets BIGINT, bytes BIGINT,
    window_start_unix_ts DOUBLE);
CREATE TABLE relays (fingerprint VARCHAR, nickname VARCHAR, ip VARCHAR, port INTEGER);
"""


class Watch:
    """CPU seconds of this process and the server, and seconds, since it was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = time.monotonic()
        self._own, self._server = _own_seconds(), _seconds_of(pid)

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s, CPU {_own_seconds() - self._own:.1f} s here and "
            f"{_seconds_of(self._pid) - self._server:.1f} s of the server"
        )

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began


def _own_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _peak_of(pid: int | str) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


@contextlib.contextmanager
def victoria_metrics(folder: Path) -> Iterator[tuple[str, int]]:
    """Run one; give its URL and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "victoria-metrics", f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms", "-search.latencyOffset=0s",
        "-search.maxUniqueTimeseries=2000000", "-search.maxQueryDuration=300s",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(200):
                with contextlib.suppress(OSError), urllib.request.urlopen(url):
                    break
                time.sleep(0.05)
            yield url, process.pid
        finally:
            process.terminate()


def ask(url: str, query: str) -> int:
    """Ask at the end of the hour; return how many series the answer has."""
    asked = urllib.parse.urlencode(
        {"query": query, "time": BEGIN + SECONDS + 60, "timeout": "300s"}
    )
    with urllib.request.urlopen(f"{url}/api/v1/query?{asked}") as answer:  # noqa: S310
        return len(jsonio.loads(answer.read())["data"]["result"])


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perfmeasure-bench-") as name:
        top = Path(name)
        for folder in ("here", "there"):
            (top / folder).mkdir()
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute(
                ROWS.format(
                    hosts=asked.hosts, calls=asked.calls, listeners=LISTENERS, begin=BEGIN,
                    seconds=SECONDS,
                )
            )  # fmt: skip
            for table in rows.TABLES:
                connection.execute(f"COPY {table} TO '{top / 'here' / table}.parquet'")
        with victoria_metrics(top / "data") as (url, pid):
            measure(top, url, pid)
        size = sum(path.stat().st_size for path in (top / "data").rglob("*") if path.is_file())
        print(f"on the server's disk: {size / 1e6:.1f} MB")
    return 0


def measure(top: Path, url: str, pid: int) -> None:
    """Do what is measured, and print what it took."""
    groups = (*families.RAW, *families.JOINED)
    watch = Watch(pid)
    here = graph.section(top / "here")
    print(f"joined here, {here['coverage']['input_connections']} connections: {watch}")
    watch = Watch(pid)
    with database.with_series(top / "here", here) as (connection, _):
        count = sum(
            connection.table(group.series_table).count("*").fetchall()[0][0] * len(group.families)
            for group in groups
        )
        print(f"{count} series made: {watch}", flush=True)
        server = Server(url)
        watch = Watch(pid)
        done = Importer(server, say=print).send(batches(connection, groups))
        rate = done.samples / watch.seconds
        print(
            f"{done.samples} samples imported, {done.bytes / 1e6:.1f} MB sent: {watch}, "
            f"{rate:.0f} samples/s"
        )
    print(f"memory: {_peak_of('self'):.0f} MB here, {_peak_of(pid):.0f} MB of the server")
    raw_join = re.findall(r"```promql\n(.*?)```", QUESTIONS.read_text(), re.DOTALL)[1]
    for what, query in (
        ("services", 'services{listen_ports=~".+"}'),
        ("edges", "last_over_time(service_edge[1d])"),
        ("the raw join", raw_join),
    ):
        watch = Watch(pid)
        print(f"asked for {what}: {ask(url, query)} series, {watch}", flush=True)
    watch = Watch(pid)
    fetching.fetch(server, BEGIN - 600, BEGIN + SECONDS + 60, top / "series")
    print(f"fetched, {(top / 'series').stat().st_size / 1e6:.0f} MB: {watch}")
    watch = Watch(pid)
    with database.connected() as connection:
        rows.write(connection, top / "series", top / "there", (BEGIN, BEGIN + SECONDS + 60))
    there = graph.section(top / "there")
    print(f"made rows of it and joined them: {watch}")
    print(f"memory: {_peak_of('self'):.0f} MB here, {_peak_of(pid):.0f} MB of the server")
    assert there["coverage"] == here["coverage"]
    server.close()


if __name__ == "__main__":
    sys.exit(main())
