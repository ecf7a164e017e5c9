from __future__ import annotations

import socket
import threading

import pytest

from perfmeasure.errors import UsageError
from perfmeasure.topology.server import Broken, Server
from tests.topology import tsdb


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8428",
        "ftp://user:secret@host/",
        "http://",
        "http://user:secret@host:99999/",
        "http://user:secret@[::1/",
        "http://user:secret@host/?token=secret",
        "http://user:secret@host/#secret",
    ],
)
def test_what_is_no_url_is_told_without_what_is_secret_in_it(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        Server(url)
    assert "secret" not in str(raised.value).replace("user:password", "")


def test_user_and_password_are_sent_and_not_shown(misbehaving: tsdb.Misbehaving) -> None:
    url = misbehaving.url.replace("//", "//m%40x:p%3Aw@")
    server = Server(url + "/")
    assert str(server) == misbehaving.url
    assert server.ask("POST", "/api/v1/write", tsdb.NOTHING).status == 204
    assert misbehaving.headers[0]["Authorization"] == "Basic bUB4OnA6dw=="
    server.close()


def test_an_answer_is_told_in_one_line() -> None:
    with tsdb.misbehaving() as told:
        told.orders = [(503, {"Retry-After": "7"}, b"not\n now\x1b[31m" + b"x" * 999)]
        server = Server(told.url)
        answer = server.ask("POST", "/", tsdb.NOTHING)
        server.close()
    assert answer.retry_after_seconds == 7
    assert str(answer).startswith("HTTP 503: not now [31mx")
    assert len(str(answer)) < 400


@pytest.mark.parametrize(
    ("order", "why"), [("slow", "within 0.3 s"), ("drip", "within 0.3 s"), ("reset", "connection")]
)
def test_an_answer_that_does_not_come_is_told(
    misbehaving: tsdb.Misbehaving, order: str, why: str
) -> None:
    misbehaving.orders = [order]
    server = Server(misbehaving.url, timeout_seconds=60.0 if order == "reset" else 0.3)
    with pytest.raises(Broken, match=why):
        server.ask("POST", "/", tsdb.NOTHING)
    server = Server(misbehaving.url)
    assert server.ask("POST", "/", tsdb.NOTHING).status == 204
    server.close()


def test_nobody_there() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        server = Server(f"http://127.0.0.1:{one.getsockname()[1]}")
        with pytest.raises(Broken, match="nothing listens there"):
            server.ask("GET", "/")


def test_what_speaks_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            peer, _ = listening.accept()
            peer.recv(4096)
            peer.sendall(b"220 mail.example ESMTP\r\n")
            peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        server = Server(f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(Broken, match="connection"):
            server.ask("GET", "/")
        thread.join()
