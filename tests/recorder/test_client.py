from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.recorder.client import RemoteConsole
from tests.recorder.served import Kept

TOKEN = "0" * 64
HELLO = b"perfmeasure console 1\n"


@contextlib.contextmanager
def answering(*parts: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the port of a server, and the lines that it got; it sends a part, then reads a line."""
    got: list[bytes] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client, client.makefile("rb") as file:
            for part in parts:
                client.sendall(part)
                got.append(file.readline())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], got
        thread.join(30)
        assert not thread.is_alive()


def test_answers_and_data_go_where_they_belong() -> None:
    parts = [
        HELLO,
        b"OK\n",
        b"DATA p t 5\nOK\nab text\nDATA p t 0\n OK\nOK 1 packets\n",
        b"ERROR x\n",
    ]
    client = Kept()
    with answering(*parts) as (port, got):
        console = RemoteConsole("127.0.0.1", port, TOKEN, client)
        assert console.execute("find\nport 80", client) == "OK 1 packets"
        assert console.execute("nop", client) == "ERROR x"
        console.close()
    assert got == [f"token {TOKEN}\n".encode(), b"find port 80\n", b"nop\n", b""]
    assert client.lines == ["text", "OK"]
    assert client.blocks == [("p", "t", b"OK\nab"), ("p", "t", b"")]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([b"SSH-2.0-x\r\n"], "says b'SSH-2.0-x"),
        ([b"ERROR too many clients\n"], "too many clients"),
    ],
)
def test_a_stranger_is_not_told_the_token(parts: list[bytes], message: str) -> None:
    with answering(*parts) as (port, got), pytest.raises(MeasurementError, match=message):
        RemoteConsole("127.0.0.1", port, TOKEN, Kept())
    assert got == [b""]


def test_a_wrong_token_is_said() -> None:
    with (
        answering(HELLO, b"ERROR wrong token\n") as (port, _),
        pytest.raises(MeasurementError, match="wrong token") as caught,
    ):
        RemoteConsole("127.0.0.1", port, TOKEN, Kept())
    assert TOKEN not in str(caught.value)


def test_a_recorder_that_ends_is_an_error() -> None:
    with answering(HELLO, b"OK\n") as (port, _):
        console = RemoteConsole("127.0.0.1", port, TOKEN, Kept())
        with pytest.raises(MeasurementError, match="has closed the connection"):
            console.execute("nop", Kept())
        console.close()
    with pytest.raises(ConnectionRefusedError):
        RemoteConsole("127.0.0.1", port, TOKEN, Kept())
