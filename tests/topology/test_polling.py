from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from perfmeasure.topology import processes
from perfmeasure.topology.listeners import Listener, ListenerTable
from perfmeasure.topology.naming import Known, by_rules
from perfmeasure.topology.polling import ConnectionPoll
from perfmeasure.topology.sockdiag import SocketLister

_BOOT = "83df3e82-9731"


class Scene:
    """A poll of this process's own connections, and one of them."""

    def __init__(self, *, is_ours_only: bool = False) -> None:
        self.known = Known(by_rules(()), lambda _: None)
        self.listeners = ListenerTable(self.known, lambda _: None)
        self.lister = SocketLister()
        self.poll = ConnectionPoll(
            self.lister, self.known, self.listeners, _BOOT, lambda: [os.getpid()],
            is_ours_only=is_ours_only,
        )  # fmt: skip
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.name = self.known.name(self.known.process(os.getpid()))

    def close(self) -> None:
        self.listener.close()
        self.poll.close()
        self.lister.close()

    def listens(self) -> None:
        self.listeners.opened(
            Listener(
                1, processes.network_namespace(), "tcp", "127.0.0.1", self.port, False,
                self.known.process(os.getpid()), "", 1.0,
            )
        )  # fmt: skip

    def connect(self) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(("127.0.0.1", self.port))
        server = self.listener.accept()[0]
        client.sendall(b"x" * 30)
        server.recv(30)
        server.sendall(b"y" * 20)
        client.recv(20)
        return client, server

    def ours(self, lines: list[dict[str, object]]) -> list[dict[str, object]]:
        return [line for line in lines if self.port in (line["src_port"], line["dst_port"])]

    def ended(self, count: int) -> list[dict[str, object]]:
        """Return the lines of so many that have gone."""
        found: list[dict[str, object]] = []
        deadline = time.monotonic() + 20
        while len(found) < count:
            assert time.monotonic() < deadline
            self.poll.read()
            found += self.ours(self.poll.ended(9.0))
        return found


@pytest.fixture
def make() -> Iterator[Callable[..., Scene]]:
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(contextlib.closing(Scene(**how)))


def test_one_that_lives_is_told_with_its_process_and_later_with_its_end(
    make: Callable[..., Scene],
) -> None:
    scene = make()
    scene.listens()
    client, server = scene.connect()
    lines = scene.ours(scene.poll.poll(5.0))
    assert {line["side"] for line in lines} == {"active", "passive"}
    for line in lines:
        assert (line["pid"], line["service"]) == (os.getpid(), scene.name)
        assert (line["source"], line["state"], line["start_unix_ts"]) == ("polling", "open", 5.0)
        sent = 30 if line["side"] == "active" else 20
        assert (line["bytes_sent"], line["bytes_received"]) == (sent, 50 - sent)
    assert scene.ours(scene.poll.poll(6.0)) == []  # nothing new
    client.sendall(b"z")
    server.recv(1)
    (more,) = (line for line in scene.ours(scene.poll.poll(7.0)) if line["side"] == "active")
    assert (more["bytes_sent"], more["start_unix_ts"]) == (31, 5.0)
    client.close()
    server.recv(1)
    server.close()
    ends = scene.ended(2)
    assert {line["id"] for line in ends} == {line["id"] for line in lines}
    for line in ends:
        assert (line["source"], line["state"], line["end_unix_ts"]) == ("polling", "closed", 9.0)
        assert line["bytes_sent"] == (31 if line["side"] == "active" else 20)
        assert line["bytes_received"] == (20 if line["side"] == "active" else 31)


def test_one_that_was_never_listed_has_no_process_unless_somebody_listens_there(
    make: Callable[..., Scene],
) -> None:
    scene = make()
    scene.listens()
    scene.poll.poll(5.0)
    client, server = scene.connect()
    client.close()
    server.recv(1)
    server.close()
    by_side = {line["side"]: line for line in scene.ended(2)}
    assert {line["source"] for line in by_side.values()} == {"destroy"}
    assert "service" not in by_side["active"]
    assert by_side["passive"]["service"] == scene.name
    assert by_side["active"]["bytes_sent"] == 30
    assert by_side["active"]["bytes_received"] in (19, 20)  # the FIN, or not


def test_what_is_nobodys_of_ours_is_left_out_if_ours_only_is_wanted(
    make: Callable[..., Scene],
) -> None:
    scene, others = make(is_ours_only=True), make()
    client, server = others.connect()
    assert len([line for line in scene.poll.poll(5.0) if line["src_port"] == others.port]) == 1
    scene.poll._live.clear()
    client.close()
    server.close()
    others.ended(1)
    scene.poll.read()
    assert scene.poll.ended(9.0) == []


def test_a_refused_connect_is_no_connection(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.listener.close()
    # One that does not wait keeps its peer's port to the end.
    with socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(("127.0.0.1", scene.port)) == errno.EINPROGRESS
        select.select([], [client], [], 20)
    deadline = time.monotonic() + 20
    while not any(one.remote_port == scene.port for one in scene.poll._ends):
        assert time.monotonic() < deadline
        scene.poll.read()
    assert scene.ours(scene.poll.ended(9.0)) == []
    assert scene.poll.lost() == {"destroy_overruns": 0}
