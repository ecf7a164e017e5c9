from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import selectreactor
from twisted.internet.defer import Deferred
from twisted.internet.process import reapAllProcesses

from perfmeasure.logfile import LogFile
from perfmeasure.process import ChildProcess, RestartPolicy

QUICK = RestartPolicy(first_pause_seconds=0.02, longest_pause_seconds=0.05, deaths_allowed=2)
LIMIT_SECONDS = 20


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def lines_of(path: Path) -> list[str]:
    return [line.split(" ", 3)[3] for line in path.read_text().splitlines()]


class Run:
    """Runs one child under a real reactor until something has happened."""

    def __init__(self, reactor: Any, tmp_path: Path) -> None:
        self.reactor = reactor
        self.path = tmp_path / "child" / "perfmeasure.log"
        self.said: list[str] = []
        self.ends: list[str | None] = []

    def child(self, code: str, **kwargs: Any) -> ChildProcess:
        kwargs.setdefault("log", LogFile(self.path))
        return ChildProcess(
            "child",
            python(code),
            reactor=self.reactor,
            report=self.said.append,
            on_end=self.ends.append,
            policy=QUICK,
            **kwargs,
        )

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < end, f"nothing in {LIMIT_SECONDS} s; said {self.said}"
            self.reactor.iterate(0.01)
            # The reactor is not running, so that nobody else answers SIGCHLD.
            reapAllProcesses()

    def stop(self, child: ChildProcess) -> None:
        ended: list[None] = []
        stopped: Deferred[None] = child.stopService()
        stopped.addCallback(ended.append)
        self.until(lambda: bool(ended))


@pytest.fixture
def run(reactor: Any, tmp_path: Path) -> Run:
    return Run(reactor, tmp_path)


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    reactor = selectreactor.SelectReactor()
    yield reactor
    reactor.removeAll()


def test_lines_of_both_outputs_are_stamped_and_logged(run: Run) -> None:
    before = time.time()
    child = run.child(
        "import sys; print('out'); sys.stderr.write('err\\n'); print('cut', end='')", is_once=True
    )
    child.startService()
    run.until(lambda: bool(run.ends))
    assert run.ends == [None]
    assert sorted(lines_of(run.path)) == ["cut", "err", "out"]
    for line in run.path.read_text().splitlines():
        assert before <= float(line.split()[2]) <= time.time()


def test_stamped_lines_are_logged_as_they_are(run: Run) -> None:
    child = run.child(
        "print('2026-11-22 00:00:00 1795305600.000001 [info] x')", is_stamped=True, is_once=True
    )
    child.startService()
    run.until(lambda: bool(run.ends))
    assert run.path.read_text() == "2026-11-22 00:00:00 1795305600.000001 [info] x\n"


def test_a_child_that_is_killed_is_started_again_and_the_log_goes_on(run: Run) -> None:
    child = run.child("import time; print('up'); time.sleep(60)")
    child.startService()
    run.until(lambda: lines_of(run.path) == ["up"])
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    run.until(lambda: lines_of(run.path) == ["up", "up"])
    assert child.pid not in (None, first)
    assert child.restarts == 1
    assert run.said == ["child was killed by SIGKILL; starting it again in 0 s"]
    run.stop(child)
    assert child.pid is None
    assert run.ends == []


def test_too_many_deaths_and_it_is_given_up_with_its_last_words(run: Run) -> None:
    child = run.child("print('cannot go on'); raise SystemExit(7)")
    child.startService()
    run.until(lambda: bool(run.ends))
    (why,) = run.ends
    assert why is not None
    assert "ended with status 7 and was given up after 3 deaths" in why
    assert "cannot go on" in why
    assert len(run.said) == QUICK.deaths_allowed


def test_a_child_that_does_no_work_is_killed_and_started_again(run: Run) -> None:
    child = run.child("import time; print('up'); time.sleep(60)", idle_limit_seconds=0.3)
    child.startService()
    run.until(lambda: len(lines_of(run.path)) == 1)
    child.check_work()
    assert child.restarts == 0

    def restarted() -> bool:
        child.check_work()
        return child.restarts == 1

    run.until(restarted)
    assert "has done no work for" in run.said[0]
    run.stop(child)


def test_a_child_that_ignores_sigterm_is_killed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(60)"
    child = run.child(code)
    child.startService()
    run.until(lambda: lines_of(run.path) == ["up"])
    later = run.reactor.callLater
    monkeypatch.setattr(run.reactor, "callLater", lambda _s, f, *a: later(0.1, f, *a))
    run.stop(child)
    assert child.pid is None


def test_lines_that_cannot_be_written_are_counted_and_said_once(run: Run) -> None:
    class Full(LogFile):
        refuses = 2

        def write(self, entry: bytes, unix_ts: float) -> None:
            if self.refuses:
                self.refuses -= 1
                raise OSError(28, "No space left on device")
            super().write(entry, unix_ts)

    child = run.child("print('a'); print('b'); print('c')", is_once=True, log=Full(run.path))
    child.startService()
    run.until(lambda: bool(run.ends))
    assert lines_of(run.path) == ["c"]
    assert len(run.said) == 2
    assert "No space left on device" in run.said[0]
    assert "2 lines were lost" in run.said[1]


def test_the_last_lines_and_every_line_are_seen(run: Run) -> None:
    seen: list[bytes] = []
    child = run.child("for i in range(100): print(i)", is_once=True, on_line=seen.append)
    child.startService()
    run.until(lambda: bool(run.ends))
    assert seen == [str(i).encode() for i in range(100)]
    assert list(child.last_lines) == [b"95", b"96", b"97", b"98", b"99"]


def test_a_start_that_fails_is_a_death_like_any_other(run: Run) -> None:
    starts: list[bool] = []

    def before_start() -> None:
        starts.append(True)
        if len(starts) == 2:
            raise OSError(28, "No space left on device")

    child = run.child("import time; print('up'); time.sleep(60)", before_start=before_start)
    child.startService()
    run.until(lambda: lines_of(run.path) == ["up"])
    child.signal(signal.SIGKILL)
    run.until(lambda: lines_of(run.path) == ["up", "up"])
    assert len(starts) == 3
    assert "could not be started ([Errno 28] No space left on device)" in run.said[1]
    run.stop(child)
