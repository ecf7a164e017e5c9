"""A server with a reactor of its own in a thread, and clients for it."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.epollreactor import EPollReactor

from perfmeasure.web.connections import Limits
from perfmeasure.web.server import docroot_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Served:
    """A docroot being served."""

    def __init__(self, docroot: Path, limits: Limits) -> None:
        self.docroot = docroot
        self.errors: list[str] = []
        self._reactor: Any = EPollReactor()
        self._thread = threading.Thread(
            target=lambda: self._reactor.run(installSignalHandlers=False), daemon=True
        )
        self.service = docroot_service(
            docroot, 0, on_error=self.errors.append, limits=limits, reactor=self._reactor
        )
        self._thread.start()
        self.call(self.service.privilegedStartService)
        self.call(self.service.startService)
        self.port = self.service.port

    def call(self, function: Callable[[], Any]) -> Any:
        """Run in the reactor's thread, wait for it and what it returns."""
        done = threading.Event()
        outcome: list[Any] = []

        def run() -> None:
            maybeDeferred(function).addBoth(outcome.append).addBoth(lambda _: done.set())

        self._reactor.callFromThread(run)
        assert done.wait(20)
        return outcome[0]

    def stop(self) -> None:
        self.call(self.service.stopService)
        self._reactor.callFromThread(self._reactor.stop)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def connect(self, receive_buffer_bytes: int | None = None) -> socket.socket:
        client = socket.socket()
        client.settimeout(20)
        if receive_buffer_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        client.connect(("127.0.0.1", self.port))
        return client

    def ask(
        self, target: str, method: str = "GET", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Make one request; header names have underscores for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are and return all that comes until the server closes."""
        with self.connect() as client:
            client.sendall(request)
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    received = b""
    try:
        while block := client.recv(65536):
            received += block
    except ConnectionResetError:
        pass
    return received


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Call with a docroot, and limits when not the usual, to get a `Served`."""
    with _serving() as start:
        yield start


@pytest.fixture(scope="module")
def serve_long() -> Iterator[Callable[..., Served]]:
    """The same, served until the module's last test has ended."""
    with _serving() as start:
        yield start


@contextmanager
def _serving() -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(docroot: Path, limits: Limits | None = None) -> Served:
        served = Served(docroot, limits or Limits())
        running.append(served)
        return served

    yield start
    for served in running:
        served.stop()
