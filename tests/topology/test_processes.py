from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.topology import processes


@pytest.fixture
def sleeper(tmp_path: Path, require: Callable[..., None]) -> Iterator[subprocess.Popen[bytes]]:
    require("sleep")
    program = tmp_path / "a-program-with-a-long-name"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    process = subprocess.Popen([program, "60"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_known_by_its_whole_name_and_no_argument(
    sleeper: subprocess.Popen[bytes],
) -> None:
    deadline = time.monotonic() + 20
    while (found := processes.look_at(sleeper.pid)) is None or found.command.startswith("py"):
        assert time.monotonic() < deadline
    assert found.command == "a-program-with-a-long-name"
    assert found.start_ticks == processes.start_ticks(sleeper.pid)
    assert 0 <= time.time() - found.start_unix_ts() < 60
    assert found.cgroup.startswith("/")
    assert processes.command_line(sleeper.pid)[1:] == ["60"]


def test_one_that_is_gone_is_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert processes.look_at(process.pid) is None
    assert processes.start_ticks(process.pid) is None
    assert processes.command_line(process.pid) == []
    assert processes.network_namespace(process.pid) == 0
    assert processes.holders([process.pid]) == {}


def test_the_holders_of_a_socket_are_all_that_have_it() -> None:
    with socket.socket() as ours:
        inode = os.fstat(ours.fileno()).st_ino
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[ours.fileno()]
        )
        try:
            found = processes.holders(sorted([os.getpid(), child.pid]))
            assert found[inode] == sorted([os.getpid(), child.pid])
        finally:
            child.communicate(b"\n")


def test_a_socket_that_init_keeps_for_a_service_is_the_services() -> None:
    assert processes.owner([1, 7, 8]) == 7
    assert processes.owner([1]) == 1


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/docker.service/worker", "docker.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", "a.service"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", None),
        ("/user.slice/user-1000.slice/session-3.scope", None),
        ("/", None),
        ("", None),
    ],
)
def test_the_unit_is_the_innermost_service(cgroup: str, unit: str | None) -> None:
    assert processes.unit_of(cgroup) == unit


@pytest.mark.parametrize(
    ("said", "name"),
    [("nginx", "nginx"), ("tmux: server", "tmux"), ("", "unknown"), (" : ", "unknown")],
)
def test_a_name_is_one_word(said: str, name: str) -> None:
    assert processes.program_name(said) == name


@given(st.text())
def test_any_name_is_one_word(said: str) -> None:
    assert len(processes.program_name(said).split()) == 1
