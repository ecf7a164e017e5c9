"""What it costs to know the services of a host: a list of many sockets, and short connections.

The list: 40 processes with 250 sockets each, in a network namespace of their own, are listed with
their bytes and their processes, as `perfmeasure topology collect --source polling` does, anew each
time. Short connections: 2,000 a second that live 0, 100 ms and 1 s, told of by the agent from the
kernel's records, and by polling; and the agent at rest::

    python bench/services.py [--sockets 10000] [--rate 2000] [--seconds 20]

Wanted: a poll of 10,000 sockets takes at most 150 ms of processor time; by the kernel's records
every connection is told with both processes' names and all bytes. Exit status 1 when missed. Needs
root.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perfmeasure import jsonio
from perfmeasure.flows import existing
from perfmeasure.topology.listeners import ListenerTable
from perfmeasure.topology.naming import Known, by_rules
from perfmeasure.topology.polling import ConnectionPoll
from perfmeasure.topology.sockdiag import LISTENING, UNCONNECTED, SocketLister

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "integration"))
from short_connections import ANSWERED_BYTES, SENT_BYTES, Load

WANTED_POLL_SECONDS = 0.150
PROCESSES = 40
LIVES = (0.0, 0.1, 1.0)
_CLONE_NEWNET = 0x40000000


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=10_000, help="sockets that are listed")
    parser.add_argument("--rate", type=int, default=2000, help="connections a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long")
    arguments = parser.parse_args()
    is_good = told_of(arguments.rate, arguments.seconds, "ebpf")
    told_of(arguments.rate, arguments.seconds, "polling")
    # Last, since this process moves into a namespace of its own.
    return 0 if listed(arguments.sockets) and is_good else 1


# ---- a list of many sockets ---------------------------------------------------------------------


def hold_sockets(count: int) -> None:
    """Hold so many connected sockets, after a listener; the end of standard input ends it."""
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        held = []
        for _ in range(count // 2):
            held.append(socket.create_connection(listener.getsockname()))
            held.append(listener.accept()[0])
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.read()


@contextlib.contextmanager
def many_sockets(count: int) -> Iterator[None]:
    """Have processes that hold them, in this network namespace."""
    argv = [sys.executable, __file__, "hold", str(count // PROCESSES)]
    holders = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        for holder in holders:
            holder.communicate()


def listed(count: int) -> bool:
    """List them anew some times, and then again with nothing new; print what it takes."""
    if ctypes.CDLL(None).unshare(_CLONE_NEWNET):
        raise SystemExit("no right to make a network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with many_sockets(count):
        first: list[float] = []
        again: list[float] = []
        for _ in range(5):
            known = Known(by_rules(()), lambda _: None)
            lister = SocketLister()
            table = ListenerTable(known, lambda _: None)
            poll = ConnectionPoll(
                lister, known, table, "bench", existing.pids_of_machine, is_ours_only=False
            )
            for times in (first, again, again):
                began = time.process_time()
                lister.list(socket.IPPROTO_TCP, LISTENING)
                lister.list(socket.IPPROTO_UDP, UNCONNECTED)
                lines = poll.poll(time.time())
                times.append(time.process_time() - began)
                if times is first:
                    assert len([line for line in lines if "service" in line]) == count
            poll.close()
            lister.close()
    print(
        f"{count} sockets of {PROCESSES} processes: a first list {1e3 * min(first):.0f} to "
        f"{1e3 * max(first):.0f} ms CPU, one with nothing new {1e3 * min(again):.0f} to "
        f"{1e3 * max(again):.0f}"
    )
    return min(first) <= WANTED_POLL_SECONDS


# ---- short connections --------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, exact to the nanosecond (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def mebibytes(pid: int, what: str) -> float:
    """Return a number of ``/proc/PID/status``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    return 0.0


@contextlib.contextmanager
def agent(folder: Path, source: str) -> Iterator[int]:
    """Have an agent run; yield its pid."""
    argv = [sys.executable, "-m", "perfmeasure", "topology", "collect", "-o", str(folder)]
    process = subprocess.Popen([*argv, "--source", source], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], 60)[0]
        assert process.stderr.readline() == b"READY\n"
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def told_of(rate: int, seconds: float, source: str) -> bool:
    """Make short connections of each life; print what share was told, and what it cost."""
    is_whole = True
    with tempfile.TemporaryDirectory(prefix="perfmeasure-bench-") as folder:
        load = Load()
        try:
            for life in LIVES:
                with agent(Path(folder) / str(life), source) as pid:
                    time.sleep(2)
                    at_rest = cpu_seconds(pid)
                    time.sleep(3)
                    at_rest = cpu_seconds(pid) - at_rest
                    used = cpu_seconds(pid)
                    made = load.call(rate, seconds, life)[life]
                    time.sleep(1.5)
                    used = cpu_seconds(pid) - used
                    memory = mebibytes(pid, "VmRSS"), mebibytes(pid, "RssAnon")
                whole, seen = shares(Path(folder) / str(life), load.port, made)
                print(
                    f"{source}, {rate}/s living {life:g} s for {seconds:g} s: {made} made, seen "
                    f"{seen:.2%}, with both names and all bytes {whole:.2%}; {used:.2f} s CPU, "
                    f"at rest {at_rest / 3:.2%} of a core; RSS {memory[0]:.0f} MiB, "
                    f"{memory[1]:.0f} of it its own"
                )
                is_whole &= whole == 1.0
        finally:
            load.end()
    return is_whole


def shares(folder: Path, port: int, made: int) -> tuple[float, float]:
    """Return which share was told whole, and which was seen at all."""
    ends: dict[str, dict[str, Any]] = {}
    for line in (folder / "services" / "services.log").read_bytes().splitlines():
        record = jsonio.loads(line)
        if record["record"] == "service_connection":
            ends[record["id"]] = record
    counts: Counter[str] = Counter()
    for record in ends.values():
        for side, here, name, sent in (
            ("client", record["dst_port"], "bench-client", SENT_BYTES),
            ("server", record["src_port"], "bench-server", ANSWERED_BYTES),
        ):
            if here == port:
                counts[f"{side} seen"] += 1
                whole = (record.get("service"), record["bytes_sent"]) == (name, sent)
                counts[f"{side} whole"] += whole
    return min(counts["client whole"], counts["server whole"]) / made, counts["client seen"] / made


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        hold_sockets(int(sys.argv[2]))
        os._exit(0)
    sys.exit(main())
