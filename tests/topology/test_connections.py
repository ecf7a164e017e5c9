from __future__ import annotations

import socket
from typing import Any

import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.flows.connections import ORIGINS, SIDES, STATES, Flag, Record
from perfmeasure.topology import processes
from perfmeasure.topology.connections import ConnectionTable
from perfmeasure.topology.listeners import Listener, ListenerTable
from perfmeasure.topology.naming import Known, by_rules
from perfmeasure.topology.processes import Process

_SECOND = 10**9
_PAIR = ClockPair(utc_ns=2000 * _SECOND, monotonic_ns=1000 * _SECOND)
_BOOT = "83df3e82-9731-42c8-b042-e6fa74b517fd"


@pytest.fixture(autouse=True)
def _processes(monkeypatch: pytest.MonkeyPatch) -> None:
    live = {7: Process(7, 1, "app", "/"), 9: Process(9, 1, "web", "/")}
    monkeypatch.setattr(processes, "look_at", live.get)


def record(**fields: Any) -> Record:
    local, remote = (socket.inet_aton(ip).ljust(16, b"\0") for ip in ("10.0.0.1", "10.0.0.2"))
    values: dict[str, Any] = {
        "cookie": 0x1F, "netns": 42, "family": 2, "pid": 7, "command": b"app".ljust(16, b"\0"),
        "origin": ORIGINS.index("connect"), "side": SIDES.index("active"), "local_port": 5000,
        "remote_port": 80, "connect_ns": 900 * _SECOND, "established_ns": 901 * _SECOND,
        "flags": Flag.WAS_ESTABLISHED, "state": STATES.index("ESTABLISHED"), "acknowledged": 101,
        "received": 50, "local_address": local, "remote_address": remote,
    }  # fmt: skip
    return Record(**(values | fields))


def closed(**fields: Any) -> Record:
    flags = fields.pop("flags", Flag.WAS_ESTABLISHED) | Flag.IS_CLOSED
    return record(flags=flags, closed_ns=950 * _SECOND, **fields)


class Table:
    def __init__(self) -> None:
        self.told: list[Listener] = []
        known = Known(by_rules(()), lambda _: None)
        self.listeners = ListenerTable(known, self.told.append)
        self.table = ConnectionTable(known, self.listeners, _BOOT, 1890.0)

    def take(self, *records: Record) -> list[dict[str, Any]]:
        return self.table.take(list(records), _PAIR)


def test_an_end_is_told_at_once() -> None:
    assert Table().take(closed()) == [
        {
            "netns": 42, "id": "83df3e82-1f", "service": "app", "pid": 7, "command": "app",
            "side": "active", "protocol": "tcp", "src_ip": "10.0.0.1", "src_port": 5000,
            "dst_ip": "10.0.0.2", "dst_port": 80, "bytes_sent": 100, "bytes_received": 50,
            "start_unix_ts": 1900.0, "end_unix_ts": 1950.0, "state": "closed", "source": "ebpf",
        }
    ]  # fmt: skip


def test_of_a_live_one_the_last_state_is_told_when_it_is_asked_for() -> None:
    ours = Table()
    assert ours.take(record(acknowledged=2), record(acknowledged=11)) == []
    (line,) = ours.table.flush(_PAIR)
    assert (line["state"], line["bytes_sent"]) == ("open", 10)
    assert "end_unix_ts" not in line
    assert ours.table.flush(_PAIR) == []
    ours.take(record(acknowledged=21))
    assert len(ours.take(closed(acknowledged=31))) == 1
    assert ours.table.flush(_PAIR) == []


def test_a_connect_that_failed_is_no_connection() -> None:
    ours = Table()
    assert ours.take(closed(flags=Flag(0)), record(flags=Flag(0))) == []
    assert ours.table.flush(_PAIR) == []


def test_a_socket_that_connects_again_makes_another() -> None:
    first, second = Table().take(closed(), closed(reconnects=1))
    assert (first["id"], second["id"]) == ("83df3e82-1f", "83df3e82-1f.1")


def test_one_that_was_there_before_begins_with_the_records() -> None:
    (line,) = Table().take(closed(connect_ns=0, established_ns=0))
    assert line["start_unix_ts"] == 1890.0


def test_listeners_come_and_go_by_their_records() -> None:
    ours = Table()
    listening: dict[str, Any] = {
        "cookie": 3, "pid": 9, "command": b"web".ljust(16, b"\0"), "local_port": 80,
        "is_v6only": 1, "connect_ns": 0, "origin": ORIGINS.index("listen"), "side": 0,
    }  # fmt: skip
    assert ours.take(record(flags=Flag.IS_LISTENER, **listening)) == []
    (listener,) = ours.listeners.live
    assert (listener.name, listener.port, listener.is_v6only) == ("web", 80, True)
    assert listener.valid_from_unix_ts == 1901.0
    # Who accepted a connection that nobody read from or wrote to is told by the port.
    accepted = {"side": SIDES.index("passive"), "origin": 0, "pid": 0, "local_port": 80}
    (line,) = ours.take(closed(**accepted))
    assert (line["service"], line["pid"], line["side"]) == ("web", 9, "passive")
    ours.take(closed(flags=Flag.IS_LISTENER, **listening))
    assert ours.listeners.live == []
    assert [one.valid_to_unix_ts for one in ours.told] == [1950.0, 1950.0]  # the same one
    (line,) = ours.take(closed(**accepted))
    assert "service" not in line
