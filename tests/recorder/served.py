"""A recorder on a real line whose console listens, and a client that talks to it byte by byte."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from perfmeasure.recorder import door
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.server import HOST, ConsoleServer
from tests.recorder.wire import Line, Running

SECONDS = 30.0


@contextlib.contextmanager
def served(
    line: Line, store: Path, setup: Setup | None = None, **options: Any
) -> Iterator[tuple[Running, int]]:
    """Yield a recorder that captures, and the port of its console."""
    running = Running(store, setup or Setup(), line.name)
    try:
        server = ConsoleServer(running.recorder, 0, running.messages.append, **options)
        with server:
            try:
                yield running, server.port
            finally:
                running.end()
    finally:
        running.stop()


class Talk:
    """A connection to a console, admitted or not."""

    def __init__(self, port: int, store: Path | None = None) -> None:
        self.socket = socket.create_connection((HOST, port), SECONDS)
        self._file = self.socket.makefile("rb")
        assert self._file.readline() == b"perfmeasure console 1\n"
        if store is not None:
            self.send(f"token {door.read_token(door.token_path(store))}\n".encode())
            assert self._file.readline() == b"OK\n"

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def line(self) -> bytes:
        return self._file.readline()

    def block(self) -> tuple[str, str, bytes]:
        """Return the next block of data."""
        word, program, tag, size = self.line().decode().split()
        assert word == "DATA"
        return program, tag, self._file.read(int(size))

    def ask(self, command: str) -> list[str]:
        """Give a command; return all lines of the answer."""
        self.send(f"{command}\n".encode())
        lines = [self.line().decode().rstrip("\n")]
        while lines[-1].startswith(" "):
            lines.append(self.line().decode().rstrip("\n"))
        return lines

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Kept:
    """A client in this process that keeps all that it is given."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.blocks: list[tuple[str, str, bytes]] = []

    def text(self, line: str) -> None:
        self.lines.append(line)

    def data(self, program: str, tag: str, content: bytes) -> None:
        self.blocks.append((program, tag, content))
