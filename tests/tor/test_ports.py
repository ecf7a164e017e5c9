"""perfmeasure.tor.ports: ports that are free, and stay out of the way of outgoing connections."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.tor import ports


def test_free_ports_are_different_and_can_be_listened_on() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    for port in found:
        with socket.create_server(("127.0.0.1", port)):
            assert not ports.is_free(port)


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest > 11_000:
        assert all(10_000 <= port < lowest for port in ports.free_ports(20))


def test_a_listener_on_all_addresses_takes_the_port() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104
        assert not ports.is_free(listener.getsockname()[1])


def test_a_closed_connection_of_the_past_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server, _ = listener.accept()
        server.close()  # this end closes first, so it is the one in TIME_WAIT
        client.close()
    assert ports.is_free(port)


def test_without_free_ports_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _port: False)
    with pytest.raises(MeasurementError, match="only 0 of 2000 tried are free"):
        ports.free_ports(1)


def test_an_unreadable_range_is_the_kernels_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "none")
    assert all(10_000 <= port < 32_768 for port in ports.free_ports(5))


def test_a_range_that_leaves_no_room_is_shared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "range").write_text("1024 65535\n")
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "range")
    assert len(ports.free_ports(5)) == 5
