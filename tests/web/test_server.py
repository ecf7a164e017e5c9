from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from twisted.application.service import IService, MultiService
from twisted.internet.task import Clock

from perfmeasure.errors import ExitStatus, InputError, MeasurementError, UsageError
from perfmeasure.web import server
from perfmeasure.web.server import docroot_service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Serve = Callable[..., Any]


def _service(docroot: Path, port: int = 0, interface: str = "127.0.0.1") -> server.DocrootService:
    return docroot_service(docroot, port, interface, on_error=print)


def test_it_is_a_service_like_any_other(tmp_path: Path) -> None:
    service = _service(tmp_path)
    assert IService.providedBy(service)
    parent = MultiService()
    service.setServiceParent(parent)
    assert parent.services == [service]


def test_it_listens_on_loopback_only_unless_told_otherwise(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path)
    assert served.service.url == f"http://127.0.0.1:{served.port}/"
    socket.create_connection(("127.0.0.1", served.port), 5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", served.port), 5)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MeasurementError) as caught:
            _service(tmp_path, port).startService()
    assert caught.value.exit_status == ExitStatus.FAILED
    assert str(caught.value).startswith(f"127.0.0.1:{port}: the port is taken by another program;")
    assert "--http-port" in str(caught.value)


def test_errors_of_listening_say_what_to_do() -> None:
    refused = server._listen_error("127.0.0.1:80", PermissionError(13, "Permission denied"))
    assert isinstance(refused, MeasurementError)
    assert "below 1024" in str(refused)
    other = server._listen_error("127.0.0.1:8081", OSError(23, "Too many open files in system"))
    assert isinstance(other, MeasurementError)
    assert "Too many open files" in str(other)


def test_an_address_of_another_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not have the address"):
        _service(tmp_path, 0, "192.0.2.1").startService()


@pytest.mark.parametrize("interface", ["localhost", "", "127.0.0.1:80", "eth0"])
def test_what_is_no_address_is_refused(tmp_path: Path, interface: str) -> None:
    with pytest.raises(UsageError, match="wanted an IPv4 or IPv6 address"):
        _service(tmp_path, 0, interface).startService()


def test_a_docroot_has_to_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="no such folder"):
        _service(tmp_path / "none").startService()
    with pytest.raises(InputError, match="not a folder"):
        _service(tmp_path / "file").startService()


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        server.check_docroot(tmp_path)


def test_stopping_ends_idle_connections_at_once_and_lets_answers_end(
    serve: Serve, tmp_path: Path
) -> None:
    content = os.urandom(1 << 16) * 300
    (tmp_path / "big.xz").write_bytes(content)
    served = serve(tmp_path)
    with served.connect() as idle, served.connect(receive_buffer_bytes=1 << 16) as busy:
        busy.sendall(b"GET /big.xz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = [busy.recv(1000)]
        stopping = threading.Thread(target=served.call, args=(served.service.stopService,))
        stopping.start()
        with pytest.raises(ConnectionResetError):
            assert idle.recv(1) != b""
        while block := busy.recv(1 << 18):
            received.append(block)
        stopping.join(10)
    assert b"".join(received).partition(b"\r\n\r\n")[2] == content
    with pytest.raises(ConnectionRefusedError):
        served.connect()


def test_stopping_does_not_wait_for_a_client_that_stands_still(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "big.xz").write_bytes(bytes(24 << 20))
    served = serve(tmp_path)
    with served.connect(receive_buffer_bytes=4096) as client:
        client.sendall(b"GET /big.xz HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1)
        began = time.monotonic()
        served.call(served.service.stopService)
        assert 2 < time.monotonic() - began < 25
    assert served.service.connection_count == 0


def test_it_can_be_stopped_before_it_began_and_twice(serve: Serve, tmp_path: Path) -> None:
    assert docroot_service(tmp_path, 0, on_error=print, reactor=Clock()).stopService().called
    served = serve(tmp_path)
    served.call(served.service.stopService)
    served.call(served.service.stopService)


def test_ipv6(serve: Serve, tmp_path: Path) -> None:
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110 - a file
        pytest.skip("no IPv6 here")
    served = serve(tmp_path)
    second = docroot_service(tmp_path, 0, "::1", on_error=print, reactor=served._reactor)
    served.call(second.startService)
    try:
        assert second.url == f"http://[::1]:{second.port}/"
        connection = http.client.HTTPConnection("::1", second.port, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        served.call(second.stopService)
