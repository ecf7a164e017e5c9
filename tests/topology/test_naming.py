from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perfmeasure.errors import UsageError
from perfmeasure.topology import naming, processes
from perfmeasure.topology.naming import Known, Rule, by_rules, load_rules, of_measurement
from perfmeasure.topology.processes import Process

_RULES = """
[[service]]
name = "shop"
unit = "shop-*.service"

[[service]]
name = "container"
cgroup = "/docker/*"
command = "python*"

[[service]]
name = "web"
port = [80, 443]
"""


def process(command: str = "python3", cgroup: str = "/", pid: int = 7) -> Process:
    return Process(pid, 1, command, cgroup)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(_RULES)
    return path


@pytest.mark.parametrize(
    ("known", "ports", "name"),
    [
        (process(cgroup="/system.slice/shop-3.service"), (), "shop"),
        (process(cgroup="/docker/0123"), (), "container"),
        (process("nginx", "/docker/0123"), (), "nginx"),
        (process("nginx", "/docker/0123"), (443, 8080), "web"),
        (process("nginx", "/system.slice/nginx.service"), (), "nginx"),
        (process("sh", "/system.slice/cron.service"), (8080,), "cron"),
        (process(), (), "python3"),
    ],
)
def test_the_first_rule_that_holds_names_else_unit_else_program(
    rules: Path, known: Process, ports: tuple[int, ...], name: str
) -> None:
    assert by_rules(load_rules(rules))(known, ports) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[service]", "not TOML"),
        ("other = 1", "other: no such setting; wanted tables"),
        ("service = 3", "service: no such setting"),
        ("[[service]]\nunit = 'x'", "service 1: no name"),
        ("[[service]]\nname = 'x'", "service 1: no condition"),
        ("[[service]]\nname = 'x'\nuser = 'y'", "service 1: something else in it"),
        ("[[service]]\nname = 'x'\nunit = 3", "service 1: a value that is no text"),
        ("[[service]]\nname = ''\nunit = 'x'", "service 1: a value that is no text"),
        ("[[service]]\nname = 'x'\nport = 0", "service 1, port: 0; wanted 1 to 65535"),
        ("[[service]]\nname = 'x'\nport = [80, true]", "service 1, port: [80, True]"),
    ],
)
def test_what_is_no_rule_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_rules(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["-f", "{}/tor-client/torrc"], "tor-client"),
        (["-f", "{}/testnet/exit1/torrc", "--hush"], "tor-relay exit1"),
        (["{}/tgen-server/tgen.graphml.xml"], "tgen-server"),
        (["--cookie", "{}/private/x.cookie", "--log", "{}/tor-server/perfmeasure.torctl.log"],
         "monitor tor-server"),
        (["/elsewhere/tor-client/torrc", "{}", "{}/log_archive"], "python"),
    ],
)  # fmt: skip
def test_a_measurements_processes_are_told_by_their_files(
    tmp_path: Path, arguments: list[str], name: str
) -> None:
    argv = [sys.executable, "-c", "input()", *(text.format(tmp_path) for text in arguments)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        while not processes.command_line(child.pid)[1:]:
            assert child.poll() is None
        found = Process(child.pid, 1, "python", "/")
        assert of_measurement(tmp_path)(found, ()) == name
    finally:
        child.communicate(b"\n")


class World:
    """Processes as a test has them be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live: dict[int, Process] = {}
        self.looks = 0
        monkeypatch.setattr(processes, "look_at", self.look_at)
        monkeypatch.setattr(processes, "start_ticks", self.start_ticks)
        monkeypatch.setattr(naming, "_CHECK_SECONDS", 0.0)

    def look_at(self, pid: int) -> Process | None:
        self.looks += 1
        return self.live.get(pid)

    def start_ticks(self, pid: int) -> int | None:
        return self.live[pid].start_ticks if pid in self.live else None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def known(*rules: Rule) -> Known:
    return Known(by_rules(rules), {5: "/system.slice/batch.service"}.get)


def test_a_process_that_was_met_is_known_when_it_is_gone(world: World) -> None:
    ours = known()
    world.live[7] = process("curl")
    assert ours.name(ours.process(7, "curl")) == "curl"
    del world.live[7]
    assert ours.name(ours.process(7, "curl")) == "curl"
    assert world.looks == 1


def test_one_that_was_never_met_is_known_by_what_the_record_says(world: World) -> None:
    ours = known()
    assert ours.name(ours.process(8, "curl")) == "curl"
    assert ours.name(ours.process(9, "sh", 5)) == "batch"
    assert ours.name(ours.process(10, "sh", 6)) == "sh"
    assert world.live == {}


def test_a_number_that_is_used_again_is_another_process(world: World) -> None:
    ours = known()
    world.live[7] = Process(7, 1, "old", "/")
    assert ours.process(7).command == "old"
    world.live[7] = Process(7, 2, "new", "/")
    assert ours.process(7).command == "new"
    # One that runs another program has another name in the kernel's records.
    assert ours.name(ours.process(7, "newer")) == "new"


def test_a_port_that_is_listened_at_later_names_too(world: World) -> None:
    ours = known(Rule("web", ports=frozenset((80,))))
    world.live[7] = process("nginx")
    found = ours.process(7)
    assert ours.name(found) == "nginx"
    ours.listens(found, 80)
    assert ours.name(found) == "web"
    ours.listens(found, 443)
    assert ours.name(found) == "web"


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "_MOST_KNOWN", 10)
    ours = known()
    for pid in range(100):
        world.live[pid] = process(pid=pid)
        ours.name(ours.process(pid))
    assert len(ours._met) <= 10
    assert len(ours._names) <= 10
