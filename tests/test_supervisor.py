from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock

from perfmeasure.logfile import LogFile
from perfmeasure.process import ChildProcess
from perfmeasure.supervisor import Supervisor


class Child(ChildProcess):
    """Stands for a program: what the supervisor asks of it is noted in ``asked``."""

    asked: list[str]
    stopping: Deferred[None]

    def startService(self) -> None:
        self.asked.append(f"start {self.name}")
        self.stopping = Deferred()

    def stopService(self) -> Deferred[None]:
        self.asked.append(f"stop {self.name}")
        return self.stopping

    def check_work(self) -> None:
        self.asked.append(f"check {self.name}")


def supervisor_of(
    names: str, clock: Clock, **kwargs: Any
) -> tuple[Supervisor, list[Child], list[str]]:
    asked: list[str] = []
    supervisor = Supervisor(clock, asked.append)
    supervisor.startService()
    children = []
    for name in names:
        child = Child(name, [], reactor=clock, report=asked.append, **kwargs)
        child.asked = asked
        supervisor.keep(child)
        children.append(child)
    return supervisor, children, asked


def test_children_stop_one_after_the_other_the_last_started_first() -> None:
    supervisor, children, asked = supervisor_of("abc", Clock())
    done = ensureDeferred(supervisor.stop_all())
    for child in reversed(children):
        assert asked[-1] == f"stop {child.name}"
        assert not done.called
        child.stopping.callback(None)
    assert done.called
    assert asked == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert supervisor.children == []


def test_all_are_looked_at_each_second_until_the_end() -> None:
    clock = Clock()
    supervisor, (child,), asked = supervisor_of("a", clock)
    clock.pump([1, 1, 1])
    assert asked.count("check a") == 3
    child.stopping = succeed(None)
    ensureDeferred(supervisor.stop_all())
    clock.pump([1, 1])
    assert asked.count("check a") == 3


def test_logs_of_quiet_children_rotate(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "tor-client" / "perfmeasure.tor.log"
    log = LogFile(path, tmp_path / "log_archive")
    log.write(b"1970-01-02 00:00:00 86400.000000 x\n", 86400)
    supervisor_of("a", clock, log=log)
    clock.advance(1)
    log.close()
    assert [archive.name for archive in tmp_path.rglob("*_*.log")] == [
        "perfmeasure_1970-01-02_23:59:59.tor.log"
    ]


def test_a_log_that_cannot_rotate_is_said_once_and_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "tor-client" / "perfmeasure.tor.log"
    (tmp_path / "log_archive").touch()
    log = LogFile(path, tmp_path / "log_archive")
    log.write(b"1970-01-02 00:00:00 86400.000000 x\n", 86400)
    _, _, asked = supervisor_of("a", clock, log=log)
    clock.pump([1, 1, 1])
    log.write(b"1970-01-03 00:00:00 172800.000000 y\n", 172800)
    log.close()
    assert [text for text in asked if "cannot be rotated (" in text] == [
        f"{path}: cannot be rotated (Not a directory)"
    ]
    assert path.read_bytes().count(b"\n") == 2


def test_children_are_not_blamed_when_the_harness_stood_still() -> None:
    clock = Clock()
    _, (child,), _ = supervisor_of("a", clock)
    clock.advance(1)
    assert child._last_work == 0
    clock.advance(200)
    assert child._last_work == 201
