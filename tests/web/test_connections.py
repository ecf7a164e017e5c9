from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from perfmeasure.web.connections import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., Any]

GET = b"GET /small.json HTTP/1.1\r\nHost: x\r\n\r\n"
TWO_LENGTHS = (
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)
SHORT = Limits(request_seconds=0.6, block_seconds=0.8, close_seconds=0.4, patience_seconds=0.2)


@pytest.fixture
def docroot(tmp_path: Path) -> Path:
    (tmp_path / "small.json").write_bytes(b'{"a":1}\n')
    (tmp_path / "middle.json").write_bytes(bytes(60_000))
    (tmp_path / "big.xz").write_bytes(os.urandom(1 << 16) * 400)
    return tmp_path


def _wait_until_closed(client: socket.socket) -> None:
    """Read until the server closes."""
    client.settimeout(20)
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass


def _wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_connection_carries_many_requests(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    with served.connect() as client:
        for _ in range(5):
            client.sendall(GET)
            answer = client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b'\r\n\r\n{"a":1}\n')
        assert served.service.connection_count == 1
    _wait_until(lambda: served.service.connection_count == 0)


def test_pipelined_requests_are_answered_in_order(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    last = b"HEAD /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = served.raw(GET * 2000 + last)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2000
    assert answer.count(b"HTTP/1.1 404 Not Found\r\n") == 1


def test_pipelined_requests_of_a_client_that_does_not_read_pile_up_nothing(
    serve: Serve, docroot: Path
) -> None:
    served = serve(docroot)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with served.connect(receive_buffer_bytes=4096) as client:
        client.sendall(GET.replace(b"small", b"middle") * 1500)
        time.sleep(0.5)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 30_000  # 1,500 answers are 90 MB
        received = 0
        client.settimeout(20)
        while received < 1500 * 60_000:
            received += len(client.recv(1 << 18))


def test_half_a_request_is_not_waited_for(serve: Serve, docroot: Path) -> None:
    served = serve(docroot, SHORT)
    for sent in (b"", b"GET /small", GET[:-2]):
        began = time.monotonic()
        with served.connect() as client:
            client.sendall(sent)
            _wait_until_closed(client)
            assert time.monotonic() - began > 0.3
    began = time.monotonic()
    with served.connect() as client:
        client.sendall(GET)
        assert client.recv(65536).endswith(b'{"a":1}\n')
        _wait_until_closed(client)
        assert time.monotonic() - began > 0.3


def test_a_byte_now_and_then_gains_no_time(serve: Serve, docroot: Path) -> None:
    served = serve(docroot, SHORT)
    with served.connect() as client:
        began = time.monotonic()
        for byte in GET * 100:
            try:
                client.sendall(bytes([byte]))
            except OSError:  # reset or broken pipe
                break
            time.sleep(0.1)
        assert time.monotonic() - began < 60  # for all bytes it would be 500 s


def test_a_reader_that_stands_still_is_given_up(serve: Serve, docroot: Path) -> None:
    served = serve(docroot, SHORT)
    with served.connect(receive_buffer_bytes=4096) as client:
        client.sendall(GET.replace(b"small.json", b"big.xz"))
        _wait_until(lambda: served.service.connection_count == 1)
        _wait_until(lambda: served.service.connection_count == 0)


def test_a_slow_reader_that_goes_on_is_served(serve: Serve, docroot: Path) -> None:
    limits = Limits(request_seconds=0.3, block_seconds=1.0, close_seconds=1.0)
    content = (docroot / "big.xz").read_bytes()[: 6 << 20]
    (docroot / "big.xz").write_bytes(content)
    served = serve(docroot, limits)
    with served.connect(receive_buffer_bytes=1 << 16) as client:
        client.sendall(GET.replace(b"small.json", b"big.xz"))
        began = time.monotonic()
        received = b""
        while not received.endswith(content[-100:]) or len(received) < len(content):
            received += client.recv(1 << 17)
            time.sleep(0.03)
        assert time.monotonic() - began > 1.0
    assert received.partition(b"\r\n\r\n")[2] == content


def test_a_client_that_takes_no_last_answer_is_given_up(serve: Serve, docroot: Path) -> None:
    served = serve(docroot, SHORT)
    with served.connect(receive_buffer_bytes=4096) as client:
        request = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        client.sendall(request.replace(b"small.json", b"big.xz"))
        client.shutdown(socket.SHUT_WR)
        _wait_until(lambda: served.service.connection_count == 0)


def test_bodies_are_refused_unread(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    head = b"GET /small.json HTTP/1.1\r\nHost: x\r\n"
    for sent in (
        head + b"Content-Length: 1000000000000\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        head + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    ):
        assert served.raw(sent).startswith(b"HTTP/1.1 413 ")
    post = head.replace(b"GET", b"POST") + b"Content-Length: 5\r\n\r\nhello" + GET
    answer = served.raw(post)
    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD, OPTIONS\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    none = head + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    assert served.raw(none).startswith(b"HTTP/1.1 200 ")


def test_an_endless_body_is_cut_off(serve: Serve, docroot: Path) -> None:
    served = serve(docroot, SHORT)
    with served.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            client.sendall(bytes(1 << 29))
    assert served.ask("/small.json")[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
        (b"a" * 100_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: 0123456789\r\n" * 2000 + b"\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (TWO_LENGTHS, b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET /\r\n\r\n", b"400"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(128, 192)) + b"\r\n\r\n",
            b"400",
        ),
        (b"GET / SMTP/1.0\r\n\r\n", b"400"),
    ],
)
def test_malformed_requests_are_refused(
    serve: Serve, docroot: Path, request_bytes: bytes, status: bytes
) -> None:
    served = serve(docroot)
    answer = served.raw(request_bytes)
    # The system may drop the answer with what we did not read; it never sends anything else.
    assert answer == b"" or answer.split(b" ")[1] == status
    assert served.ask("/small.json")[0] == 200
    _wait_until(lambda: served.service.connection_count == 0)


def test_connections_are_bounded_and_the_idle_make_room(serve: Serve, docroot: Path) -> None:
    served = serve(docroot, Limits(connections=20, patience_seconds=0.3))
    clients = [served.connect() for _ in range(20)]
    _wait_until(lambda: served.service.connection_count == 20)
    with served.connect() as refused:  # nobody has waited long: the new one has to go
        _wait_until_closed(refused)
    time.sleep(0.4)
    assert served.ask("/small.json")[0] == 200
    assert served.service.connection_count <= 20
    time.sleep(0.4)
    clients += [served.connect() for _ in range(200)]
    assert served.service.connection_count <= 20
    time.sleep(0.4)
    assert served.ask("/small.json")[0] == 200
    for client in clients:
        client.close()


def test_readers_that_stand_still_make_room_too(serve: Serve, docroot: Path) -> None:
    served = serve(docroot, Limits(connections=10, patience_seconds=0.3))
    clients = [served.connect(receive_buffer_bytes=4096) for _ in range(10)]
    for client in clients:
        client.sendall(GET.replace(b"small.json", b"big.xz"))
    _wait_until(lambda: served.service.connection_count == 10)
    time.sleep(0.8)
    for _ in range(5):
        assert served.ask("/small.json")[0] == 200
    for client in clients:
        client.close()


def test_two_hundred_at_once(serve: Serve, docroot: Path) -> None:
    # A client's next connection may come before the end of its last is noticed.
    served = serve(docroot, Limits(connections=2 * 200))
    wrong: list[object] = []
    content = (docroot / "middle.json").read_bytes()

    def fetch() -> None:
        for _ in range(5):
            try:
                status, _, body = served.ask("/middle.json")
            except OSError as error:
                wrong.append(error)
            else:
                if (status, body) != (200, content):
                    wrong.append(status)

    threads = [threading.Thread(target=fetch) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    _wait_until(lambda: served.service.connection_count == 0)


def test_every_file_is_closed_whatever_the_client_does(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)

    def open_files() -> int:
        links = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed since
                links.append(descriptor.readlink())
        return sum(link.is_relative_to(docroot) for link in links)

    for _ in range(10):
        client = served.connect(receive_buffer_bytes=4096)
        client.sendall(GET.replace(b"small.json", b"big.xz"))
        client.recv(100)
        client.close()
        served.ask("/small.json", "HEAD")
        served.ask("/small.json", If_None_Match="*")
        served.ask("/small.json", Range="bytes=100-")
        served.ask("/small.json", Range="bytes=1-2")
    _wait_until(lambda: open_files() == 0)
