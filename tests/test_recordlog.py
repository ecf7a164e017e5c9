from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from perfmeasure import clock, jsonio, recordlog
from perfmeasure.clock import ClockPair
from perfmeasure.logfile import LogFile
from perfmeasure.recordlog import Lines, RecordLog, now, start_line

_MIDNIGHT = 1_795_305_600.0


def lines(path: Path) -> list[dict[str, Any]]:
    return [jsonio.loads(line) for line in path.read_bytes().splitlines()]


def record(number: int, unix_ts: float | None = None) -> dict[str, Any]:
    return {"record": "number", "unix_ts": unix_ts or now(), "number": number}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kernel" / "numbers.log"


@pytest.fixture
def said() -> list[str]:
    return []


def test_a_start_names_the_program_and_the_boot() -> None:
    start = start_line("perfmeasure-numbers", source="here")
    assert list(start)[:2] == ["record", "unix_ts"]
    assert (start["program"], start["source"]) == ("perfmeasure-numbers", "here")
    assert re.fullmatch(r"[0-9a-f-]{36}", start["boot_id"])


def test_a_step_of_the_clock_is_told(
    path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RecordLog(LogFile(path), said.append)
    log.keep_house({})
    pair = clock.read_pair()
    stepped = ClockPair(pair.utc_ns + 5_000_000, pair.monotonic_ns)
    monkeypatch.setattr(recordlog, "read_pair", lambda: stepped)
    log.keep_house({})
    log.keep_house({})
    assert [line["reason"] for line in lines(path)] == ["start", "step"]


def test_losses_are_told_once(path: Path, said: list[str]) -> None:
    log = RecordLog(LogFile(path), said.append)
    for lost in ({"a": 0, "b": 2}, {"a": 0, "b": 2}, {"a": 1, "b": 5}):
        log.keep_house(lost)
    told = [(line["what"], line["count"]) for line in lines(path) if line["record"] == "lost"]
    assert told == [("b", 2), ("a", 1), ("b", 3)]


def test_a_full_disk_is_reported_and_counted(path: Path, said: list[str]) -> None:
    file = LogFile(path)
    log = RecordLog(file, said.append)
    working, file._fd = file._fd, os.open("/dev/full", os.O_WRONLY)
    log.write([record(1), record(2)])
    log.write([record(3)])
    os.close(file._fd)
    file._fd = working
    log.write([record(4)])
    assert len(said) == 2
    assert "records are being lost" in said[0]
    assert "3 lines were lost" in said[1]
    fourth, lost = lines(path)
    assert fourth["number"] == 4
    assert (lost["record"], lost["what"], lost["count"]) == ("lost", "lines", 3)


def test_every_file_begins_with_the_head(
    path: Path, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "log_archive"
    moment = _MIDNIGHT - 1
    monkeypatch.setattr(recordlog, "now", lambda: moment)

    def head() -> Lines:
        return [{"record": "head", "unix_ts": moment}]

    log = RecordLog(LogFile(path, archive), said.append, head)
    log.write([record(1, moment)])
    moment = _MIDNIGHT + 1
    log.keep_house({})
    log.write([record(2, moment)])
    log.stop("SIGTERM")
    (archived,) = archive.rglob("*.log")
    assert archived.name == "perfmeasure_2026-11-21_23:59:59.numbers.log"
    assert [line["record"] for line in lines(archived)] == ["head", "number"]
    assert [line["record"] for line in lines(path)] == ["head", "clock", "number", "stop"]
    # A program that goes on with a file says who it is.
    RecordLog(LogFile(path, archive), said.append, head)
    assert lines(path)[-1]["record"] == "head"
    assert said == []
