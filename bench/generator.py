"""The built-in generator against bare sockets: throughput, CPU, time to first byte, 200 at once.

    .venv/bin/python bench/generator.py [--quick]

The bare side is the least program that does the same: two processes with blocking sockets, the
same bytes, MD5 on both ends. Both sides are measured in turn, several times, so that whatever
else the machine does hits both; medians are compared. Status 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import networkx as nx

from perfmeasure.tgen.graphml import Graph, write_graphml
from perfmeasure.tgen.model import server_model

CHUNK_BYTES = 256 * 1024
GIB = 2**30

MIN_THROUGHPUT_RATIO = 0.5
MAX_FIRST_BYTE_EXTRA_MS = 0.3
TGEN_CLIENT_CPU_SECONDS = 2.4
TGEN_SERVER_CPU_SECONDS = 5.9
PARALLEL = 200


class Copy(NamedTuple):
    """One copy: MB/s, and CPU seconds a GiB of the process that receives and the one that sends."""

    mb_per_second: float
    client_cpu_seconds: float
    server_cpu_seconds: float


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has had, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


# The bare side.


def bare_serve(listener: socket.socket) -> None:
    """Answer each connection with as many bytes as it asks for, and their MD5."""
    block = memoryview(b"x" * CHUNK_BYTES)
    while True:
        connection, _ = listener.accept()
        with connection:
            left = int(connection.recv(64))
            md5 = hashlib.md5(usedforsecurity=False)
            while left:
                sent = connection.send(block[: min(left, CHUNK_BYTES)])
                md5.update(block[:sent])
                left -= sent
            connection.sendall(md5.digest())


def bare_fetch(port: int, size_bytes: int) -> tuple[float, float]:
    """Fetch and check; return the seconds to the first byte and to the checked end."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    begin = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(str(size_bytes).encode())
        md5 = hashlib.md5(usedforsecurity=False)
        left, first = size_bytes, 0.0
        while left:
            count = connection.recv_into(buffer, min(left, CHUNK_BYTES))
            first = first or time.perf_counter() - begin
            md5.update(buffer[:count])
            left -= count
        digest = b""
        while len(digest) < 16:
            digest += connection.recv(16 - len(digest))
        assert digest == md5.digest()
    return first, time.perf_counter() - begin


@contextlib.contextmanager
def bare_server() -> Iterator[tuple[int, int]]:
    """Run the bare server in a process of its own; yield its port and pid."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        pid = os.fork()
        if pid == 0:
            try:
                bare_serve(listener)
            finally:
                os._exit(1)
    try:
        yield port, pid
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def bare_copy(port: int, server_pid: int, size_bytes: int) -> Copy:
    """Copy once."""
    client, server = cpu_seconds(os.getpid()), cpu_seconds(server_pid)
    _, seconds = bare_fetch(port, size_bytes)
    gib = size_bytes / GIB
    return Copy(
        size_bytes / 1e6 / seconds,
        (cpu_seconds(os.getpid()) - client) / gib,
        (cpu_seconds(server_pid) - server) / gib,
    )


# The generator's side.


def streams_model(port: int, size_bytes: int, *, parallel: int = 1, count: int = 1) -> Graph:
    """Return a client that has ``parallel`` streams at once, until ``count`` are done."""
    graph: Graph = nx.DiGraph()
    graph.add_node(
        "start", peers=f"127.0.0.1:{port}", time="200 ms", heartbeat="0", loglevel="info"
    )
    graph.add_node("end", count=str(count))
    graph.add_node("pause_sync")
    for index in range(parallel):
        graph.add_node(f"stream{index}", sendsize="0", recvsize=str(size_bytes))
        graph.add_edge("start", f"stream{index}")
        graph.add_edge(f"stream{index}", "pause_sync")
        graph.add_edge("end", f"stream{index}")
    # After the last one a moment, in which the client's CPU time can be read.
    graph.add_node("pause_last", time="100 ms" if count == parallel else "0")
    graph.add_edges_from([("pause_sync", "pause_last"), ("pause_last", "end")])
    return graph


def run_client(graph: Graph, folder: Path) -> tuple[str, float]:
    """Run the generator's client; return its log, and its CPU seconds without start and end."""
    path = folder / "client.graphml.xml"
    write_graphml(graph, path)
    with subprocess.Popen(
        [sys.executable, "-m", "perfmeasure.tgen", str(path)], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        lines = []
        before = after = 0.0
        for line in client.stdout:
            lines.append(line)
            if "entering main loop" in line:
                time.sleep(0.1)  # it waits 200 ms before its first stream
                before = cpu_seconds(client.pid)
            elif "Generator status" in line:
                with contextlib.suppress(OSError):  # gone, where many streams follow each other
                    after = cpu_seconds(client.pid)
    assert client.returncode == 0, f"the client ended with {client.returncode}"
    return "".join(lines), after - before


@contextlib.contextmanager
def tgen_server(folder: Path) -> Iterator[tuple[int, int]]:
    """Run the generator's server; yield its port and pid."""
    path = folder / "server.graphml.xml"
    write_graphml(server_model(0), path)
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "perfmeasure.tgen", str(path)], stdout=output
        ) as server,
    ):
        try:
            for _ in range(200):
                time.sleep(0.05)
                if found := re.search(r"server listening at 0\.0\.0\.0:(\d+)", log.read_text()):
                    break
            else:
                raise RuntimeError("the server does not listen")
            yield int(found[1]), server.pid
        finally:
            server.terminate()
            server.wait(10)


def field(log: str, name: str) -> list[int]:
    """Return a field of each successful stream."""
    return [int(found) for found in re.findall(rf"\[stream-success\].*[\[,]{name}=(-?\d+)", log)]


def tgen_copy(port: int, server_pid: int, size_bytes: int, folder: Path) -> Copy:
    """Copy once."""
    server = cpu_seconds(server_pid)
    log, client_cpu = run_client(streams_model(port, size_bytes), folder)
    microseconds = field(log, "usecs-to-checksum-recv")[0]
    time.sleep(0.05)
    gib = size_bytes / GIB
    return Copy(
        size_bytes / microseconds, client_cpu / gib, (cpu_seconds(server_pid) - server) / gib
    )


# What is measured.


class Judge:
    """Prints figures with their limits and remembers whether all were kept."""

    def __init__(self) -> None:
        self.is_good = True

    def row(self, name: str, ours: str, bare: str, against: str = "", *, ok: bool = True) -> None:
        """Print one row; ``against`` is the ratio or limit."""
        self.is_good = self.is_good and ok
        print(f"{name:34}{ours:>14}{bare:>14}  {against}{'' if ok else '   MISSED'}")


def measure_copies(judge: Judge, folder: Path, size_bytes: int, repeats: int) -> None:
    """Throughput and CPU of one stream."""
    with bare_server() as bare, tgen_server(folder) as ours:
        pairs = [
            (tgen_copy(*ours, size_bytes, folder), bare_copy(*bare, size_bytes))
            for _ in range(repeats)
        ]
    mine = Copy(*(statistics.median(values) for values in zip(*(p[0] for p in pairs), strict=True)))
    base = Copy(*(statistics.median(values) for values in zip(*(p[1] for p in pairs), strict=True)))
    ratio = statistics.median(a.mb_per_second / b.mb_per_second for a, b in pairs)
    judge.row("throughput, MB/s", f"{mine[0]:.0f}", f"{base[0]:.0f}",
              f"{ratio:.2f} of it, at least {MIN_THROUGHPUT_RATIO}",
              ok=ratio >= MIN_THROUGHPUT_RATIO)  # fmt: skip
    for name, index, limit in (
        ("client", 1, TGEN_CLIENT_CPU_SECONDS),
        ("server", 2, TGEN_SERVER_CPU_SECONDS),
    ):
        judge.row(f"{name} CPU, s/GiB", f"{mine[index]:.2f}", f"{base[index]:.2f}",
                  f"TGen: {limit}", ok=mine[index] < limit)  # fmt: skip


def measure_first_byte(judge: Judge, folder: Path, rounds: int, count: int) -> None:
    """Time to the first byte of payload, from before the socket is made.

    Whatever else runs on the machine only adds to it, so the quietest round of each side counts.
    """
    size = 1024 * 1024
    ours: list[float] = []
    bare: list[float] = []
    with bare_server() as (bare_port, _), tgen_server(folder) as (port, _):
        for _ in range(rounds):
            log, _cpu = run_client(streams_model(port, size, count=count), folder)
            times = field(log, "usecs-to-first-byte-recv")
            ours.append(statistics.median(times) / 1e3)
            times_bare = [bare_fetch(bare_port, size)[0] for _ in range(count)]
            bare.append(statistics.median(times_bare) * 1e3)
    bare_ms, our_ms = min(bare), min(ours)
    extra = our_ms - bare_ms
    judge.row("time to first byte, ms, median", f"{our_ms:.3f}", f"{bare_ms:.3f}",
              f"{extra:+.3f} ms, at most {MAX_FIRST_BYTE_EXTRA_MS:+}",
              ok=extra <= MAX_FIRST_BYTE_EXTRA_MS)  # fmt: skip


def measure_parallel(judge: Judge, folder: Path) -> None:
    """Many streams at once."""
    size = 1024 * 1024
    with tgen_server(folder) as (port, _):
        log, _cpu = run_client(streams_model(port, size, parallel=PARALLEL, count=PARALLEL), folder)
    done, failed = len(field(log, "created-ts")), log.count("[stream-error]")
    longest = max(field(log, "usecs-to-checksum-recv"), default=0) / 1e6
    judge.row(f"{PARALLEL} streams of 1 MiB at once", f"{done} done", "",
              f"{failed} errors, {longest:.2f} s", ok=done == PARALLEL and not failed)  # fmt: skip


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the bytes, fewer turns")
    is_quick = parser.parse_args().quick
    size_bytes = GIB // 4 if is_quick else GIB
    judge = Judge()
    print(f"one stream of {size_bytes // 2**20} MiB on loopback, MD5 on both ends\n")
    judge.row("", "generator", "bare sockets")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_copies(judge, folder, size_bytes, repeats=3 if is_quick else 5)
        measure_first_byte(judge, folder, rounds=6 if is_quick else 10, count=60)
        measure_parallel(judge, folder)
    return 0 if judge.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
