from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from perfmeasure import jsonio
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


def test_listeners_are_shown_to_the_tap_and_not_written(path: Path, said: list[str]) -> None:
    source = Source()
    seen: list[Record] = []
    fields = {"source": "sockops", "scope": "machine"}
    ours = ConnectionRecorder(source, LogFile(path), 60, fields, said.append, tap=seen.extend)
    listener = Record.unpack(packed(1))
    listener.flags |= Flag.IS_LISTENER
    source.waiting = [listener.pack(), packed(2), packed(3)]
    ours.look()
    assert [record.cookie for record in seen] == [1, 2, 3]
    told = [line["cookie"] for line in lines(path) if line["record"] == "connection"]
    assert told == [2, 3]
