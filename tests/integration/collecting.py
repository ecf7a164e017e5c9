"""Runs the collector of kernel connections for a test, and reads its log."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from perfmeasure import jsonio
from perfmeasure.flows.cgroup import MeasurementCgroup, mount_point

LIMIT_SECONDS = 60.0


class Collector:
    """A running collector and the log that it writes."""

    def __init__(self, log: Path, *arguments: str, wrapper: tuple[str, ...] = ()) -> None:
        self.log = log
        argv = [*wrapper, sys.executable, "-m", "perfmeasure.flows.collector", "--log", str(log)]
        began = time.monotonic()
        self.process = subprocess.Popen(
            [*argv, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.until_ready_seconds = time.monotonic() - began
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], LIMIT_SECONDS)[0]:
            self.said = self.process.stdout.readline()
        else:
            self.said = "nothing in time"
        self.until_ready_seconds = time.monotonic() - began

    @property
    def is_ready(self) -> bool:
        """Whether it is attached."""
        return self.said == "READY\n"

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it; return its exit status and what it wrote on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            said = self.process.communicate(timeout=LIMIT_SECONDS)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            said = self.process.communicate()[1]
        return self.process.returncode, said

    def records(self) -> list[dict[str, Any]]:
        """Return all lines of the log so far."""
        return [jsonio.loads(line) for line in self.log.read_bytes().splitlines()]

    def connections(self, state: str = "closed") -> list[dict[str, Any]]:
        """Return the records of connections in a state."""
        return [line for line in self.records() if line.get("state") == state]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            assert self.process.poll() is None, "the collector ended"
            time.sleep(0.05)


def packets_of(windows: Path) -> dict[tuple[str, int, int], tuple[int, ...]]:
    """Return packets, bytes, segments and all TCP flags, by direction and ports."""
    columns = "sum(packets)::BIGINT, sum(bytes)::BIGINT, sum(segments)::BIGINT, bit_or(tcp_flags)"
    rows = (
        duckdb.read_parquet(f"{windows}/*.windows.parquet")
        .filter("protocol = 6")
        .aggregate(f"direction, src_port, dst_port, {columns}")
        .fetchall()
    )
    return {row[:3]: row[3:] for row in rows}


_RESET = 0x04
_LEAST_HEADERS_BYTES = 14 + 20 + 20


def check_packets_of(
    record: dict[str, Any], packets: dict[tuple[str, int, int], tuple[int, ...]], name: str
) -> None:
    """Hold the record of a closed connection against the windows of its packets.

    Args:
        record: a line of the log.
        packets: what `packets_of` found.
        name: of the connection, for messages.
    """
    local, remote = record["local_port"], record["remote_port"]
    none = (0, 0, 0, 0)
    sent = packets.get(("egress", local, remote), none)
    received = packets.get(("ingress", remote, local), none)
    # One that comes while another processor makes or ends the socket may be in the windows alone.
    assert received[2] - record["segments_received"] in {0, 1}, (name, received, record)
    # TCP does not count the SYN/ACK, which the listener sends, nor a reset in answer to a segment.
    more = sent[2] - record["segments_sent"] - (record["side"] == "passive")
    assert more in {0, 1} if sent[3] & _RESET else more == 0, (name, more)
    for way, direction in ((sent, "sent"), (received, "received")):
        payload = record[f"bytes_{direction}"]
        assert way[1] >= payload + _LEAST_HEADERS_BYTES * way[0], (name, direction)


@contextlib.contextmanager
def collecting(log: Path, *arguments: str, wrapper: tuple[str, ...] = ()) -> Iterator[Collector]:
    """Have a collector run that is attached."""
    collector = Collector(log, *arguments, wrapper=wrapper)
    try:
        if not collector.is_ready:
            collector.process.kill()
            raise AssertionError(f"{collector.said!r}: {collector.stop()[1]}")
        yield collector
    finally:
        collector.stop()


@contextlib.contextmanager
def inside_a_cgroup() -> Iterator[Path]:
    """Put this process into a control group of its own for a while; yield its folder."""
    root = mount_point()
    assert root is not None
    own = Path("/proc/self/cgroup").read_text(encoding="ascii").rpartition("0::/")[2].strip()
    group = MeasurementCgroup()
    (group.path / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    try:
        yield group.path
    finally:
        (root / own / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        assert group.remove()
