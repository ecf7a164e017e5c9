"""How late the control-port reader stamps, and what it costs, in a flood of CIRC_BW events.

A private network carries parallel downloads; on conflux circuits the client's tor then sends one
CIRC_BW event for each cell, with its own time in it. The reader and a bare recv loop, each a
process with its own control connection, stamp the same events::

    python bench/stamps.py [--seconds 20]

Wanted: lateness against tor's TIME at most 1.2 times the bare loop's, in the median and at 99 %;
no event lost; at most 10 microseconds of processor time an event. Exit status 1 when missed.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perfmeasure.tor.control import ControlAddress, ControlConnection
from perfmeasure.tor.ports import free_ports
from perfmeasure.tor.processes import Processes
from perfmeasure.tor.readiness import NetworkWatch
from perfmeasure.tor.testnet import Testnet
from perfmeasure.tor.torrc import NO_DEFAULTS, TorSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVENTS = ("CIRC", "CIRC_MINOR", "STREAM", "BW", "BUILDTIMEOUT_SET", "GUARD", "ORCONN", "CIRC_BW")
LATENESS_RATIO = 1.2
CPU_US_AN_EVENT = 10.0
_LIMIT_SECONDS = 90.0
_CIRC_BW = re.compile(rb"(650 CIRC_BW ID=\d+ [^\r\n]* TIME=(\d\S+)[^\r\n]*)\r\n")
_STAMPED = re.compile(rb"(?m)^\S+ \S+ (\d+\.\d{6}) 650 CIRC_BW [^\r\n]* TIME=(\d\S+)")


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the flood")
    parser.add_argument("--bare", nargs=3, metavar=("PORT", "COOKIE", "OUT"), help="(internal)")
    arguments = parser.parse_args()
    if arguments.bare:
        bare_loop(int(arguments.bare[0]), Path(arguments.bare[1]), Path(arguments.bare[2]))
        return 0
    with tempfile.TemporaryDirectory(prefix="perfmeasure-bench-") as folder:
        return compare(Path(folder), arguments.seconds)


def bare_loop(port: int, cookie: Path, out: Path) -> None:
    """Do what costs least: receive, note the time, keep; write when all is over."""
    connection = ControlConnection.connect(ControlAddress(port=port))
    connection.authenticate(cookie)
    sock = connection._sock  # noqa: SLF001 - the bare socket is the point
    sock.setsockopt(socket.SOL_SOCKET, 35, 0)
    sock.sendall(f"SETEVENTS {' '.join(EVENTS)}\r\n".encode())
    is_stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: is_stopped.append(1))
    chunks = []
    while not is_stopped:
        if not select.select([sock], [], [], 0.2)[0]:
            continue
        data = sock.recv(65536)
        chunks.append((time.time_ns(), data))
        if len(chunks) == 1:
            out.with_suffix(".ready").touch()
    # An event is taken as arrived with the chunk that ends it, as the reader does.
    ends = np.cumsum([len(data) for _, data in chunks])
    content = b"".join(data for _, data in chunks)
    with out.open("wb") as file:
        for match in _CIRC_BW.finditer(content):
            utc_ns = chunks[int(np.searchsorted(ends, match.end()))][0]
            file.write(b"- - %d.%06d %s\r\n" % (utc_ns // 10**9, utc_ns // 1000 % 10**6, match[1]))


# ---- the network and the load -------------------------------------------------------------------


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + _LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"stamps: waited {_LIMIT_SECONDS:.0f} s for {what}")
        time.sleep(0.05)


def serve(listener: socket.socket) -> None:
    """Send without end to whoever connects."""
    block = bytes(65536)

    def send(peer: socket.socket) -> None:
        with peer:
            try:
                while True:
                    peer.sendall(block)
            except OSError:
                return

    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=send, args=(peer,), daemon=True).start()


def download(socks_port: int, port: int, until_ts: float, received: list[int]) -> None:
    """Fetch through tor until the time is over, anew when a transfer breaks off."""
    while time.monotonic() < until_ts:
        try:
            with socket.create_connection(("127.0.0.1", socks_port), 10) as sock:
                sock.sendall(b"\x05\x01\x00")
                sock.recv(2)
                sock.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
                if sock.recv(10)[1:2] != b"\x00":
                    time.sleep(0.2)
                    continue
                while time.monotonic() < until_ts and (data := sock.recv(1 << 18)):
                    received.append(len(data))
        except OSError:
            continue


def load(socks_port: int, seconds: float) -> float:
    """Download by eight streams at once; return the mebibytes received."""
    received: list[int] = []
    until_ts = time.monotonic() + seconds
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        threads = [
            threading.Thread(target=download, args=(socks_port, port, until_ts, received))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        listener.shutdown(socket.SHUT_RDWR)
    return sum(received) / 2**20


# ---- figures ------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, exact to the nanosecond (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def stamps(path: Path) -> Iterator[tuple[float, bytes, float]]:
    """Yield stamp, event and tor's own time of each CIRC_BW event of a log."""
    for match in _STAMPED.finditer(path.read_bytes()):
        own = datetime.fromisoformat(match[2].decode()).replace(tzinfo=UTC).timestamp()
        yield float(match[1]), match[0].split(b" ", 3)[3], own


def compare(folder: Path, seconds: float) -> int:
    """Make the network, run both readers in the flood, print the figures."""
    tor = shutil.which("tor", path=f"{os.environ['PATH']}:/usr/sbin") or "tor"
    net = Testnet(folder / "net", tor=tor)
    net.prepare(print)
    socks_port, control_port = free_ports(2)
    (folder / "client").mkdir(mode=0o700)
    cookie = folder / "client" / "cookie"
    settings = TorSettings(
        folder / "client", cookie, control_port, socks_port,
        network_lines=net.client_lines, owner_pid=os.getpid(),
    )  # fmt: skip
    (folder / "torrc").write_text(settings.text())
    try:
        with NetworkWatch(net.relays) as watch, Processes() as processes:
            for relay in net.relays:
                processes.start(relay.name, net.argv(relay), relay.log_path)
            until(lambda: watch.look().is_ready, "the network")
            client = [tor, "-f", str(folder / "torrc"), *NO_DEFAULTS]
            processes.start("client", client, folder / "client.log")
            until(cookie.exists, "the client's cookie")
            until(lambda: is_bootstrapped(control_port, cookie), "the client")
            return measure(folder, control_port, socks_port, cookie, seconds)
    finally:
        net.close()


def is_bootstrapped(port: int, cookie: Path) -> bool:
    """Whether the client is ready."""
    with ControlConnection.connect(ControlAddress(port=port)) as connection:
        connection.authenticate(cookie)
        phase = connection.get_info("status/bootstrap-phase")["status/bootstrap-phase"]
        return "PROGRESS=100" in phase


def measure(folder: Path, port: int, socks_port: int, cookie: Path, seconds: float) -> int:
    """Run both readers in the flood, print the figures, return the exit status."""
    bare_path, our_path = folder / "bare.log", folder / "ours.log"
    # The bare loop connects first: if tor serves its connections in order, that is its advantage.
    bare = subprocess.Popen([sys.executable, __file__, "--bare", str(port), cookie, bare_path])
    until(bare_path.with_suffix(".ready").exists, "the bare loop")
    ours = subprocess.Popen(
        [sys.executable, "-m", "perfmeasure.tor.monitor", "-p", str(port), "--cookie", cookie,
         "-l", our_path, "-e", ",".join(EVENTS)]
    )  # fmt: skip
    until(lambda: our_path.exists() and b"650 BW" in our_path.read_bytes(), "the reader")
    time.sleep(1)
    began, cpu_began, size_began = time.time(), cpu_seconds(ours.pid), our_path.stat().st_size
    mebibytes = load(socks_port, seconds)
    ended = time.time()
    time.sleep(3)  # until tor has told all
    cpu = cpu_seconds(ours.pid) - cpu_began
    for process in (bare, ours):
        process.terminate()
    statuses = [process.wait(60) for process in (bare, ours)]
    with our_path.open("rb") as file:
        file.seek(size_began)
        events = file.read().count(b" 650 ")

    window = (began, ended + 1)
    found = {
        name: [entry for entry in stamps(path) if window[0] <= entry[2] <= window[1]]
        for name, path in (("bare loop", bare_path), ("reader", our_path))
    }
    late = {
        name: np.array([stamp - own for stamp, _, own in entries])
        for name, entries in found.items()
    }
    by_second = Counter(int(own) for _, _, own in found["reader"])
    busiest = sorted(by_second.values(), reverse=True)
    print(
        f"{mebibytes:.0f} MiB in {seconds:.0f} s; {len(found['reader'])} CIRC_BW events, "
        f"median second {np.median(busiest):.0f}, busiest {busiest[0]}"
    )
    failures = [f"exit status {status}" for status in statuses if status]
    if [event for _, event, _ in found["bare loop"]] != [event for _, event, _ in found["reader"]]:
        failures.append(f"events differ: { ({name: len(all_) for name, all_ in found.items()}) }")
    print("lateness against tor's TIME   median ms      99 % ms       max ms")
    for name, values in late.items():
        low, high = np.percentile(values, [50, 99])
        print(f"  {name:26} {low * 1e3:10.3f} {high * 1e3:12.3f} {values.max() * 1e3:12.3f}")
    for percent in (50, 99):
        theirs, mine = (np.percentile(late[name], percent) for name in ("bare loop", "reader"))
        print(f"  ratio at {percent} %: {mine / theirs:.3f} (at most {LATENESS_RATIO})")
        if mine > LATENESS_RATIO * theirs:
            failures.append(f"lateness at {percent} %")
    print(f"processor time: {cpu / events * 1e6:.2f} us an event (at most {CPU_US_AN_EVENT:.0f})")
    if cpu / events * 1e6 > CPU_US_AN_EVENT:
        failures.append("processor time")
    print("MISSED: " + "; ".join(failures) if failures else "all met")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
