"""What it costs to record every TCP connection, and whether every one is recorded.

A server and a client in one process open and close short connections at a fixed rate over loopback,
inside a control group, while the collector records; before and after, nothing happens::

    python bench/connections.py [--rate 2000] [--seconds 20] [--idle-seconds 10]

Then one connection carries 2 GiB at a time, with the programs attached and without in turn.

Wanted: every connection recorded at both ends, with its pid; nothing lost; at rest the collector
takes less than 1 % of a core; from the start of its process to attached less than 3 s. Exit status
1 when missed. Needs root.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfmeasure import jsonio
from perfmeasure.flows import bpfcall
from perfmeasure.flows.cgroup import MeasurementCgroup, mount_point
from perfmeasure.flows.connection_source import ConnectionSource

REST_SHARE = 0.01
START_SECONDS = 3.0
BULK_BYTES, BULK_ROUNDS = 2 << 30, 16


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="connections a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="how long to rest")
    arguments = parser.parse_args()
    group = MeasurementCgroup()
    try:
        with tempfile.TemporaryDirectory(prefix="perfmeasure-bench-") as folder:
            status = measure(Path(folder) / "connections.log", group, arguments)
        bulk(group)
        return status
    finally:
        root = mount_point()
        assert root is not None
        (root / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        group.remove()


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, exact to the nanosecond (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def peak_mebibytes(pid: int) -> float:
    """Return the most memory that a process had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def serve(listener: socket.socket) -> None:
    """Answer each connection with a byte and close it, until the listener is shut down."""
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            peer.recv(64)
            peer.sendall(b"!")


def load(rate: int, seconds: float) -> tuple[int, float]:
    """Open connections at a rate; return how many, and in how many seconds."""
    count = 0
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        began = time.monotonic()
        while count < rate * seconds:
            ahead = began + count / rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            with socket.create_connection(listener.getsockname()) as sock:
                sock.sendall(b"?")
                sock.recv(64)
            count += 1
        took = time.monotonic() - began
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    return count, took


def measure(log: Path, group: MeasurementCgroup, arguments: argparse.Namespace) -> int:
    """Run collector and load, print the figures, return the exit status."""
    before = bpfcall.ids(bpfcall.Command.PROG_GET_NEXT_ID)
    timing = bpfcall.enable_statistics()
    began = time.monotonic()
    collector = subprocess.Popen(
        [sys.executable, "-m", "perfmeasure.flows.collector", "--log", str(log),
         "--cgroup", str(group.path)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert collector.stdout is not None
        select.select([collector.stdout], [], [], 60)
        assert collector.stdout.readline() == b"READY\n"
        until_ready = time.monotonic() - began
        now = bpfcall.ids(bpfcall.Command.PROG_GET_NEXT_ID)
        programs = [bpfcall.program_by_id(number) for number in now - before]
        rest = idle(collector.pid, arguments.idle_seconds)
        (group.path / "cgroup.procs").write_text("0")  # ourselves, and our children
        cpu = cpu_seconds(collector.pid)
        count, took = load(arguments.rate, arguments.seconds)
        time.sleep(1)
        cpu = cpu_seconds(collector.pid) - cpu
        after = idle(collector.pid, arguments.idle_seconds)
        peak = peak_mebibytes(collector.pid)
        runs = {bpfcall.program_name(fd): bpfcall.program_statistics(fd) for fd in programs}
    finally:
        collector.terminate()
        collector.wait(20)
    os.close(timing)
    lines = [jsonio.loads(line) for line in log.read_bytes().splitlines()]
    rests = {"before": rest, "after": after}
    return report(lines, Figures(count, took, cpu, rests, until_ready, peak, runs))


def bulk(group: MeasurementCgroup) -> None:
    """Print what the programs cost a transfer over loopback; this process is in the group."""
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for number in range(2 * BULK_ROUNDS):
        is_recorded = number % 4 in {1, 2}  # neither always comes first
        source = ConnectionSource(group.path) if is_recorded else None
        try:
            found[is_recorded].append(transfer())
        finally:
            if source is not None:
                source.close()
    for at, what in enumerate(("GiB/s", "CPU s a GiB, both ends")):
        plain, recorded = ([figures[at] for figures in found[kind]] for kind in (False, True))
        ratios = sorted(after / before for before, after in zip(plain, recorded, strict=True))
        print(
            f"bulk, {what}: {statistics.median(plain):.2f} without the programs "
            f"({min(plain):.2f} to {max(plain):.2f}), {statistics.median(recorded):.2f} with them "
            f"({min(recorded):.2f} to {max(recorded):.2f}); ratio of the rounds "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


def transfer() -> tuple[float, float]:
    """Send over one connection; return GiB a second, and seconds of processor time a GiB."""
    buffer = bytearray(1 << 20)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with sock, peer:
        thread = threading.Thread(target=send, args=(sock,))
        began, cpu = time.monotonic(), time.process_time()
        thread.start()
        left = BULK_BYTES
        while left:
            left -= peer.recv_into(buffer)
        thread.join()
        took, cpu = time.monotonic() - began, time.process_time() - cpu
    gibibytes = BULK_BYTES / 2**30
    return gibibytes / took, cpu / gibibytes


def send(sock: socket.socket) -> None:
    """Send all of a transfer."""
    data = bytes(1 << 20)
    for _ in range(BULK_BYTES // len(data)):
        sock.sendall(data)


def idle(pid: int, seconds: float) -> float:
    """Return the share of a core that a process takes while nothing happens."""
    cpu = cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - cpu) / seconds


@dataclass(frozen=True)
class Figures:
    """What was measured of the collector."""

    connections: int
    load_seconds: float
    cpu_seconds: float
    rest: dict[str, float]
    """Share of a core, by when."""
    until_ready_seconds: float
    peak_mebibytes: float
    runs: dict[str, bpfcall.ProgramStatistics]


def report(lines: list[dict[str, Any]], figures: Figures) -> int:
    """Print the figures and return the exit status."""
    count = figures.connections
    ours = [line for line in lines if line.get("state") == "closed"]
    by_side = Counter(line["side"] for line in ours)
    with_pid = sum(line.get("pid") == os.getpid() for line in ours)
    lost = sum(line["count"] for line in lines if line["record"] == "lost")
    print(
        f"{count} connections in {figures.load_seconds:.1f} s "
        f"({count / figures.load_seconds:.0f}/s), both ends of each"
    )
    print(f"recorded: {by_side['active']} active, {by_side['passive']} passive, of {count} each")
    print(f"with the right pid: {with_pid} of {len(ours)}; lost: {lost}")
    print(
        f"collector: {figures.cpu_seconds / count * 1e6:.1f} us of CPU a connection (two records), "
        f"peak {figures.peak_mebibytes:.0f} MiB"
    )
    for name, share in figures.rest.items():
        print(f"collector at rest {name} the load: {share:.3%} of a core")
    print(f"from its start to attached: {figures.until_ready_seconds:.2f} s")
    total_ns = 0
    for name, (run_count, run_time_ns) in sorted(figures.runs.items()):
        total_ns += run_time_ns
        if run_count:
            print(f"  {name:16} {run_count:9} runs, {run_time_ns / run_count:6.0f} ns each")
    print(f"  programs in all: {total_ns / count / 1000:.2f} us a connection (both ends)")
    failures = []
    if by_side != {"active": count, "passive": count} or lost:
        failures.append("recorded")
    if with_pid != len(ours):
        failures.append("pid")
    if max(figures.rest.values()) >= REST_SHARE:
        failures.append("CPU at rest")
    if figures.until_ready_seconds >= START_SECONDS:
        failures.append("start")
    print("MISSED: " + "; ".join(failures) if failures else "all met")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
