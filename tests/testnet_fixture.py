"""One private Tor network for all tests of a session, and a way to run coroutines in tests.

A pytest plugin, registered by tests/conftest.py. ``testnet`` starts six relays, a client and an
onion host once, when the first test asks for them; the snapshot in ``cache_home`` serves later
sessions and whatever a test starts with XDG_CACHE_HOME set to it.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pytest
from twisted.internet import selectreactor
from twisted.internet.defer import ensureDeferred

from perfmeasure.tor.client import TorController
from perfmeasure.tor.onion import OnionService, make_private
from perfmeasure.tor.ports import free_ports
from perfmeasure.tor.processes import Processes
from perfmeasure.tor.testnet import Testnet
from perfmeasure.tor.torrc import NO_DEFAULTS, TorSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from perfmeasure.tor.relay import Relay

PROCESSES_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class Driver:
    """Runs coroutines on a Twisted reactor of its own, step by step, in the test's thread."""

    def __init__(self) -> None:
        self.reactor: Any = selectreactor.SelectReactor()
        self.reactor.getThreadPool().start()

    def __call__(self, coroutine: Coroutine[Any, Any, Any], limit_seconds: float = 120) -> Any:
        """Run to the end; return the result or raise the error."""
        results: list[Any] = []
        failures: list[Any] = []
        deferred = ensureDeferred(coroutine)
        deferred.addCallbacks(results.append, failures.append)
        deadline = time.monotonic() + limit_seconds
        while not results and not failures:
            assert time.monotonic() < deadline, f"not done after {limit_seconds} s"
            self.reactor.iterate(0.01)
        if failures:
            failures[0].raiseException()
        return results[0]

    def close(self) -> None:
        self.reactor.getThreadPool().stop()
        self.reactor.removeAll()


class ByteServer:
    """Answers each line ``N`` with N bytes and closes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        # A thread in accept() keeps the socket open; this wakes it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    @staticmethod
    def _answer(peer: socket.socket) -> None:
        with peer:
            peer.settimeout(60)
            try:
                count = int(peer.makefile("rb").readline() or b"0")
                peer.sendall(b"x" * count)
                peer.shutdown(socket.SHUT_WR)
                peer.recv(1)
            except OSError:
                return


def fetch(socks_port: int, host: str, port: int, count: int, limit_seconds: float = 30) -> int:
    """Ask a `ByteServer` for ``count`` bytes through SOCKS5; return how many came.

    Raises:
        OSError: it could not be reached.
    """
    with socket.create_connection(("127.0.0.1", socks_port), limit_seconds) as proxy:
        proxy.sendall(b"\x05\x01\x00")
        name = host.encode()
        proxy.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack("!H", port))
        reply = proxy.makefile("rb")
        head = reply.read(12)
        if len(head) < 12 or head[3]:
            raise OSError(f"SOCKS says {head!r}")
        proxy.sendall(b"%d\n" % count)
        return sum(len(data) for data in iter(lambda: reply.read(65536), b""))


@dataclass
class RunningTor:
    """A tor of the network that is no relay."""

    name: str
    folder: Path
    control_port: int
    cookie_path: Path
    socks_port: int = 0
    pid: int = 0

    @property
    def log_path(self) -> Path:
        return self.folder / "perfmeasure.tor.log"


class RunningTestnet:
    """The relays of a network, one client and one onion host.

    What the onion service's port 80 leads to is ``server``, which is also what to fetch by exit.
    """

    def __init__(self, base: Path, cache: Path, driver: Driver, tor: str) -> None:
        self.tor = tor
        self.base = base
        self.driver = driver
        self.said: list[str] = []
        self.processes = Processes()
        self.server = ByteServer()
        gencert = shutil.which("tor-gencert", path=PROCESSES_PATH) or "tor-gencert"
        self.testnet = Testnet(base / "testnet", tor=tor, tor_gencert=gencert, cache=cache)
        self.private = base / "private"
        self.onion = OnionService.under(self.private, 80, self.server.port)

    @property
    def relays(self) -> list[Relay]:
        return self.testnet.relays

    def launch(self, relay: Relay, argv: list[str]) -> None:
        self.processes.start(relay.name, argv, relay.log_path)

    async def stop_all(self) -> None:
        self.processes.stop()

    def start_tor(self, name: str, *, socks_port: int = 0, **settings: Any) -> RunningTor:
        """Start one more tor; the settings are those of `TorSettings`."""
        folder = self.base / name
        make_private(folder / "data")
        tor = RunningTor(
            name, folder, free_ports(1)[0], self.private / f"{name}.cookie", socks_port=socks_port
        )
        text = TorSettings(
            data_directory=folder / "data",
            cookie_path=tor.cookie_path,
            control_port=tor.control_port,
            socks_port=socks_port,
            network_lines=self.testnet.client_lines,
            owner_pid=os.getpid(),
            **settings,
        ).text()
        (folder / "torrc").write_text(text)
        self.restart(tor)
        return tor

    def restart(self, tor: RunningTor) -> None:
        """Start it, or again after it was killed."""
        argv = [self.tor, "-f", str(tor.folder / "torrc"), *NO_DEFAULTS]
        self.processes.start(tor.name, argv, tor.log_path)

    def fetch(self, host: str, port: int, count: int) -> int:
        """Ask for bytes through the client; see `fetch`."""
        return fetch(self.client.socks_port, host, port, count)

    def controller(self, tor: RunningTor, reactor: Any) -> TorController:
        return TorController(tor.name, tor.control_port, tor.cookie_path, reactor=reactor)

    def start(self) -> None:
        self.driver(
            self.testnet.start(self, self.driver.reactor, self.said.append), limit_seconds=240
        )
        make_private(self.private)
        self.onion.prepare()
        self.client = self.start_tor("client", socks_port=free_ports(1)[0])
        self.onion_host = self.start_tor("onion-host", onion=self.onion)
        self.driver(self._wait())

    async def _wait(self) -> None:
        reactor = self.driver.reactor
        host, client = (self.controller(t, reactor) for t in (self.onion_host, self.client))
        await host.connect()  # before it can have uploaded anything
        await client.wait_bootstrapped(stall_seconds=60)
        await host.wait_bootstrapped(stall_seconds=60)
        await host.wait_descriptor_uploaded(self.onion.address(), limit_seconds=90)
        await host.close()
        await client.close()

    def stop(self) -> None:
        self.processes.stop()
        self.testnet.close()
        self.server.__exit__()


@pytest.fixture
def drive() -> Iterator[Driver]:
    """Run coroutines: ``drive(coroutine)``; they get ``drive.reactor``."""
    driver = Driver()
    yield driver
    driver.close()


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for XDG_CACHE_HOME that outlives the session, so that snapshots do."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # one of several processes, each with a folder in the session's
    folder = base.parent / "perfmeasure-cache-home"
    make_private(folder)
    return folder


@pytest.fixture(scope="session")
def testnet(
    require: Callable[..., None], tmp_path_factory: pytest.TempPathFactory, cache_home: Path
) -> Iterator[RunningTestnet]:
    """A private Tor network with a client and an onion host, ready."""
    require("tor")
    tor = shutil.which("tor", path=PROCESSES_PATH) or "tor"
    driver = Driver()
    network = RunningTestnet(
        tmp_path_factory.mktemp("network"), cache_home / "perfmeasure", driver, tor
    )
    try:
        network.start()
        yield network
    finally:
        network.stop()
        driver.close()
