"""perfmeasure.tgen.server."""

from __future__ import annotations

import resource
import socket
from typing import Any

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.tgen.server import Server


def test_it_says_where_it_listens_and_hands_connections_on(loop: Any, line_log: Any) -> None:
    accepted: list[tuple[socket.socket, tuple[str, int]]] = []
    server = Server(loop.reactor, line_log, 0, lambda *found: accepted.append(found))
    assert f"server listening at 0.0.0.0:{server.port}" in line_log.lines[0]
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    loop.until(lambda: len(accepted) == 100)
    assert {address[1] for _, address in accepted} == {c.getsockname()[1] for c in clients}
    server.stop()
    with pytest.raises(OSError):  # noqa: PT011 - refused
        socket.create_connection(("127.0.0.1", server.port))
    for opened in [*clients, *(found for found, _ in accepted)]:
        opened.close()


def test_a_taken_port_is_said(loop: Any, line_log: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MeasurementError, match=f"port {port}: cannot listen"):
            Server(loop.reactor, line_log, port, lambda *_: None)


def test_without_descriptors_it_waits_and_then_goes_on(loop: Any, line_log: Any) -> None:
    accepted: list[socket.socket] = []
    server = Server(loop.reactor, line_log, 0, lambda found, _: accepted.append(found))
    client = socket.create_connection(("127.0.0.1", server.port))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
    try:
        loop.run(0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not accepted
    assert sum("cannot accept a connection" in line for line in line_log.lines) == 1
    loop.until(lambda: accepted)
    server.stop()
    for opened in (client, *accepted):
        opened.close()


def test_a_connection_that_cannot_be_used_costs_only_itself(loop: Any, line_log: Any) -> None:
    seen: list[int] = []

    def refuse(_found: socket.socket, address: tuple[str, int]) -> None:
        seen.append(address[1])
        raise OSError(107, "gone")

    server = Server(loop.reactor, line_log, 0, refuse)
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            port = client.getsockname()[1]
            loop.until(lambda port=port: port in seen)
    assert sum("lost a connection: gone" in line for line in line_log.lines) == 2
    server.stop()
