"""perfmeasure.tor.conversation against a real tor, and against what is none."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from perfmeasure.errors import ControlError
from perfmeasure.tor.conversation import ControlClient, ControlRefusedError
from perfmeasure.tor.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def start_tor(make_tor: Callable[..., Any], until: Callable[..., None]) -> Callable[[], Any]:
    def start() -> Any:
        tor = make_tor("CookieAuthentication 1")
        # tor opens its port a moment before it writes the cookie.
        until(lambda: tor.cookie.exists() and tor.cookie.stat().st_size == 32, "the cookie")
        return tor

    return start


@pytest.fixture(scope="module")
def tor(start_tor: Callable[[], Any]) -> Any:
    return start_tor()


def test_questions_and_commands(tor: Any) -> None:
    with ControlClient(tor.port, tor.cookie) as client:
        assert client.getinfo("version").startswith("0.")
        assert client.getinfo("config-text").count("\n") > 2  # an answer of several lines
        client.command("SIGNAL RELOAD")


def test_refusals_leave_the_conversation_open(tor: Any) -> None:
    with ControlClient(tor.port, tor.cookie) as client:
        with pytest.raises(ControlRefusedError, match="GETINFO no/such"):
            client.getinfo("no/such")
        with pytest.raises(ControlRefusedError, match="Unrecognized command"):
            client.command("NOSUCHCOMMAND")
        assert client.getinfo("version")


def test_wrong_cookie(tor: Any, tmp_path: Path) -> None:
    (tmp_path / "cookie").write_bytes(b"x" * 32)
    with pytest.raises(ControlError, match="does not take the cookie"):
        ControlClient(tor.port, tmp_path / "cookie")


def test_no_cookie(tor: Any, tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="does not take the cookie"):
        ControlClient(tor.port, tmp_path / "none")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot be reached"):
        ControlClient(free_ports(1)[0], tmp_path / "cookie")


def test_a_tor_that_is_owned_ends_with_the_conversation(start_tor: Callable[[], Any]) -> None:
    tor = start_tor()
    client = ControlClient(tor.port, tor.cookie)
    client.take_ownership()
    client.close()
    deadline = time.monotonic() + 10
    while tor._process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_tor_is_noticed(start_tor: Callable[[], Any]) -> None:
    tor = start_tor()
    client = ControlClient(tor.port, tor.cookie)
    tor.kill()
    with pytest.raises(ControlError, match="broke off"):
        client.getinfo("version")
    client.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"250 OK\r\n"])
def test_what_is_no_control_port(answer: bytes, tmp_path: Path) -> None:
    (tmp_path / "cookie").write_bytes(b"x" * 32)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):  # stem tries a second time
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(100)
                    peer.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(ControlError):
            ControlClient(listener.getsockname()[1], tmp_path / "cookie", limit_seconds=0.5)
        listener.shutdown(socket.SHUT_RDWR)


def test_who_never_answers_is_left(tmp_path: Path) -> None:
    (tmp_path / "cookie").write_bytes(b"x" * 32)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = time.monotonic()
        with pytest.raises(ControlError):
            ControlClient(listener.getsockname()[1], tmp_path / "cookie", limit_seconds=0.2)
        assert time.monotonic() - before < 5
