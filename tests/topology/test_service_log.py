"""The recorder on this machine, with sockets of the test's own in a namespace of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from topology_machines import Machine, three_machines

from perfmeasure import jsonio
from perfmeasure.errors import MissingError
from perfmeasure.logfile import LogFile
from perfmeasure.topology import service_log
from perfmeasure.topology.naming import Known, by_rules
from perfmeasure.topology.service_log import Scope, ServiceRecorder


class Scene:
    """A recorder that polls this process's sockets, and its log."""

    def __init__(self, folder: Path, **scope: Any) -> None:
        self.path = folder / "services" / "services.log"
        self.archive = folder / "log_archive"
        self.said: list[str] = []
        known = Known(by_rules(()), lambda _: None)
        fields: dict[str, Any] = {"source": "polling", "scope": "host", "poll_seconds": 0.0} | scope
        self.recorder = ServiceRecorder(
            LogFile(self.path, self.archive),
            Scope("here", began_unix_ts=1.0, **fields),
            known,
            self.said.append,
            lost=None,
            pids=lambda: [os.getpid()],
        )

    def lines(self, kind: str) -> list[dict[str, Any]]:
        found = [jsonio.loads(line) for line in self.path.read_bytes().splitlines()]
        return [line for line in found if line["record"] == kind]

    def at(self, port: int) -> list[dict[str, Any]]:
        return [line for line in self.lines("service") if line["listen_port"] == port]


def test_a_listener_is_told_when_it_comes_and_when_it_goes(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        scene = Scene(tmp_path)
        scene.recorder.look()
        (old,) = scene.at(before.getsockname()[1])
        assert old["valid_from_unix_ts"] == 1.0  # it was there when all began
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            began = time.time()
            scene.recorder.look()
        scene.recorder.look()
    came, went = scene.at(port)
    assert came["pid"] == os.getpid()
    assert began - 1e-3 <= came["valid_from_unix_ts"] <= went["valid_to_unix_ts"] <= time.time()
    assert {**came, "unix_ts": 0} == {
        **{name: value for name, value in went.items() if name != "valid_to_unix_ts"}, "unix_ts": 0,
        "process_start_unix_ts": came["process_start_unix_ts"],
    }  # fmt: skip
    scene.recorder.stop("SIGTERM")
    assert scene.lines("stop")[0]["reason"] == "SIGTERM"
    assert scene.said == []


def test_each_file_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scene = Scene(tmp_path)
        scene.recorder.look()
        (first,) = scene.at(listener.getsockname()[1])
        tomorrow = time.time() + 86400
        monkeypatch.setattr(service_log, "now", lambda: tomorrow)
        monkeypatch.setattr("perfmeasure.recordlog.now", lambda: tomorrow)
        scene.recorder.stop("SIGTERM")
        (second,) = scene.at(listener.getsockname()[1])
    assert len(list(scene.archive.rglob("perfmeasure_*.services.log"))) == 1
    kinds = [line["record"] for line in map(jsonio.loads, scene.path.read_bytes().splitlines())]
    assert kinds[:2] == ["start", "instance"]
    assert second["valid_from_unix_ts"] == first["valid_from_unix_ts"]


def test_a_new_address_is_told(tmp_path: Path, require: Callable[..., None]) -> None:
    require("root", "ip")
    with three_machines() as world:
        machine = world.machines["web"]
        outcome: list[list[dict[str, Any]]] = []

        def inside() -> None:
            with machine.inside():
                scene = Scene(tmp_path)
                scene.recorder.look()
                _ip(machine, "address", "add", "10.78.0.9/32", "dev", "lo")
                scene.recorder.look()
                scene.recorder.look()
                outcome.append(scene.lines("instance"))

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
    ((before, after),) = outcome
    added = set(after["addresses"][0]["ips"]) - set(before["addresses"][0]["ips"])
    assert "10.78.0.9" in added
    assert before["addresses"][0]["netns"] == after["addresses"][0]["netns"]


def _ip(machine: Machine, *words: str) -> None:
    subprocess.run(["ip", "-n", machine.namespace, *words], check=True, timeout=20)


@pytest.fixture
def _no_lister(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(service_log, "SocketLister", refuse)


@pytest.mark.usefixtures("_no_lister")
def test_a_kernel_that_lists_no_sockets_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        Scene(tmp_path)
    assert "sock_diag: sockets cannot be listed (Protocol not supported)" in str(caught.value)
