"""The agent as its user runs it: on three machines, under load, without rights, to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from short_connections import ANSWERED_BYTES, SENT_BYTES, Load
from topology_fixture import Played
from topology_machines import SHARED_PORT, Agent, Amount, Edge, Machine, agents, three_machines

from perfmeasure import jsonio

Line = dict[str, Any]


def lines_of(log: Path) -> list[Line]:
    return [jsonio.loads(line) for line in log.read_bytes().splitlines()]


def last_of_each(lines: Iterable[Line], kind: str, *names: str) -> list[Line]:
    """Return the lines of a kind, of those with the same fields the last."""
    found = {tuple(line[name] for name in names): line for line in lines if line["record"] == kind}
    return list(found.values())


_IDENTITY = (
    "netns", "protocol", "listen_ip", "listen_port", "pid", "valid_from_unix_ts",
)  # fmt: skip


class Told:
    """What the logs say, joined by a few plain rules that do for three machines."""

    def __init__(self, played: Played) -> None:
        self.machines = played.machines
        self.services: list[tuple[str, Line]] = []
        self.connections: list[tuple[str, Line]] = []
        for name in played.machines:
            lines = lines_of(played.folder / name / "services" / "services.log")
            services = last_of_each(lines, "service", *_IDENTITY)
            self.services += [(name, line) for line in services]
            connections = last_of_each(lines, "service_connection", "id")
            self.connections += [(name, line) for line in connections]

    def _serves(self, machine: Machine, line: Line, call: Line, caller: str) -> bool:
        """Whether a service is one that a call can have reached."""
        ip, listen_ip = call["dst_ip"], line["listen_ip"]
        is_local = ip == "::1" or ip.startswith("127.")
        if is_local and machine.name != caller:
            return False
        if not is_local and ip not in (machine.ip4, machine.ip6):
            return False
        is_wildcard = listen_ip == "::" and not (line["is_v6only"] and ":" not in ip)
        is_wildcard |= listen_ip == "0.0.0.0" and ":" not in ip  # noqa: S104 - a comparison
        if not is_wildcard and listen_ip != ip:
            return False
        began, ended = line["valid_from_unix_ts"], line.get("valid_to_unix_ts", 1e12)
        return (line["protocol"], line["listen_port"]) == (
            call["protocol"], call["dst_port"],
        ) and began <= call["start_unix_ts"] <= ended  # fmt: skip

    def callee(self, caller: str, call: Line) -> tuple[str, str]:
        """Return machine and name of who was called."""
        found = {
            (name, line["name"])
            for name, line in self.services
            if self._serves(self.machines[name], line, call, caller)
        }
        assert len(found) == 1, (caller, call, found)
        return found.pop()

    def edges(self) -> dict[Edge, Amount]:
        totals: dict[Edge, Counter[str]] = {}
        for caller, call in self.connections:
            if call["side"] != "active":
                continue
            edge = Edge(
                caller, call["service"], *self.callee(caller, call), call["protocol"],
                call["dst_port"],
            )  # fmt: skip
            numbers = {name: call[name] for name in ("bytes_sent", "bytes_received")}
            totals.setdefault(edge, Counter()).update(numbers | {"connections": 1})
        return {edge: Amount(**numbers) for edge, numbers in totals.items()}


def test_three_machines_are_told_of_to_the_byte(three_machine_logs: Played) -> None:
    told = Told(three_machine_logs)
    assert told.edges() == three_machine_logs.truth
    # Both ends tell of each, the other way round.
    by_side: dict[str, Counter[Any]] = {"active": Counter(), "passive": Counter()}
    for _, line in told.connections:
        assert line["source"] == "ebpf"
        if line["protocol"] == "tcp":
            assert line["state"] == "closed"
        sent, received = line["bytes_sent"], line["bytes_received"]
        ends = (line["src_ip"], line["src_port"], line["dst_ip"], line["dst_port"])
        if line["side"] == "passive":
            ends, sent, received = (*ends[2:], *ends[:2]), received, sent
        by_side[line["side"]][line["protocol"], *ends, sent, received] += 1
    assert by_side["active"] == by_side["passive"]


def test_listeners_have_their_beginning_and_their_end(three_machine_logs: Played) -> None:
    told = Told(three_machine_logs)
    found: dict[tuple[str, str, int], list[Line]] = {}
    for machine, line in told.services:
        found.setdefault((machine, line["name"], line["listen_port"]), []).append(line)
    assert len(found["data", "mysql", 3306]) == 1
    assert found["data", "mysql", 3306][0]["is_v6only"] is False
    assert [line["listen_ip"] for line in found["data", "resolver", 5353]] == ["::"]
    assert {line["listen_ip"] for line in found["web", "sidecar-web", SHARED_PORT]} == {
        "127.0.0.1", "::1",
    }  # fmt: skip
    assert len(found["logic", "worker", 8001]) == 2
    (old,), (new,) = found["data", "redis", 6379], found["data", "memcached", 6379]
    assert old["valid_from_unix_ts"] < old["valid_to_unix_ts"] < new["valid_from_unix_ts"]
    assert old["pid"] != new["pid"]
    for machine, line in told.services:
        machine_ips = told.machines[machine].ip4, told.machines[machine].ip6
        assert set(machine_ips) <= set(line["instance_ips"])
        assert line["process_start_unix_ts"] <= line["valid_from_unix_ts"] + 0.02


def test_each_log_says_what_it_is_and_loses_nothing(three_machine_logs: Played) -> None:
    for name in three_machine_logs.machines:
        lines = lines_of(three_machine_logs.folder / name / "services" / "services.log")
        start, instance, *_, stop = lines
        assert (start["record"], start["instance_id"], start["source"], start["scope"]) == (
            "start", name, "ebpf", "host",
        )  # fmt: skip
        assert instance["record"] == "instance"
        assert "127.0.0.1" in instance["addresses"][0]["ips"]
        assert (stop["record"], stop["reason"]) == ("stop", "SIGTERM")
        assert not [line for line in lines if line["record"] == "lost"]
        namespaces = {line["netns"] for line in lines if "netns" in line}
        assert namespaces == {instance["addresses"][0]["netns"]}


def polled(agent: Agent, state: str) -> list[Line]:
    return [
        line
        for line in agent.records("service_connection")
        if (line["source"], line["state"]) == ("polling", state)
    ]


def test_by_polling_what_lives_is_told_with_its_process_and_the_rest_by_its_end(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root", "ip")
    options = ("--source", "polling", "--interval", "200 ms")
    with three_machines() as world, agents(world, tmp_path, *options) as running:
        data = world.machines["data"]
        redis, app = world.start("data", "redis"), world.start("logic", "app")
        redis.listen("tcp", data.ip4, 6379)
        world.call(app, redis, ("tcp", data.ip4, 6379), (64, 1000), 20)
        app.tell("hold", "tcp", data.ip4, 6379, 70, 2000)
        agent = running["logic"]
        agent.until(lambda: polled(agent, "open"))
        agent.until(lambda: len(agent.records("service_connection")) >= 21)
        app.tell("release")
        agent.until(lambda: polled(agent, "closed"))
    start = agent.records("start")[0]
    assert (start["source"], start["poll_seconds"]) == ("polling", 0.2)
    connections = last_of_each(agent.records(), "service_connection", "id")
    assert len(connections) == 21
    (held,) = (line for line in connections if line["bytes_sent"] == 70)
    assert (held["source"], held["service"], held["side"]) == ("polling", "app", "active")
    for line in connections:
        assert line["source"] in ("polling", "destroy")
        is_held = line["bytes_sent"] == 70
        assert is_held or line["bytes_sent"] == 64
        # Of what was seen by its end alone it is not known whether a FIN is in it.
        assert line["bytes_received"] in ((1999, 2000) if is_held else (999, 1000))
        assert ("service" in line) == (line["source"] == "polling")
    # The listener is known, so the other end has a name even if nothing but its end was seen.
    there = last_of_each(running["data"].records(), "service_connection", "id")
    assert {(line["service"], line["side"]) for line in there} == {("redis", "passive")}


def _of_load(agent: Agent, port: int) -> tuple[list[Line], list[Line]]:
    """Return the last lines of all connections to a port: callers' ends, and the server's."""
    lines = last_of_each(agent.records(), "service_connection", "id")
    return (
        [line for line in lines if line["dst_port"] == port],
        [line for line in lines if line["src_port"] == port],
    )


@pytest.mark.parametrize("source", ["ebpf", "polling"])
def test_short_connections_of_processes_that_are_gone(
    source: str, tmp_path: Path, require: Callable[..., None], *, is_long: bool
) -> None:
    require("root", "bpf", "cgroup2")
    rate, seconds = (2000, 20.0) if is_long else (500, 1.5)
    agent = Agent(Machine("here", 1, "none"), tmp_path, "--source", source, home=True)
    load = Load()
    try:
        agent.until_ready()
        made = load.call(rate, seconds, 0.0, 0.1, 1.0)
        total = sum(made.values())
        agent.until(lambda: len(_of_load(agent, load.port)[0]) >= total)
        # The caller is gone; what it was called is known all the same.
        agent.until(lambda: all("end_unix_ts" in line for line in _of_load(agent, load.port)[0]))
    finally:
        load.end()
        ended = agent.stop()
    assert ended == (0, "")
    calls, answers = _of_load(agent, load.port)
    assert len(calls) == total
    for ends, bytes_sent in ((calls, SENT_BYTES), (answers, ANSWERED_BYTES)):
        assert {line["bytes_sent"] for line in ends} == {bytes_sent}
    named = [line for line in calls if line.get("service") == "bench-client"]
    if source == "ebpf":
        assert len(named) == len(answers) == total
        assert {line["service"] for line in answers} == {"bench-server"}
        assert {line["source"] for line in calls + answers} == {"ebpf"}
        assert {line["bytes_received"] for line in calls} == {ANSWERED_BYTES}
    else:
        # What was listed has a name; the rest is marked as seen by its end alone.
        assert {line["source"] for line in named} == {"polling"}
        rest = [line for line in calls if line not in named]
        # A process may be gone, too, between the list of sockets and that of who holds them.
        assert {"destroy"} <= {line["source"] for line in rest} <= {"destroy", "polling"}
        assert 0 < len(named) < total
        print(f"by polling {len(named) / total:.1%} of {total} have a name")  # noqa: T201 - a figure


def test_without_rights_it_polls_and_says_so(tmp_path: Path, require: Callable[..., None]) -> None:
    require("root", "setpriv")
    os.chmod(tmp_path, 0o777)  # noqa: S103, PTH101 - the other user writes into it
    agent = Agent(
        Machine("here", 1, "none"), tmp_path, wrapper=("setpriv", "--bounding-set=-all"), home=True
    )
    try:
        said = agent.until_ready()
    finally:
        status, _ = agent.stop()
    assert status == 0
    assert len(said) == 2, said
    assert "Connections are polled, so that short ones are missed" in said[0]
    assert agent.records("start")[0]["source"] == "polling"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--interval", "0"), "--interval: '0'; wanted 100 ms to 1 hour"),
        (("--rotate-every", "2 days"), "--rotate-every: '2 days'; wanted 1 second to 1 day"),
        (("--rules", "missing.toml"), "missing.toml: cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "perfmeasure", "topology", "collect", "-o", str(tmp_path)]
    ran = subprocess.run([*argv, *options], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert not list(tmp_path.iterdir())
