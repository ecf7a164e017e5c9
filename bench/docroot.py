"""What 200 requests at once for a minute do to a measurement that serves its docroot meanwhile.

A real ``measure --network testnet`` runs. For the same time each: nobody asks; 200 connections ask
a ``perfmeasure serve`` of the same docroot, which loads the machine alike; the 200 ask ``measure``
itself. With the 200 come slow readers, huge heads of requests and bad paths, both times::

    python -m bench.docroot [--seconds 60] [--connections 200]

Wanted: no request unanswered or wrong, no transfer failed; the control-port reader's stamps later
than tor's own TIME by at most 1.2 times what they are in the second part, in the median; and at
most 16 MiB more memory from the load's tenth second to its end. Exit status 1 when missed.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import http.client
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.stamps import cpu_seconds, stamps, until
from perfmeasure import jsonio
from perfmeasure.tor.ports import free_ports

LATENESS_RATIO = 1.2
GROWTH_MIB = 16.0
_SETTLED_SECONDS = 10
_HTTP_SECONDS = 60.0
_SLOW_READERS = 16
_TARGETS = (
    "/", "/app.js", "/style.css", "/data.js", "/index.json", "/index.xml", "/status.json",
    "/latest.json", "/figures/index.json",
)  # fmt: skip
"""What a browser and a collector ask for."""
_BAD_TARGETS = (
    "/../private/", "/%2e%2e/private/", "/..%2f..%2fetc/passwd", "//etc/passwd", "/%00", "/%ff",
    "/.status.json.tmp", "/a" * 2000,
)  # fmt: skip


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each part")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--ask", type=int, metavar="PORT", help="(internal)")
    arguments = parser.parse_args()
    if arguments.ask:
        asyncio.run(ask_for(arguments.ask, arguments.seconds, arguments.connections))
        return 0
    with tempfile.TemporaryDirectory(prefix="perfmeasure-bench-") as folder:
        return run(Path(folder), arguments.seconds, arguments.connections)


# ---- who asks -----------------------------------------------------------------------------------


async def ask_for(port: int, seconds: float, connections: int) -> None:
    """Keep as many requests under way as there are connections; print what came of them."""
    outcome: Counter[str] = Counter()
    took: list[float] = []
    until_ts = time.monotonic() + seconds
    await asyncio.gather(*(ask_on_one(port, until_ts, outcome, took) for _ in range(connections)))
    seconds_of = [float(value) for value in np.percentile(took, [50, 99, 100])]
    sys.stdout.buffer.write(jsonio.canonical({"outcome": outcome, "seconds": seconds_of}))


async def ask_on_one(port: int, until_ts: float, outcome: Counter[str], took: list[float]) -> None:
    """Ask again and again on one connection, the next as soon as the last is answered whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while (began := time.monotonic()) < until_ts:
            target = random.choice(_TARGETS)
            writer.write(
                f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n".encode()
            )
            async with asyncio.timeout(_HTTP_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status, *lines = head.split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines if line)
                await reader.readexactly(int(fields["content-length"]))
            outcome[status.split(" ")[1]] += 1
            took.append(time.monotonic() - began)
    except (OSError, TimeoutError, EOFError, KeyError) as error:
        outcome[type(error).__name__] += 1
    finally:
        writer.close()


def disturb(port: int, until_ts: float, found: Counter[str]) -> None:
    """Ask for what is not there, send heads without end, and read slowly."""
    slow = []
    for _ in range(_SLOW_READERS):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET /bokeh.min.js HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.append(sock)
    while time.monotonic() < until_ts:
        for sock in slow:
            try:
                sock.recv(512, socket.MSG_DONTWAIT)
            except OSError:
                found["slow reader closed or nothing there"] += 1
        for target in _BAD_TARGETS:
            status = raw_status(port, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            found[f"bad path: {status}"] += 1
        head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * (1 << 20)
        found[f"huge head: {raw_status(port, head)}"] += 1
        time.sleep(1)
    for sock in slow:
        sock.close()


def raw_status(port: int, request: bytes) -> str:
    """Send bytes and return the status that is answered, or ``closed``."""
    with socket.create_connection(("127.0.0.1", port), _HTTP_SECONDS) as sock:
        try:
            sock.sendall(request)
            return (sock.recv(4096).split(b" ", 2) + [b"closed"] * 2)[1].decode("latin-1")
        except OSError:
            return "closed"


def get(port: int, target: str) -> dict[str, Any]:
    """Fetch a JSON file."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_HTTP_SECONDS)
    try:
        connection.request("GET", target)
        found: dict[str, Any] = jsonio.loads(connection.getresponse().read())
        return found
    finally:
        connection.close()


# ---- the measurement ----------------------------------------------------------------------------


@dataclasses.dataclass
class Found:
    """What was found; ``parts`` are (begin, end), Unix seconds."""

    parts: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    asked: dict[str, Any] = dataclasses.field(default_factory=dict)
    disturbed: Counter[str] = dataclasses.field(default_factory=Counter)
    memory_mib: list[float] = dataclasses.field(default_factory=list)
    cpu_seconds: float = 0.0
    failed_transfers: int = 0


def run(folder: Path, seconds: float, connections: int) -> int:
    """Measure, load, print the figures, return the exit status."""
    port, other_port = free_ports(2)
    command = [sys.executable, "-m", "perfmeasure"]
    with (folder / "measure.log").open("wb") as log:
        measure = subprocess.Popen(
            [*command, "measure", "--network", "testnet", "--prefix", folder / "data",
             "--http-port", str(port), "--tgen-listen-port", "0", "--events", "CIRC_BW",
             "--tgen-transfer-size", "1 MiB"],
            stdout=log, stderr=log,
        )  # fmt: skip
    docroot = folder / "data" / "docroot"
    other = None
    try:
        until((folder / "data" / "tor-client" / "torrc").exists, "the network")
        until((docroot / "latest.json.gz").exists, "the first publication")
        other = subprocess.Popen(
            [*command, "serve", "--http-port", str(other_port), docroot],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(lambda: is_answered(other_port), "the other server")
        found = Found()
        began = time.time()
        time.sleep(seconds)
        found.parts["nobody asks"] = (began, time.time())
        ends = time.monotonic() + seconds
        beside = threading.Thread(target=disturb, args=(other_port, ends, Counter()))
        beside.start()
        ask(other_port, seconds, connections)
        beside.join()
        found.parts["another server is asked"] = (found.parts["nobody asks"][1], time.time())
        failed_before = failures(port)
        began, cpu_began = time.time(), cpu_seconds(measure.pid)
        ends = time.monotonic() + seconds
        helpers = [
            threading.Thread(target=disturb, args=(port, ends, found.disturbed)),
            threading.Thread(target=watch, args=(measure.pid, ends, found.memory_mib)),
        ]
        for helper in helpers:
            helper.start()
        found.asked = ask(port, seconds, connections)
        for helper in helpers:
            helper.join()
        found.parts["measure is asked"] = (began, time.time())
        found.cpu_seconds = cpu_seconds(measure.pid) - cpu_began
        found.failed_transfers = failures(port) - failed_before
        return tell(found, list(stamps(folder / "data" / "tor-client" / "perfmeasure.torctl.log")))
    finally:
        for process in (other, measure):
            if process is not None:
                process.terminate()
                process.wait(120)


def ask(port: int, seconds: float, connections: int) -> dict[str, Any]:
    """Let a process of its own ask, and return what came of it."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench.docroot", "--ask", str(port),
         "--seconds", str(seconds), "--connections", str(connections)],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    found: dict[str, Any] = jsonio.loads(ran.stdout)
    return found


def is_answered(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def failures(port: int) -> int:
    """Return how many transfers have failed so far."""
    transfers = get(port, "/status.json")["transfers"]
    return sum(int(kind["failed"]) for kind in transfers.values())


def watch(pid: int, until_ts: float, memory: list[float]) -> None:
    """Note the resident memory each second, MiB."""
    page = os.sysconf("SC_PAGE_SIZE")
    while time.monotonic() < until_ts:
        memory.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / 2**20)
        time.sleep(1)


def tell(found: Found, entries: list[tuple[float, bytes, float]]) -> int:
    """Print the figures and return the exit status.

    Args:
        found: what was found.
        entries: stamp, event and tor's own time of each CIRC_BW event.
    """
    missed = []
    outcome: dict[str, int] = found.asked["outcome"]
    count = sum(outcome.values())
    median, slow, slowest = found.asked["seconds"]
    print(f"{count} requests: {outcome}")
    print(f"answered in {median:.3f} s in the median, {slow:.3f} at 99 %, {slowest:.3f} at most")
    if set(outcome) != {"200"}:
        missed.append("requests with errors")
    print(f"beside them: {dict(found.disturbed)}")
    if any(what.endswith(" 200") for what in found.disturbed):
        missed.append("a bad request was answered with 200")
    print(f"transfers that failed meanwhile: {found.failed_transfers}")
    if found.failed_transfers:
        missed.append("transfers failed")
    medians = {}
    for name, (begin, end) in found.parts.items():
        late = np.array([stamp - own for stamp, _, own in entries if begin <= own < end])
        low, high = np.percentile(late, [50, 99]) * 1e3
        medians[name] = low
        print(f"{name:26} {len(late):7} events, late by {low:.3f} ms, at 99 % {high:.3f} ms")
    ratio = medians["measure is asked"] / medians["another server is asked"]
    print(f"ratio of the medians: {ratio:.2f} (at most {LATENESS_RATIO})")
    if ratio > LATENESS_RATIO:
        missed.append("lateness")
    memory = found.memory_mib
    settled = memory[min(_SETTLED_SECONDS, len(memory) - 1)]
    print(
        f"memory: {memory[0]:.0f} MiB at first, {settled:.0f} settled, {memory[-1]:.0f} last; "
        f"processor: {found.cpu_seconds / count * 1e6:.0f} us a request"
    )
    if memory[-1] - settled > GROWTH_MIB:
        missed.append("memory")
    print("MISSED: " + "; ".join(missed) if missed else "all met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
