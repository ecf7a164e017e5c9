from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from perfmeasure import clock, jsonio
from perfmeasure.clock import ClockPair
from perfmeasure.flows import connection_log
from perfmeasure.flows.connection_log import ConnectionRecorder
from perfmeasure.flows.connections import Flag, Record
from perfmeasure.logfile import LogFile


class Source:
    """A kernel that has what a test puts in."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.snapshots: list[bool] = []
        self.failures = {"ring_reservations": 0, "storage": 0}

    def read(self) -> list[bytes]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def snapshot(self, *, with_idle: bool = False) -> None:
        self.snapshots.append(with_idle)

    def lost(self) -> dict[str, int]:
        return dict(self.failures)


def packed(cookie: int) -> bytes:
    record = Record(cookie=cookie, flags=Flag.IS_CLOSED, family=2, local_address=bytes(16),
                    remote_address=bytes(16))  # fmt: skip
    return record.pack()


def lines(path: Path) -> list[dict[str, Any]]:
    return [jsonio.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kernel" / "connections.log"


@pytest.fixture
def said() -> list[str]:
    return []


def recorder(
    source: Source, log: LogFile, said: list[str], every: float = 60
) -> ConnectionRecorder:
    fields = {"source": "sockops", "scope": "machine"}
    return ConnectionRecorder(source, log, every, fields, said.append)


def test_the_log_begins_goes_on_and_ends(path: Path, said: list[str]) -> None:
    source = Source()
    ours = recorder(source, LogFile(path), said)
    source.waiting = [packed(1), packed(2)]
    ours.look()
    ours.stop("SIGTERM")
    start, pair, first, second, stop = lines(path)
    assert list(start)[:2] == ["record", "unix_ts"]
    assert start["program"] == "perfmeasure-connections"
    assert (start["source"], start["scope"], start["snapshot_seconds"]) == (
        "sockops", "machine", 60,
    )  # fmt: skip
    assert re.fullmatch(r"[0-9a-f-]{36}", start["boot_id"])
    assert (pair["record"], pair["reason"]) == ("clock", "start")
    assert abs(pair["utc_ns"] / 1e9 - pair["unix_ts"]) < 1
    assert (first["cookie"], second["cookie"]) == (1, 2)
    assert (stop["record"], stop["reason"]) == ("stop", "SIGTERM")
    assert source.snapshots == [True]
    assert said == []


def test_snapshots_come_once_a_window(path: Path, said: list[str]) -> None:
    source = Source()
    ours = recorder(source, LogFile(path), said, every=0.1)
    end = time.monotonic() + 0.55
    while time.monotonic() < end:
        ours.look()
        time.sleep(0.01)
    assert 2 <= len(source.snapshots) <= 5
    assert set(source.snapshots) == {False}


def test_what_was_lost_is_told_once(
    path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_log, "_HOUSEKEEPING_SECONDS", 0.0)
    source = Source()
    ours = recorder(source, LogFile(path), said)
    source.failures["storage"] = 3
    ours.look()
    ours.look()
    source.failures["storage"] = 5
    source.failures["ring_reservations"] = 1
    ours.look()
    told = [(line["what"], line["count"]) for line in lines(path) if line["record"] == "lost"]
    assert told == [("storage", 3), ("ring_reservations", 1), ("storage", 2)]


def test_a_step_of_the_clock_is_told(
    path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_log, "_HOUSEKEEPING_SECONDS", 0.0)
    ours = recorder(Source(), LogFile(path), said)
    pair = clock.read_pair()
    stepped = ClockPair(pair.utc_ns + 5_000_000, pair.monotonic_ns)
    monkeypatch.setattr(connection_log, "read_pair", lambda: stepped)
    ours.look()
    ours.look()
    assert [line["reason"] for line in lines(path) if line["record"] == "clock"] == [
        "start", "step",
    ]  # fmt: skip


def test_a_full_disk_is_reported_and_counted(path: Path, said: list[str]) -> None:
    source = Source()
    log = LogFile(path)
    ours = recorder(source, log, said)
    working, log._fd = log._fd, os.open("/dev/full", os.O_WRONLY)
    source.waiting = [packed(1), packed(2)]
    ours.look()
    source.waiting = [packed(3)]
    ours.look()
    os.close(log._fd)
    log._fd = working
    source.waiting = [packed(4)]
    ours.look()
    assert len(said) == 2
    assert "records are being lost" in said[0]
    assert "3 lines were lost" in said[1]
    *_, fourth, lost = lines(path)
    assert fourth["cookie"] == 4
    assert (lost["record"], lost["what"], lost["count"]) == ("lost", "lines", 3)


def test_the_log_rotates_under_the_name_of_the_program(
    path: Path, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "log_archive"
    midnight = 1_795_305_600.0
    monkeypatch.setattr(connection_log, "_now", lambda: midnight - 1)
    source = Source()
    ours = recorder(source, LogFile(path, archive), said)
    monkeypatch.setattr(connection_log, "_now", lambda: midnight + 1)
    source.waiting = [packed(1)]
    ours.look()
    (archived,) = archive.rglob("*.log")
    assert archived.relative_to(archive).as_posix() == (
        "2026-11-21/kernel/perfmeasure_2026-11-21_23:59:59.connections.log"
    )
    assert [line["record"] for line in lines(archived)] == ["start", "clock"]
    # A collector that starts again finds the period of the file from the lines in it.
    LogFile(path, archive).write(b"{}\n", midnight + 86400)
    assert len(list(archive.rglob("*.log"))) == 2
