"""What the generator's tests share: a reactor of their own, a SOCKS5 server, the program itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from twisted.internet.epollreactor import EPollReactor

from perfmeasure.tgen.actions import StreamOptions
from perfmeasure.tgen.graphml import write_graphml
from perfmeasure.tgen.logline import Log
from perfmeasure.tgen.peer import Peer
from perfmeasure.tgen.server import Server
from perfmeasure.tgen.statistics import Statistics
from perfmeasure.tgen.stream import Context, Route, Stream, accept_stream, open_stream


class Loop:
    """A reactor that runs as long as a test wants it to, as often as it wants."""

    def __init__(self) -> None:
        self.reactor: Any = EPollReactor()
        self.reactor.startRunning(installSignalHandlers=False)

    def until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        """Run until ``condition`` holds; fail after ``seconds``."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "what the test waits for did not happen"
            self.reactor.iterate(0.005)

    def run(self, seconds: float) -> None:
        """Run for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.reactor.iterate(0.005)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.reactor.fireSystemEvent("shutdown")
    loop.reactor.removeAll()
    if loop.reactor.waker is not None:
        loop.reactor.waker.connectionLost(None)
    loop.reactor._poller.close()


class LineLog(Log):
    """A log that keeps its lines."""

    def __init__(self) -> None:
        super().__init__(2)
        self.set_level("info")
        self.lines: list[str] = []

    def _put(self, line: bytes) -> None:
        self.lines.append(line.decode())

    def of(self, what: str) -> list[dict[str, str]]:
        """Return the fields of each line that contains ``what``."""
        return [fields(line) for line in self.lines if what in line]


@pytest.fixture
def line_log() -> LineLog:
    return LineLog()


@pytest.fixture
def context(loop: Loop, line_log: LineLog) -> Iterator[Context]:
    context = Context(loop.reactor, line_log, Statistics(), "vm", itertools.count())
    yield context
    for stream in tuple(context.streams):
        stream.abandon()


def fields(line: str) -> dict[str, str]:
    """Return the name=value fields of an outcome line; transport's as ``transport.state``."""
    found = {}
    for section, content in re.findall(r"(transport|stream|bytes|times) \[([^\]]*)\]", line):
        for pair in content.split(","):
            name, _, value = pair.partition("=")
            found[f"transport.{name}" if section == "transport" else name] = value
    return found


@pytest.fixture
def fields_of() -> Callable[[str], dict[str, str]]:
    return fields


class SocksServer(threading.Thread):
    """A SOCKS5 server with faults to order, on a free port.

    Args:
        faults: ``choice``, ``auth``, ``status``, ``version``, ``address_type``: the byte to send
            instead of the right one; ``hang`` or ``close``: the step (``choice``, ``auth``,
            ``request``) at which to say nothing, or good bye; ``dribble``: answer byte by byte;
            ``cut_after_bytes``: relay so much to the client and close; ``user``: the only
            name and password that are let in.
    """

    def __init__(self, **faults: Any) -> None:
        super().__init__(daemon=True)
        self.faults = faults
        self.requests: list[tuple[bytes, int]] = []
        self.credentials: list[tuple[bytes, bytes]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.peer = f"127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        for opened in [self.listener, *self._open]:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        self.join(5)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, IndexError), connection:
            self._handshake(connection)

    def _stops(self, step: str) -> bool:
        if self.faults.get("hang") == step:
            time.sleep(5)
        return step in (self.faults.get("hang"), self.faults.get("close"))

    def _say(self, connection: socket.socket, data: bytes) -> None:
        if not self.faults.get("dribble"):
            connection.sendall(data)
            return
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.002)

    def _handshake(self, connection: socket.socket) -> None:
        read = connection.makefile("rb", buffering=0).read

        def take(count: int) -> bytes:
            data = b""
            while len(data) < count:
                data += read(count - len(data)) or (_ for _ in ()).throw(EOFError)
            return data

        version, count = take(2)
        assert version == 5
        methods = take(count)
        if self._stops("choice"):
            return
        method = 2 if "user" in self.faults else 0
        self._say(connection, bytes([5, self.faults.get("choice", method)]))
        assert method in methods
        if method == 2:
            take(1)
            user = take(take(1)[0])
            password = take(take(1)[0])
            self.credentials.append((user, password))
            if self._stops("auth"):
                return
            wanted = self.faults["user"]
            is_right = wanted is None or (user, password) == wanted
            self._say(connection, bytes([1, self.faults.get("auth", 0 if is_right else 1)]))
        assert take(3) == b"\x05\x01\x00"
        kind = take(1)[0]
        host = take(4) if kind == 1 else take(take(1)[0])
        port = int.from_bytes(take(2), "big")
        self.requests.append((host, port))
        if self._stops("request"):
            return
        status = self.faults.get("status", 0)
        answer_type = self.faults.get("address_type", 1)
        address = {1: bytes(4), 3: b"\x04host", 4: bytes(16)}.get(answer_type, b"")
        head = bytes([self.faults.get("version", 5), status, 0, answer_type])
        upstream = None if status else socket.create_connection(("127.0.0.1", port))
        if upstream is not None:
            self._open.append(upstream)
        self._say(connection, head + address + bytes(2))
        if upstream is not None:
            threading.Thread(target=self._pump, args=(connection, upstream, 0), daemon=True).start()
            self._pump(upstream, connection, self.faults.get("cut_after_bytes", 0))

    def _pump(self, source: socket.socket, target: socket.socket, limit_bytes: int) -> None:
        moved = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if limit_bytes and moved + len(data) > limit_bytes:
                    target.sendall(data[: limit_bytes - moved])
                    break
                moved += len(data)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def socks_server() -> Iterator[Callable[..., SocksServer]]:
    servers: list[SocksServer] = []

    def start(**faults: Any) -> SocksServer:
        servers.append(SocksServer(**faults))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


class Program:
    """The generator as a child process with its log in a file."""

    def __init__(self, path: Path) -> None:
        self.log = path.with_suffix(".log")
        with self.log.open("wb") as output, path.with_suffix(".err").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "perfmeasure.tgen", str(path)],
                stdout=output,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": ""},
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def errors(self) -> str:
        return self.log.with_suffix(".err").read_text()

    def wait_for(self, pattern: str, seconds: float = 15) -> re.Match[str]:
        end = time.monotonic() + seconds
        while True:
            if found := re.search(pattern, self.text):
                return found
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.text}\n{self.errors}"
            assert self.process.poll() is None or re.search(pattern, self.text), self.errors
            time.sleep(0.02)

    @property
    def port(self) -> int:
        return int(self.wait_for(r"server listening at 0\.0\.0\.0:(\d+)")[1])

    def outcomes(self) -> list[dict[str, str]]:
        return [
            fields(line)
            for line in self.text.splitlines()
            if "[stream-success]" in line or "[stream-error]" in line
        ]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


@pytest.fixture
def tgen(tmp_path: Path) -> Iterator[Callable[[nx.DiGraph[str]], Program]]:
    """Call with a graph to run the generator on it."""
    programs: list[Program] = []

    def start(graph: nx.DiGraph[str]) -> Program:
        path = tmp_path / f"graph{len(programs)}.graphml.xml"
        write_graphml(graph, path)
        programs.append(Program(path))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
        program.process.wait(10)


class Wire:
    """The test's own end of a TCP connection, which never blocks for long."""

    def __init__(self, connection: socket.socket, loop: Loop) -> None:
        self.connection = connection
        self.loop = loop
        self.got = bytearray()
        self.is_closed = False
        connection.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send all, with the reactor running."""
        while data:
            with contextlib.suppress(BlockingIOError):
                data = data[self.connection.send(data) :]
            self.loop.reactor.iterate(0)

    def _read(self) -> None:
        try:
            data = self.connection.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.is_closed = True
            return
        self.got += data
        self.is_closed = not data

    def read_until(self, condition: Callable[[bytes], object], seconds: float = 10) -> bytes:
        """Read, with the reactor running, until ``condition`` of what came, or the end."""

        def is_enough() -> bool:
            self._read()
            return bool(condition(bytes(self.got))) or self.is_closed

        self.loop.until(is_enough, seconds)
        return bytes(self.got)

    def read_all(self) -> bytes:
        return self.read_until(lambda _: False)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()


class Ends:
    """Streams of ours whose other end the test holds."""

    def __init__(self, loop: Loop, context: Context) -> None:
        self.loop = loop
        self.context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wires: list[Wire] = []

    def _wire(self, connection: socket.socket) -> Wire:
        self._wires.append(Wire(connection, self.loop))
        return self._wires[-1]

    def commander(self, **options: Any) -> tuple[Stream, Wire]:
        """Return a stream that is a client, and the server's end."""
        stream = open_stream(
            self.context,
            "stream",
            StreamOptions(**options),
            Route(Peer("127.0.0.1", self._listener.getsockname()[1])),
            lambda ended: self.context.statistics.ended("stream", is_success=ended.is_success),
        )
        return stream, self._wire(self._listener.accept()[0])

    def server(self, **options: Any) -> tuple[Stream, Wire]:
        """Return a stream that serves, and the client's end."""
        wire = self._wire(socket.create_connection(self._listener.getsockname()))
        accepted, address = self._listener.accept()
        return accept_stream(self.context, StreamOptions(**options), accepted, address), wire

    def pair(self, **options: Any) -> tuple[Stream, list[Stream]]:
        """Return a client and (later) its server, both ours, connected to each other."""
        served: list[Stream] = []
        listener = Server(
            self.context.reactor, self.context.log, 0,
            lambda *found: served.append(accept_stream(self.context, StreamOptions(), *found)),
        )  # fmt: skip
        peer = Peer("127.0.0.1", listener.port)
        options = {"stallout_seconds": 0, **options}
        client = open_stream(
            self.context, "stream", StreamOptions(**options), Route(peer), lambda _: None
        )
        self.loop.until(lambda: served)
        listener.stop()
        return client, served

    def close(self) -> None:
        self._listener.close()
        for wire in self._wires:
            wire.connection.close()


@pytest.fixture
def ends(loop: Loop, context: Context) -> Iterator[Ends]:
    ends = Ends(loop, context)
    yield ends
    ends.close()
