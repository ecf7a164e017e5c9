"""What the tests of the control port share: a tor without a network, and a port that only acts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LIMIT_SECONDS = 20.0


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {_LIMIT_SECONDS} s for {what}"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object], str], None]:
    """Wait until a condition holds, or fail."""
    return _until


class LoneTor:
    """A real tor with a control port and its network switched off."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.data = folder / "data"
        self.data.mkdir(mode=0o700)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.cookie = self.data / "control_auth_cookie"
        self._torrc = folder / "torrc"
        self._torrc.write_text(
            "\n".join(
                [
                    f"DataDirectory {self.data}",
                    f"ControlPort 127.0.0.1:{self.port}",
                    "DisableNetwork 1",
                    # Nobody beyond loopback is ever asked, whatever a test switches on.
                    f"DirAuthority none orport=1 no-v2 v3ident={'F' * 40} 127.0.0.1:1 {'F' * 40}",
                    "SocksPort 0",
                    "ShutdownWaitLength 0",
                    f"__OwningControllerProcess {os.getpid()}",
                    f"Log notice file {folder}/notice.log",
                    *lines,
                    "",
                ]
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start, and return when the control port answers."""
        self.cookie.unlink(missing_ok=True)
        program = shutil.which("tor", path=f"{os.environ['PATH']}:/usr/sbin") or "tor"
        self._process = subprocess.Popen(
            [program, "-f", self._torrc, "--defaults-torrc", os.devnull, "--quiet"],
            stdin=subprocess.DEVNULL,
        )
        _until(self._answers, "the control port of tor")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "tor ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Kill it, as the kernel does when memory runs out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def make_tor(
    require: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., LoneTor]]:
    """Start a tor without a network; the arguments are further torrc lines."""
    require("tor")
    started: list[LoneTor] = []

    def make(*lines: str) -> LoneTor:
        tor = LoneTor(tmp_path_factory.mktemp("tor"), *lines)
        started.append(tor)
        return tor.start()

    yield make
    for tor in started:
        tor.kill()


class FakePort:
    """A control port that acts: it answers commands from a table and sends what it is given.

    Args:
        answers: the beginning of a command -> the answer; the longest that fits is taken.
        greeting: sent to whoever connects.
    """

    def __init__(self, answers: dict[str, bytes], greeting: bytes = b"") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answers = answers
        self._greeting = greeting
        self.commands: list[str] = []
        self.connections = 0
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                self._peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._peer as peer:
                peer.sendall(self._greeting)
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        try:
            for raw in peer.makefile("rb"):
                command = raw.decode().rstrip("\r\n")
                self.commands.append(command)
                fits = [key for key in self._answers if command.startswith(key)]
                answer = self._answers[max(fits, key=len)] if fits else b"250 OK\r\n"
                peer.sendall(answer)
        except OSError:
            return

    def send(self, data: bytes) -> None:
        """Send bytes to who is connected."""
        assert self._peer is not None
        self._peer.sendall(data)

    def hang_up(self) -> None:
        """Close the present connection; the next one is accepted."""
        if self._peer is not None:
            with contextlib.suppress(OSError):  # who was connected may have been quicker
                self._peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):  # closed already, or never used
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self.hang_up()
        self._thread.join(_LIMIT_SECONDS)


_ANSWERS = {
    "PROTOCOLINFO": b'250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor="0.4.9.11"\r\n'
    b"250 OK\r\n",
    "GETINFO version": b"250-version=0.4.9.11 (git-1234)\r\n250 OK\r\n",
    "GETINFO status/version/current": b"250-status/version/current=recommended\r\n250 OK\r\n",
    "GETINFO status/bootstrap-phase": b"250-status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=100 "
    b'TAG=done SUMMARY="Done"\r\n250 OK\r\n',
}


@pytest.fixture
def make_port() -> Iterator[Callable[..., FakePort]]:
    """Open a port that acts like tor's, but for the answers given."""
    opened: list[FakePort] = []

    def make(answers: dict[str, bytes] | None = None, greeting: bytes = b"") -> FakePort:
        port = FakePort({**_ANSWERS, **(answers or {})}, greeting)
        opened.append(port)
        return port

    yield make
    for port in opened:
        port.close()


@pytest.fixture(scope="session")
def recorded(fixtures: Path) -> list[bytes]:
    """Messages that a real tor sent, from recorded logs."""
    content = b"".join(
        (fixtures / "torctl" / name).read_bytes()
        for name in ("sample_400lines.torctl.log", "buildtimeout_samples.log")
    )
    # The stamps are not tor's, nor are the lines of the program that recorded them.
    content = re.sub(rb"(?m)^[0-9-]{10} [0-9:]{8} [0-9.]+ (?!650)[^\n]*\n", b"", content)
    content = re.sub(rb"(?m)^[0-9-]{10} [0-9:]{8} [0-9.]+ (?=650)", b"\0", content)
    content = re.sub(rb"\r?\n", b"\r\n", content)
    return [part for part in content.split(b"\0") if part]
