from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfmeasure.flows import existing
from perfmeasure.flows.connections import ORIGINS, SIDES, Flag, Record


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield client, server


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def described(sock: socket.socket) -> Record:
    record = existing.describe(sock, os.getpid())
    assert record is not None
    return record


def test_the_side_is_told_by_the_syn_that_was_counted(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    for sock, side in zip(pair, ("active", "passive"), strict=True):
        for data in (b"", b"x" * 300_000):
            # What is still on its way, or waits unsent, does not confuse it.
            sock.setblocking(False)
            if data:
                sock.send(data)
            assert SIDES[described(sock).side] == side
    record = described(pair[0])
    assert record.pid == os.getpid()
    assert record.command == Path("/proc/self/comm").read_bytes().strip()
    assert ORIGINS[record.origin] == "scan"
    assert record.flags == Flag.EXISTED_BEFORE | Flag.WAS_ESTABLISHED


def test_states_are_taken_over(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    for _ in range(200):
        record = described(server)
        if record.flags & Flag.REMOTE_FIN_FIRST:
            break
        time.sleep(0.01)
    assert SIDES[record.side] == "passive"
    record = described(client)
    assert record.flags & Flag.LOCAL_FIN_FIRST
    assert record.flags & Flag.LOCAL_FIN_SENT
    assert SIDES[record.side] == "unknown"


def test_other_sockets_are_none_of_ours() -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as unused:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for sock in (unix, unused, udp):
                assert existing.describe(sock, os.getpid()) is None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            record = described(listener)
            assert record.flags == Flag.IS_LISTENER
            assert ORIGINS[record.origin] == "listen"


def test_sockets_of_others_are_borrowed_and_given_back(require: Callable[..., None]) -> None:
    require("root")
    code = (
        "import socket, sys\n"
        "a = socket.create_server(('127.0.0.1', 0)); b = socket.socketpair()\n"
        "print('here', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        before = _descriptors()
        families = []
        for sock in existing._sockets(child.pid):
            with sock:
                families.append(sock.family)
        assert sorted(families) == [socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET]
        assert _descriptors() == before
    finally:
        child.communicate(b"")
    assert list(existing._sockets(child.pid)) == []


def test_processes_are_listed() -> None:
    assert os.getpid() in existing.pids_of_machine()
    assert existing.pids_of_group(Path("/nonexistent")) == []
