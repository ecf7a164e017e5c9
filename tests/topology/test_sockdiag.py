from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Iterator

import pytest

from perfmeasure.topology import sockdiag
from perfmeasure.topology.sockdiag import (
    CONNECTED_UDP,
    CONNECTIONS,
    LISTENING,
    UNCONNECTED,
    DestroyWatch,
    Socket,
    SocketLister,
)

_TCP, _UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP


@pytest.fixture
def lister() -> Iterator[SocketLister]:
    with contextlib.closing(SocketLister()) as made:
        yield made


def at(sockets: list[Socket], port: int) -> Socket:
    (found,) = (one for one in sockets if one.local_port == port)
    return found


@pytest.mark.parametrize(
    ("family", "host", "is_v6only"),
    [(socket.AF_INET, "127.0.0.1", False), (socket.AF_INET6, "::1", True),
     (socket.AF_INET6, "::", True), (socket.AF_INET6, "::", False)],
)  # fmt: skip
def test_a_listener_is_listed_as_its_owner_knows_it(
    lister: SocketLister, family: int, host: str, *, is_v6only: bool
) -> None:
    with socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6only)
        listener.bind((host, 0))
        listener.listen()
        port = listener.getsockname()[1]
        found = at(lister.list(_TCP, LISTENING), port)
        assert (found.protocol, found.family, found.local_ip) == (_TCP, family, host)
        assert found.is_v6only == is_v6only
        assert found.inode == os.fstat(listener.fileno()).st_ino
        assert found.remote_port == 0
    assert not [one for one in lister.list(_TCP, LISTENING) if one.local_port == port]


def test_udp_is_told_apart_by_whether_it_has_a_peer(lister: SocketLister) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as server,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        found = at(lister.list(_UDP, UNCONNECTED), server.getsockname()[1])
        assert found.local_ip == "127.0.0.1"
        found = at(lister.list(_UDP, CONNECTED_UDP), client.getsockname()[1])
        assert (found.remote_ip, found.remote_port) == server.getsockname()


def test_a_connection_has_its_bytes_and_its_end_has_them_too(lister: SocketLister) -> None:
    source = random.Random(5)
    with contextlib.closing(DestroyWatch()) as watch:
        with socket.socket(socket.AF_INET6) as listener:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::", 0))
            listener.listen()
            client = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
            server, _ = listener.accept()
            sent, answered = source.randrange(1, 20000), source.randrange(1, 20000)
            client.sendall(bytes(sent))
            server.sendall(bytes(answered))
            for sock, expected in ((server, sent), (client, answered)):
                count = expected
                while count:
                    count -= len(sock.recv(count))
            port = client.getsockname()[1]
            found = at(lister.list(_TCP, CONNECTIONS, with_bytes=True), port)
            assert (found.bytes_sent, found.bytes_received) == (sent, answered)
            assert found.inode == os.fstat(client.fileno()).st_ino
            other = [
                one
                for one in lister.list(_TCP, CONNECTIONS, with_bytes=True)
                if one.remote_port == port
            ]
            assert [(one.local_ip, one.bytes_sent) for one in other] == [("127.0.0.1", answered)]
            client.close()
            server.recv(1)
            server.close()
        deadline = time.monotonic() + 20
        gone: dict[int, Socket] = {}
        while found.cookie not in gone or other[0].cookie not in gone:
            assert time.monotonic() < deadline
            gone |= {one.cookie: one for one in watch.read()}
        end = gone[found.cookie]
        assert end.protocol == _TCP
        assert end.bytes_sent == sent
        # The FIN, or not: a socket that was closed may have gone before it came.
        assert end.bytes_received in (answered, answered + 1)
        assert watch.overruns == 0


def test_ends_that_find_no_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockdiag, "_BUFFER_BYTES", 4096)
    with contextlib.closing(DestroyWatch()) as watch:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(200):
                with socket.create_connection(listener.getsockname()):
                    listener.accept()[0].close()
        deadline = time.monotonic() + 20
        seen = 0
        while not watch.overruns:
            assert time.monotonic() < deadline
            seen += len(watch.read())
        assert seen < 400
