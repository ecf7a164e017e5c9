from __future__ import annotations

import socket
from typing import Any

import pytest

from perfmeasure.flows.connections import STATES
from perfmeasure.topology import processes
from perfmeasure.topology.listeners import (
    Listener,
    ListenerTable,
    ephemeral_ports,
    is_service,
)
from perfmeasure.topology.naming import Known, by_rules
from perfmeasure.topology.processes import Process
from perfmeasure.topology.sockdiag import Socket

_NETNS = 42
_PROCESSES = {pid: Process(pid, pid * 100, name, "/") for pid, name in
              {1: "systemd", 7: "nginx", 8: "nginx", 9: "redis"}.items()}  # fmt: skip


class Table:
    """A table, and what it told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, float, float | None]] = []
        self.table = ListenerTable(Known(by_rules(()), lambda _: None), self._take)

    def _take(self, one: Listener) -> None:
        self.told.append((one.name, one.port, one.valid_from_unix_ts, one.valid_to_unix_ts))

    def reconcile(self, unix_ts: float, *sockets: Socket, **holders: list[int]) -> None:
        by_inode = {int(inode[1:]): pids for inode, pids in holders.items()}
        self.table.reconcile(_NETNS, sockets, by_inode, unix_ts)


@pytest.fixture(autouse=True)
def _processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "look_at", _PROCESSES.get)


def listener(cookie: int, port: int, pid: int, unix_ts: float) -> Listener:
    return Listener(
        cookie, _NETNS, "tcp", "0.0.0.0", port, False, _PROCESSES[pid], "", unix_ts  # noqa: S104
    )  # fmt: skip


def listed(cookie: int, port: int, inode: int, **more: Any) -> Socket:
    fields: dict[str, Any] = {
        "protocol": socket.IPPROTO_TCP, "family": 2, "state": STATES.index("LISTEN"),
        "local_ip": "0.0.0.0", "local_port": port, "remote_ip": "0.0.0.0",  # noqa: S104
        "remote_port": 0, "cookie": cookie, "inode": inode, "is_v6only": False, "cgroup_id": 0,
        "bytes_sent": 0, "bytes_received": 0, "data_segments_received": 0,
    }  # fmt: skip
    return Socket(**(fields | more))


def test_what_the_kernel_tells_is_told_with_its_times() -> None:
    ours = Table()
    ours.table.opened(listener(1, 80, 7, 10.0))
    assert ours.table.at(_NETNS, "tcp", 80) is not None
    assert ours.table.at(_NETNS + 1, "tcp", 80) is None
    ours.table.closed(1, 12.5)
    ours.table.closed(1, 13.0)
    assert ours.told == [("nginx", 80, 10.0, None), ("nginx", 80, 10.0, 12.5)]
    assert ours.table.live == []
    assert ours.table.at(_NETNS, "tcp", 80) is None


def test_two_sockets_at_one_port_are_two() -> None:
    ours = Table()
    ours.table.opened(listener(1, 80, 7, 10.0))
    ours.table.opened(listener(2, 80, 8, 11.0))
    ours.table.closed(2, 12.0)
    at = ours.table.at(_NETNS, "tcp", 80)
    assert at is not None
    assert at.process.pid == 7


def test_a_list_adds_what_it_has_and_ends_what_it_has_not() -> None:
    ours = Table()
    ours.reconcile(5.0, listed(1, 80, 11), listed(2, 81, 12), i11=[7], i12=[1, 9])
    assert ours.told == [("nginx", 80, 5.0, None), ("redis", 81, 5.0, None)]
    ours.reconcile(6.0, listed(1, 80, 11))
    assert ours.told[2:] == [("redis", 81, 5.0, 6.0)]
    # What the kernel tells of while the list is made is not in the list yet.
    ours.table.opened(listener(3, 82, 9, 7.5))
    ours.reconcile(7.0, listed(1, 80, 11))
    assert {one.port for one in ours.table.live} == {80, 82}


def test_one_that_nobody_holds_is_nobodys() -> None:
    ours = Table()
    ours.reconcile(5.0, listed(1, 80, 11), listed(2, 81, 0))
    assert ours.told == []


def test_what_init_hands_over_is_the_services_from_then_on() -> None:
    ours = Table()
    ours.table.opened(listener(1, 80, 1, 5.0))
    ours.reconcile(6.0, listed(1, 80, 11), i11=[1])
    ours.reconcile(7.0, listed(1, 80, 11), i11=[7])
    assert ours.told == [
        ("systemd", 80, 5.0, None), ("systemd", 80, 5.0, 7.0), ("nginx", 80, 7.0, None),
    ]  # fmt: skip
    # A child of the same name is no news.
    ours.reconcile(8.0, listed(1, 80, 11), i11=[8])
    assert len(ours.told) == 3


def test_the_list_knows_better_whether_it_is_for_ipv6_only() -> None:
    ours = Table()
    ours.table.opened(listener(1, 80, 7, 5.0))
    ours.reconcile(6.0, listed(1, 80, 11, is_v6only=True))
    assert [one.is_v6only for one in ours.table.live] == [True]
    assert len(ours.told) == 2


def test_a_line_has_the_programs_name_and_no_loopback() -> None:
    process = Process(7, 0, "nginx", "/system.slice/nginx.service")
    line = Listener(1, 2, "tcp", "::", 80, False, process, "web", 3.0).line(
        "host", ["10.0.0.1", "127.0.0.1", "127.0.1.1", "::1", "fe80::1"]
    )
    assert line == {
        "instance_id": "host", "instance_ips": ["10.0.0.1", "fe80::1"], "netns": 2, "name": "web",
        "pid": 7, "command": "nginx", "protocol": "tcp", "listen_ip": "::", "listen_port": 80,
        "is_v6only": False, "valid_from_unix_ts": 3.0, "unit": "nginx.service",
    }  # fmt: skip


def test_a_datagram_socket_is_a_service_by_its_port() -> None:
    ephemeral = ephemeral_ports()
    assert 0 < ephemeral.start < ephemeral.stop <= 65536
    closed, connected = STATES.index("CLOSE"), STATES.index("ESTABLISHED")
    assert is_service(listed(1, 53, 1, state=closed), range(32768, 61000))
    assert not is_service(listed(1, 40000, 1, state=closed), range(32768, 61000))
    assert not is_service(listed(1, 53, 1, state=connected), range(32768, 61000))
    assert not is_service(listed(1, 0, 1, state=closed), range(32768, 61000))
