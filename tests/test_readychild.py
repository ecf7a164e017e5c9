from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from twisted.internet import selectreactor
from twisted.internet.defer import Deferred
from twisted.internet.process import reapAllProcesses
from twisted.python.failure import Failure

from perfmeasure.errors import ExitStatus, MissingError
from perfmeasure.readychild import ReadyChild
from perfmeasure.supervisor import Supervisor


class Scene:
    """A child that is a few lines of Python, and what was said of it."""

    def __init__(self, reactor: Any, code: str, **options: Any) -> None:
        self.said: list[str] = []
        self.given_up: list[str] = []
        self.taken: list[bytes] = []
        self.reactor = reactor
        self.supervisor = Supervisor(reactor, self.said.append)
        self.supervisor.startService()
        self.child = ReadyChild(
            "recorder",
            [sys.executable, "-u", "-c", code],
            self.supervisor,
            report=self.said.append,
            on_give_up=self.given_up.append,
            take=self.take,
            **options,
        )

    def take(self, line: bytes) -> bool:
        if line.startswith(b"HEALTH"):
            self.taken.append(line)
            return True
        return False

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, (self.said, self.given_up)
            self.reactor.iterate(0.02)
            # The reactor is not running, so that nobody else answers SIGCHLD.
            reapAllProcesses()

    def start(self) -> None:
        self._wait(self.child.start())

    def stop(self) -> None:
        self._wait(self.supervisor.stop_all())

    def _wait(self, coroutine: Coroutine[Any, Any, None]) -> None:
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        self.until(lambda: results)
        if isinstance(results[0], Failure):
            results[0].raiseException()


@pytest.fixture
def reactor() -> Iterator[Any]:
    made = selectreactor.SelectReactor()
    yield made
    made.removeAll()


def test_it_is_waited_for_and_its_lines_are_sorted(reactor: Any) -> None:
    code = "import time; print('READY'); print('HEALTH fine'); print('news'); time.sleep(60)"
    scene = Scene(reactor, code)
    try:
        scene.start()
        scene.until(lambda: scene.said)
        assert (scene.taken, scene.said) == ([b"HEALTH fine"], ["news"])
    finally:
        scene.stop()
    assert scene.given_up == []


def test_what_it_says_before_it_ends_is_what_is_missing(reactor: Any) -> None:
    code = "import sys; print('perfmeasure: disk: full', file=sys.stderr); sys.exit(3)"
    scene = Scene(reactor, code)
    with pytest.raises(MissingError, match=r"^disk: full$"):
        scene.start()
    assert scene.supervisor.children == []
    scene = Scene(reactor, "raise SystemExit(7)")
    with pytest.raises(MissingError, match=r"^recorder ended with status 7 "):
        scene.start()
    assert scene.given_up == []


def test_one_that_dies_later_is_started_again(reactor: Any) -> None:
    scene = Scene(reactor, "import time; print('READY'); time.sleep(0.1)")
    try:
        scene.start()
        (child,) = scene.supervisor.children
        scene.until(lambda: child.restarts == 1)
        assert scene.said == ["recorder ended with status 0; starting it again in 1 s"]
    finally:
        scene.stop()


def test_one_that_fails_for_good_is_not(reactor: Any) -> None:
    code = "import time; print('READY'); time.sleep(0.1); raise SystemExit(1)"
    scene = Scene(reactor, code, final_status=ExitStatus.FAILED)
    try:
        scene.start()
        scene.until(lambda: scene.given_up)
        assert "ended with status 1" in scene.given_up[0]
    finally:
        scene.stop()
