from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from perfmeasure import children as children_module
from perfmeasure.children import Children
from perfmeasure.config import MeasureConfig, Network
from perfmeasure.errors import ControlError
from perfmeasure.plan import Plan
from perfmeasure.process import ChildProcess
from perfmeasure.supervisor import Supervisor
from perfmeasure.tgen.model import client_model


class Child(ChildProcess):
    """A child that is only noted, not run."""

    started: list[Child]

    def _start(self) -> None:
        self._before_start()
        self.mark_work()
        self.started.append(self)

    def stopService(self) -> Deferred[None]:
        self.running = 0
        return succeed(None)


class Tor:
    """Stands for the connection to a tor: it answers or it does not."""

    answers = True

    async def bootstrap_phase(self) -> None:
        if not self.answers:
            raise ControlError("tor", "does not answer")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    Child.started = []
    monkeypatch.setattr(children_module, "ChildProcess", Child)
    monkeypatch.setattr(children_module, "TorController", lambda *_a, **_k: Tor())
    return Child.started


@pytest.fixture
def children(tmp_path: Path, clock: Clock, started: list[Child]) -> Children:
    del started
    config = MeasureConfig(
        prefix=tmp_path, network=Network.TESTNET, nickname="host", events=("CIRC_BW",)
    )
    plan = Plan(
        config=config, tor=Path("/usr/sbin/tor"), tgen=None, listen_port=1, connect_port=1,
        socks_port=2, client_control_port=3, server_control_port=4,
    )  # fmt: skip
    supervisor = Supervisor(clock, lambda _text: None)
    supervisor.startService()
    return Children(plan, supervisor, reactor=clock, report=lambda _text: None)


def named(started: list[Child], name: str) -> Child:
    return next(child for child in started if child.name == name)


def test_every_child_has_its_program_and_its_log(
    children: Children, started: list[Child], tmp_path: Path
) -> None:
    children.start_tgen_server()
    children.start_tor("tor-client")
    children.start_monitor("tor-client")
    assert [child.name for child in started] == ["tgen-server", "tor-client", "monitor tor-client"]
    server, tor, monitor = started
    assert server.log is not None
    assert server.log.path == tmp_path / "tgen-server" / "perfmeasure.tgen.log"
    assert (tmp_path / "tgen-server" / "tgen.graphml.xml").exists()
    assert tor.argv[0] == "/usr/sbin/tor"
    assert tor.log is not None
    assert tor.log.path == tmp_path / "tor-client" / "perfmeasure.tor.log"
    command = " ".join(monitor.argv)
    assert "--control 127.0.0.1:3" in command
    assert f"--log {tmp_path}/tor-client/perfmeasure.torctl.log" in command
    assert "--rotate-every 86400 seconds" in command
    assert command.endswith("CIRC_BW")


def test_the_clients_model_is_written_anew_at_each_start(
    children: Children, started: list[Child], tmp_path: Path
) -> None:
    left = [3, 2]

    def graph() -> nx.DiGraph[str]:
        return client_model(
            {"exit": "127.0.0.1:1"}, socks="127.0.0.1:2", size=1024,
            initial_pause_seconds=0, pause_seconds=1, num_streams=left.pop(0),
        )  # fmt: skip

    children.start_tgen_client(
        graph, on_line=lambda _line: False, on_end=lambda _why: None, is_once=True
    )
    client = named(started, "tgen-client")
    path = tmp_path / "tgen-client" / "tgen.graphml.xml"
    assert ">3<" in path.read_text()
    assert client.idle_limit_seconds is not None
    assert client.idle_limit_seconds > 270
    client._start()
    assert ">2<" in path.read_text()


def test_a_transfer_that_ends_is_the_clients_work(
    children: Children, started: list[Child], clock: Clock
) -> None:
    children.start_tgen_client(
        lambda: client_model(
            {"exit": "127.0.0.1:1"}, socks="127.0.0.1:2", size=1024,
            initial_pause_seconds=0, pause_seconds=1, num_streams=0,
        ),
        on_line=lambda line: line == b"ended",
        on_end=lambda _why: None,
        is_once=False,
    )  # fmt: skip
    client = named(started, "tgen-client")
    clock.advance(100)
    client.line_received(b"a heartbeat")
    assert client._last_work == 0
    client.line_received(b"ended")
    assert client._last_work == 100


def test_a_tor_that_answers_works_and_one_that_does_not_will_be_noticed(
    children: Children, started: list[Child], clock: Clock, tmp_path: Path
) -> None:
    children.start_tor("tor-client")
    children.start_monitor("tor-client")
    tor, monitor = started
    log = tmp_path / "tor-client" / "perfmeasure.torctl.log"
    log.write_text("a line\n")
    clock.pump([5, 5, 5])
    assert (tor._last_work, monitor._last_work) == (15, 15)
    clock.pump([5, 5, 5])
    assert (tor._last_work, monitor._last_work) == (30, 15), "its log did not grow"
    log.write_text("a line\nanother\n")
    clock.pump([5, 5, 5])
    assert monitor._last_work == 45
    connection: Any = children.controller("tor-client")
    connection.answers = False
    clock.pump([5, 5, 5])
    assert (tor._last_work, monitor._last_work) == (45, 60)


def test_a_child_given_up_is_told_to_whoever_listens_then(
    children: Children, started: list[Child]
) -> None:
    children.start_tor("tor-client")
    told: list[str] = []
    children.on_give_up = told.append
    started[0]._on_end("tor-client was given up")
    assert told == ["tor-client was given up"]
