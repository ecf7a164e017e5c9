from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from perfmeasure.config import MeasureConfig, Network
from perfmeasure.errors import MeasurementError
from perfmeasure.publication import Publication, days_to_publish

NOON = 1_795_348_800.0  # 2026-11-22 12:00:00 UTC


class Publisher:
    """Stands for the publisher's process: what it is asked for is kept, and takes ``seconds``."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[list[str]] = []
        self.seconds = 0.5
        self.outcome: tuple[bytes, bytes, int] = (b'{"written": []}\n', b"", 0)

    def spawn(self, protocol: Any, _program: str, argv: list[str], **_settings: Any) -> None:
        self.asked.append(argv)
        self.clock.advance(self.seconds)
        output, problem, status = self.outcome
        protocol.childDataReceived(1, output)
        protocol.childDataReceived(2, problem)
        end = ProcessTerminated(status) if status else ProcessDone(0)
        protocol.processEnded(Failure(end))

    def dates(self) -> list[str]:
        return [argv[argv.index("--date") + 1] for argv in self.asked]


class Fixture:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.began = self.clock.seconds()
        self.now = NOON
        self.said: list[str] = []
        self.publisher = Publisher(self.clock)
        monkeypatch.setattr(time, "time", lambda: self.now + self.clock.seconds())
        monkeypatch.setattr(self.clock, "spawnProcess", self.publisher.spawn, raising=False)
        self.config = MeasureConfig(
            prefix=tmp_path, network=Network.TESTNET, nickname="host", rotate_every_seconds=60
        )
        self.publication = Publication(self.config, reactor=self.clock, report=self.said.append)

    def pass_seconds(self, seconds: int) -> None:
        self.clock.pump([1] * seconds)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(tmp_path, monkeypatch)


def test_it_publishes_soon_and_then_only_when_there_is_news(run: Fixture) -> None:
    run.publication.start()
    run.pass_seconds(6)
    assert run.publisher.dates() == ["2026-11-22"]
    assert "--unfinished" in run.publisher.asked[0], "the day goes on"
    run.pass_seconds(30)
    assert len(run.publisher.asked) == 1
    run.publication.mark_news()
    run.pass_seconds(2)
    assert len(run.publisher.asked) == 2
    run.publication.stop()


def test_a_long_publication_is_followed_by_a_long_pause(run: Fixture) -> None:
    run.publisher.seconds = 3
    run.publication.start()
    run.pass_seconds(6)
    run.publication.mark_news()
    run.pass_seconds(40)
    assert len(run.publisher.asked) == 1
    run.pass_seconds(30)
    assert len(run.publisher.asked) >= 2


def test_after_a_rotation_the_day_of_the_ended_period_is_published(run: Fixture) -> None:
    run.now = NOON + 43_200 - 2  # two seconds before midnight
    run.publication = Publication(run.config, reactor=run.clock, report=run.said.append)
    run.publication.start()
    run.pass_seconds(25)
    assert "2026-11-22" in run.publisher.dates()
    (argv,) = [argv for argv in run.publisher.asked if "2026-11-22" in argv]
    assert "--unfinished" not in argv


def test_a_failure_is_said_and_does_not_end_the_publishing(run: Fixture) -> None:
    run.publisher.outcome = (b"", b"perfmeasure: docroot: the disk is full\n", 1)
    run.publication.start()
    run.pass_seconds(6)
    assert run.said == ["publishing 2026-11-22: docroot: the disk is full; trying again in 60 s"]
    run.publisher.outcome = (b"{}\n", b"", 0)
    run.pass_seconds(50)
    assert len(run.publisher.asked) == 1
    run.pass_seconds(11)
    assert len(run.publisher.asked) >= 2
    assert len(run.said) == 1


def test_a_day_whose_logs_are_of_no_use_is_not_tried_for_ever(run: Fixture) -> None:
    run.publisher.outcome = (b"", b"perfmeasure: log_archive: no log\n", 4)
    run.publication.start()
    run.pass_seconds(40)
    assert run.said == ["publishing 2026-11-22: log_archive: no log"]


def test_the_last_publication_asks_for_the_summary_of_this_run(run: Fixture) -> None:
    done = ensureDeferred(run.publication.publish("2026-11-22", since_unix_ts=5.25))
    results: list[Any] = []
    done.addCallback(results.append)
    assert results == [{"written": []}]
    (argv,) = run.publisher.asked
    assert argv[argv.index("--since") + 1] == "5.250000"
    assert argv[argv.index("--nickname") + 1] == "host"
    assert argv[argv.index("--address") + 1] == "127.0.0.1"
    assert sys.executable in argv
    assert "--unfinished" not in argv


@pytest.mark.parametrize("is_asked", [False, True])
def test_circuits_are_marked_only_if_that_was_asked(run: Fixture, is_asked: bool) -> None:
    # OnionPerf's B1: its options arrived one place off, so that each night's analysis left out
    # circuits that nobody had asked it to. Here each has its name.
    config = dataclasses.replace(run.config, exclude_cbt=is_asked)
    publication = Publication(config, reactor=run.clock, report=run.said.append)
    ensureDeferred(publication.publish("2026-11-22"))
    [argv] = run.publisher.asked
    assert ("--exclude-cbt" in argv) == is_asked
    assert run.said == []


def test_packets_are_published_only_if_that_was_asked(run: Fixture) -> None:
    ensureDeferred(run.publication.publish("2026-11-22"))
    config = dataclasses.replace(run.config, publish_packets=True, record_budget="3 MiB")
    publication = Publication(config, reactor=run.clock, report=run.said.append)
    ensureDeferred(publication.publish("2026-11-22"))
    without, asked = run.publisher.asked
    assert "--packets-budget" not in without
    assert asked[asked.index("--packets-budget") + 1] == str(3 * 2**20)


def test_a_publisher_that_says_nothing_is_an_error_with_its_status(run: Fixture) -> None:
    run.publisher.outcome = (b"", b"", 9)
    failures: list[Any] = []
    ensureDeferred(run.publication.publish("2026-11-22")).addErrback(failures.append)
    assert isinstance(failures[0].value, MeasurementError)
    assert "ended with status 9" in str(failures[0].value)


def test_days_that_an_earlier_run_left_unpublished_are_found(tmp_path: Path) -> None:
    archive, docroot = tmp_path / "log_archive", tmp_path / "docroot"
    docroot.mkdir()
    for day in ("2026-11-20", "2026-11-21", "not-a-day"):
        folder = archive / day / "tgen-client"
        folder.mkdir(parents=True)
        (folder / "perfmeasure_x.tgen.log.gz").touch()
    (archive / "2026-11-19").mkdir()
    database = docroot / "2026-11-20.perfmeasure.analysis.json.xz"
    database.touch()
    os.utime(database, (2e9, 2e9))
    assert days_to_publish(archive, docroot) == {"2026-11-21"}
    os.utime(database, (1e9, 1e9))
    assert days_to_publish(archive, docroot) == {"2026-11-20", "2026-11-21"}
    assert days_to_publish(tmp_path / "none", docroot) == set()


def test_the_page_is_there_before_anything_is_published(tmp_path: Path) -> None:
    config = MeasureConfig(prefix=tmp_path, network=Network.TESTNET)
    Publication(config, reactor=Clock(), report=print).show_page()
    assert "<h1" in (config.docroot / "index.html").read_text()
    assert (config.docroot / "bokeh.min.js.gz").exists()
    (tmp_path / "file").write_bytes(b"")
    lost = MeasureConfig(prefix=tmp_path / "file", network=Network.TESTNET)
    with pytest.raises(MeasurementError, match="cannot be published"):
        Publication(lost, reactor=Clock(), report=print).show_page()
