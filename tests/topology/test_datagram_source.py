"""The kernel program against sockets of ours, in a control group of ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from collecting import inside_a_cgroup

from perfmeasure.errors import MissingError
from perfmeasure.topology import datagram_source, processes
from perfmeasure.topology.datagram_source import DatagramSource
from perfmeasure.topology.datagrams import Owner, Peer


@pytest.fixture
def source(require: Callable[..., None]) -> Iterator[DatagramSource]:
    require("root", "bpf", "cgroup2")
    with inside_a_cgroup() as group:
        made = DatagramSource(group)
        yield made
        made.close()


def _socket(family: int, host: str, port: int | None = 0) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    if port is not None:
        made.bind((host, port))
    return made


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_bytes_are_those_that_both_ends_know(
    source: DatagramSource, family: int, host: str
) -> None:
    with _socket(family, host) as server, _socket(family, host, None) as client:
        client.connect(server.getsockname())
        for count in (0, 1, 1400, 60000):  # the last is more than a packet holds
            client.send(bytes(count))
            assert len(server.recv(1 << 16)) == count
        server.sendto(bytes(7), client.getsockname())
        client.recv(99)
        ports = client.getsockname()[1], server.getsockname()[1]
        found = {peer.local_port: peer for _, peer in source.peers()}
        ours, theirs = found[ports[0]], found[ports[1]]
        assert (ours.bytes_sent, ours.bytes_received, ours.is_first_sent) == (61401, 7, True)
        assert (theirs.bytes_sent, theirs.bytes_received, theirs.is_first_sent) == (7, 61401, False)
        assert (ours.local_ip, ours.remote_ip, ours.remote_port) == (host, host, ports[1])
        assert ours.first_ns < ours.last_ns
        owner = ours.owner
        assert (owner.pid, owner.netns) == (os.getpid(), processes.network_namespace())
        assert owner.command_text() == Path("/proc/self/comm").read_text().strip()
    bound, *_, closed = source.events()
    assert (bound.is_closed, bound.ip, bound.port) == (False, host, ports[1])
    assert closed.is_closed
    assert bound.cookie == theirs.cookie
    assert source.lost() == {"datagram_sockets": 0, "datagrams": 0, "datagram_events": 0}


def test_one_socket_has_as_many_peers_as_there_are(source: DatagramSource) -> None:
    with _socket(socket.AF_INET, "127.0.0.1") as server:
        clients = [_socket(socket.AF_INET, "127.0.0.1") for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendto(bytes(number), server.getsockname())
            server.recv(99)
        port = server.getsockname()[1]
        found = {peer.remote_port: (key, peer) for key, peer in source.peers()
                 if peer.local_port == port}  # fmt: skip
        wanted = {client.getsockname()[1]: number for number, client in enumerate(clients)}
        assert {remote: peer.bytes_received for remote, (_, peer) in found.items()} == wanted
        key, peer = found[clients[3].getsockname()[1]]
        assert source.take(key) == peer
        assert source.take(key) is None
        for client in clients:
            client.close()


def test_a_socket_from_before_is_whose_it_is_said_to_be(require: Callable[..., None]) -> None:
    require("root", "bpf", "cgroup2")
    with inside_a_cgroup() as group, _socket(socket.AF_INET, "127.0.0.1") as before:
        source = DatagramSource(group)
        try:
            cookie = int.from_bytes(before.getsockopt(socket.SOL_SOCKET, 57, 8), "little")
            source.adopt(cookie, Owner(1, 4711, 42, 1, b"somebody"))
            with _socket(socket.AF_INET, "127.0.0.1") as other:
                source.adopt(_cookie(other), Owner(1, 4711, 42, 1, b"somebody"))
                before.sendto(b"x", other.getsockname())
                peers = {peer.cookie: peer for _, peer in source.peers()}
                assert peers[cookie].owner.pid == 4711
                assert peers[cookie].owner.command_text() == "somebody"
                # Of one that was made since, the program knows better.
                assert peers[_cookie(other)].owner.pid == os.getpid()
        finally:
            source.close()


def _cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 57, 8), "little")  # SO_COOKIE


def test_what_finds_no_room_is_counted(
    require: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    require("root", "bpf", "cgroup2")
    monkeypatch.setattr(datagram_source, "RING_BYTES", os.sysconf("SC_PAGE_SIZE"))
    with inside_a_cgroup() as group:
        source = DatagramSource(group)
        try:
            for _ in range(100):
                _socket(socket.AF_INET, "127.0.0.1").close()
            told, lost = len(source.events()), source.lost()["datagram_events"]
            assert lost > 0
            assert told + lost == 200
        finally:
            source.close()


def test_a_group_that_is_gone_is_said(require: Callable[..., None], tmp_path: Path) -> None:
    require("root", "bpf")
    with pytest.raises(MissingError) as caught:
        DatagramSource(tmp_path / "gone")
    assert "cannot be attached" in str(caught.value)


def test_a_peer_is_read_as_the_kernel_writes_it() -> None:
    key = (0x1F).to_bytes(8, "little") + bytes(10) + b"\xff\xff\x0a\x00\x00\x01"
    key += bytes(15) + b"\1" + (53).to_bytes(2, "little") + (99).to_bytes(2, "little") + bytes(4)
    peer = Peer.unpack(key, bytes(80))
    assert (peer.cookie, peer.local_ip, peer.remote_ip) == (0x1F, "10.0.0.1", "::1")
    assert (peer.local_port, peer.remote_port, peer.is_first_sent) == (53, 99, False)
