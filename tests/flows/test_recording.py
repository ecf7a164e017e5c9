from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from perfmeasure import jsonio, readychild
from perfmeasure.children import Children
from perfmeasure.config import Flows, MeasureConfig
from perfmeasure.errors import ExitStatus, MissingError
from perfmeasure.flows import recording as recording_module
from perfmeasure.flows.recording import Recording
from perfmeasure.plan import Plan
from perfmeasure.process import ChildProcess
from perfmeasure.progress import Progress
from perfmeasure.supervisor import Supervisor


class Collector(ChildProcess):
    """Stands for the collector: it says what the test has it say."""

    made: list[Collector]

    def _start(self) -> None:
        self.made.append(self)

    def stopService(self) -> Deferred[None]:
        self.running = 0
        return succeed(None)

    def end(self) -> None:
        """End as one that said what it had to say."""
        self._died("ended with status 3")


class Group:
    """Stands for the control group."""

    refusal: MissingError | None = None
    is_left = False
    removed: list[Path]

    def __init__(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.path = Path("/cgroup/ours")

    def remove(self) -> bool:
        self.removed.append(self.path)
        return not self.is_left


class Scene:
    """A recording, its children and what it said."""

    def __init__(self, tmp_path: Path, flows: Flows) -> None:
        self.said: list[str] = []
        self.given_up: list[str] = []
        self.clock = Clock()
        self.config = MeasureConfig(prefix=tmp_path, flows=flows)
        plan = Plan(
            config=self.config, tor=Path("tor"), tgen=None, listen_port=1, connect_port=1,
            socks_port=2, client_control_port=3, server_control_port=4,
        )  # fmt: skip
        supervisor = Supervisor(self.clock, self.said.append)
        supervisor.startService()
        self.children = Children(plan, supervisor, reactor=self.clock, report=self.said.append)
        self.children.on_give_up = self.given_up.append
        progress = Progress()
        progress.warn = self.said.append  # type: ignore[method-assign, assignment] # what people are told
        self.recording = Recording(self.config, self.children, supervisor, progress)

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.recording.start())

    def log(self, name: str = "kernel/connections.log") -> list[dict[str, Any]]:
        lines = (self.config.prefix / name).read_bytes().splitlines()
        return [jsonio.loads(line, name) for line in lines]


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Collector.made = []
    Group.removed = []
    monkeypatch.setattr(readychild, "ChildProcess", Collector)
    monkeypatch.setattr(recording_module, "MeasurementCgroup", Group)
    yield
    Group.refusal, Group.is_left = None, False


def result_of(started: Deferred[None]) -> Any:
    results: list[Any] = []
    started.addBoth(results.append)
    assert results, "it still waits"
    return results[0].value if isinstance(results[0], Failure) else results[0]


def test_children_started_after_it_belong_in_the_group(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Flows.AUTO)
    started = scene.start()
    (collector,) = Collector.made
    words = " ".join(collector.argv)
    assert "-m perfmeasure.flows.collector --cgroup /cgroup/ours" in words
    assert f"--log {tmp_path}/kernel/connections.log --archive {tmp_path}/log_archive" in words
    assert f"--windows {tmp_path}/kernel/windows" in words
    assert scene.children.cgroup is None
    collector.line_received(b"READY")
    assert result_of(started) is None
    assert scene.children.cgroup == Path("/cgroup/ours")
    scene.recording.close()
    assert scene.children.cgroup is None
    assert Group.removed == [Path("/cgroup/ours")]
    assert scene.said == []


def test_turned_off_it_says_so_in_the_log(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Flows.OFF)
    assert result_of(scene.start()) is None
    (line,) = scene.log()
    assert (line["record"], line["reason"]) == ("absent", "turned off (--flows off)")
    assert isinstance(line["unix_ts"], float)
    assert scene.log("services/services.log") == [line]
    assert Collector.made == []
    assert scene.children.cgroup is None


def test_what_the_machine_lacks_is_the_reason_and_the_measurement_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Group.refusal = MissingError("cgroup v2", "not mounted", next_step="mount it")
    scene = Scene(tmp_path, Flows.AUTO)
    started = scene.start()
    (poller,) = Collector.made
    poller.line_received(b"READY")
    assert result_of(started) is None
    assert scene.log()[0]["reason"] == "cgroup v2: not mounted. Mount it"
    assert "not recorded: cgroup v2: not mounted. Mount it" in capsys.readouterr().err
    assert scene.children.cgroup is None
    words = " ".join(poller.argv)
    assert f"-m perfmeasure.topology.poller --prefix {tmp_path} --instance-id " in words
    assert scene.said == []
    for _ in range(6):
        poller.end()
        scene.clock.advance(61)
    assert "services are told of no more: services ended with status 3" in scene.said[-1]
    (line,) = scene.log("services/services.log")
    assert line["reason"].startswith("from here on: services ended")


def test_what_the_collector_lacks_is_told_in_its_words(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Flows.AUTO)
    started = scene.start()
    (collector,) = Collector.made
    collector.line_received(b"perfmeasure: kernel headers: none for 6.18. apt-get install some")
    collector.end()
    Collector.made[1].line_received(b"READY")
    assert result_of(started) is None
    assert scene.log()[0]["reason"] == "kernel headers: none for 6.18. apt-get install some"
    assert Group.removed == [Path("/cgroup/ours")]
    assert scene.children.cgroup is None


def test_asked_for_it_is_an_error(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Flows.ON)
    started = scene.start()
    Collector.made[0].line_received(b"perfmeasure: BPF right: refused. Run as root")
    Collector.made[0].end()
    error = result_of(started)
    assert isinstance(error, MissingError)
    assert str(error) == "BPF right: refused. Run as root"
    assert not (tmp_path / "kernel").exists()


def test_a_collector_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Flows.AUTO)
    started = scene.start()
    (collector,) = Collector.made
    signals: list[int] = []
    collector.signal = signals.append  # type: ignore[method-assign, assignment] # there is no process
    scene.clock.advance(61)
    assert signals == [9]
    collector.end()
    Collector.made[1].line_received(b"READY")
    assert result_of(started) is None
    assert scene.log()[0]["reason"] == "flows: not ready in 60 s"


def test_services_that_cannot_be_polled_are_no_end_either(tmp_path: Path) -> None:
    Group.refusal = MissingError("cgroup v2", "not mounted")
    scene = Scene(tmp_path, Flows.AUTO)
    started = scene.start()
    (poller,) = Collector.made
    poller.line_received(b"perfmeasure: sock_diag: the kernel lists no sockets")
    poller.end()
    assert result_of(started) is None
    (line,) = scene.log("services/services.log")
    assert line["reason"] == "from here on: sock_diag: the kernel lists no sockets"


@pytest.mark.parametrize("flows", [Flows.AUTO, Flows.ON])
def test_one_that_dies_later_is_started_again_and_given_up_at_last(
    tmp_path: Path, flows: Flows
) -> None:
    scene = Scene(tmp_path, flows)
    started = scene.start()
    (collector,) = Collector.made
    collector.line_received(b"READY")
    result_of(started)
    for _ in range(5):
        collector.end()
        scene.clock.advance(61)
        collector.line_received(b"READY")
    assert len(Collector.made) == 6
    collector.line_received(b"something it has to say")
    assert scene.said[-1] == "something it has to say"
    collector.end()
    if flows is Flows.ON:
        assert "given up after 6 deaths" in scene.given_up[0]
    else:
        assert scene.given_up == []
        assert "connections and packets are recorded no more" in scene.said[-1]
        (line,) = scene.log()
        assert line["reason"].startswith("from here on: flows ended with status 3")


def test_one_that_fails_is_not_started_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Flows.AUTO)
    started = scene.start()
    (collector,) = Collector.made
    collector.line_received(b"READY")
    result_of(started)
    collector.line_received(b"perfmeasure: window of noon: packets are not accounted for")
    collector.process_ended(Failure(ProcessTerminated(ExitStatus.FAILED)))
    scene.clock.advance(100)
    assert Collector.made == [collector]
    assert "recorded no more: flows ended with status 1" in scene.said[-1]
    assert "window of noon: packets are not accounted for" in scene.said[-1]


def test_a_group_that_cannot_be_removed_is_said(tmp_path: Path) -> None:
    Group.is_left = True
    scene = Scene(tmp_path, Flows.AUTO)
    started = scene.start()
    Collector.made[0].line_received(b"READY")
    result_of(started)
    scene.recording.close()
    assert scene.said == ["/cgroup/ours: not removed, for a process is still in it"]
