from __future__ import annotations

from typing import Any

import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.topology import processes
from perfmeasure.topology.datagrams import DatagramTable, Event, Owner, Peer
from perfmeasure.topology.listeners import Listener, ListenerTable
from perfmeasure.topology.naming import Known, by_rules
from perfmeasure.topology.processes import Process

_SECOND = 10**9
_PAIR = ClockPair(utc_ns=2000 * _SECOND, monotonic_ns=1000 * _SECOND)
_OWNER = Owner(0, 7, 42, 0, b"dns".ljust(16, b"\0"))


@pytest.fixture(autouse=True)
def _processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "look_at", {7: Process(7, 1, "dns", "/")}.get)


def peer(**fields: Any) -> Peer:
    values: dict[str, Any] = {
        "cookie": 0x1F, "local_ip": "10.0.0.1", "local_port": 53, "remote_ip": "10.0.0.2",
        "remote_port": 5000, "bytes_sent": 10, "bytes_received": 20, "first_ns": 990 * _SECOND,
        "last_ns": 999 * _SECOND, "is_first_sent": False, "owner": _OWNER,
    }  # fmt: skip
    return Peer(**(values | fields))


def event(**fields: Any) -> Event:
    values: dict[str, Any] = {
        "cookie": 0x1F, "time_ns": 980 * _SECOND, "is_closed": False, "port": 53,
        "ip": "0.0.0.0", "owner": _OWNER,  # noqa: S104
    }  # fmt: skip
    return Event(**(values | fields))


class Scene:
    """A kernel that has what a test puts in, and the table over it."""

    def __init__(self) -> None:
        self.waiting: list[Event] = []
        self.counted: dict[bytes, Peer] = {}
        known = Known(by_rules(()), lambda _: None)
        self.told: list[Listener] = []
        self.listeners = ListenerTable(known, self.told.append)
        self.table = DatagramTable(
            self, known, self.listeners, boot_id="83df3e82-9731", netns=42,
            is_service=lambda port: port < 32768,
        )  # fmt: skip

    def events(self) -> list[Event]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def peers(self) -> list[tuple[bytes, Peer]]:
        return list(self.counted.items())

    def take(self, key: bytes) -> Peer | None:
        return self.counted.pop(key, None)

    def flush(self) -> list[dict[str, Any]]:
        self.table.take_events(_PAIR)
        return self.table.flush(_PAIR)


def test_what_grows_is_told_again_and_what_does_not_is_not() -> None:
    scene = Scene()
    scene.counted[b"a"] = peer()
    assert scene.flush() == [
        {
            "netns": 42, "id": "83df3e82-1f-e680992c00", "service": "dns", "pid": 7,
            "command": "dns", "side": "passive", "protocol": "udp", "src_ip": "10.0.0.1",
            "src_port": 53, "dst_ip": "10.0.0.2", "dst_port": 5000, "bytes_sent": 10,
            "bytes_received": 20, "start_unix_ts": 1990.0, "state": "open", "source": "ebpf",
        }
    ]  # fmt: skip
    assert scene.flush() == []
    scene.counted[b"a"] = peer(bytes_sent=11, last_ns=999 * _SECOND + 1)
    assert [line["bytes_sent"] for line in scene.flush()] == [11]


def test_a_closed_socket_ends_all_it_had() -> None:
    scene = Scene()
    scene.counted = {b"a": peer(), b"b": peer(remote_port=5001), b"c": peer(cookie=2)}
    scene.flush()
    scene.waiting = [event(is_closed=True, time_ns=999 * _SECOND)]
    lines = scene.flush()
    assert [(line["state"], line["end_unix_ts"]) for line in lines] == [("closed", 1999.0)] * 2
    assert list(scene.counted) == [b"c"]
    assert scene.flush() == []


def test_silence_ends_it_with_the_last_datagram() -> None:
    scene = Scene()
    scene.counted = {b"a": peer(last_ns=930 * _SECOND, first_ns=920 * _SECOND)}
    (line,) = scene.flush()
    assert (line["state"], line["end_unix_ts"]) == ("closed", 1930.0)
    assert scene.counted == {}


def test_other_namespaces_are_passed_over_and_swept() -> None:
    scene = Scene()
    elsewhere = _OWNER._replace(netns=43)
    scene.counted = {b"a": peer(owner=elsewhere), b"b": peer(owner=elsewhere, last_ns=1)}
    scene.waiting = [event(owner=elsewhere)]
    assert scene.flush() == []
    assert list(scene.counted) == [b"a"]
    assert scene.listeners.live == []


def test_who_sends_first_has_called() -> None:
    scene = Scene()
    scene.counted = {b"a": peer(is_first_sent=True), b"b": peer(cookie=2)}
    assert [line["side"] for line in scene.flush()] == ["active", "passive"]


def test_of_a_socket_that_was_there_before_the_table_of_listeners_says_it() -> None:
    scene = Scene()
    before = _OWNER._replace(existed_before=1)
    scene.waiting = [event()]
    scene.table.take_events(_PAIR)
    scene.counted = {
        b"a": peer(owner=before),
        b"b": peer(owner=before, is_first_sent=True),
        b"c": peer(owner=before, cookie=2),
    }
    assert [line["side"] for line in scene.flush()] == ["passive", "unknown", "active"]


def test_a_bound_socket_listens_from_then_until_it_is_closed() -> None:
    scene = Scene()
    scene.waiting = [event()]
    scene.flush()
    (listener,) = scene.listeners.live
    assert (listener.name, listener.protocol, listener.port) == ("dns", "udp", 53)
    assert listener.valid_from_unix_ts == 1980.0
    scene.waiting = [event(is_closed=True, time_ns=985 * _SECOND)]
    scene.flush()
    assert scene.listeners.live == []
    assert listener.valid_to_unix_ts == 1985.0


def test_one_on_a_port_of_the_kernels_choice_listens_if_it_is_called() -> None:
    scene = Scene()
    scene.waiting = [event(port=40000), event(cookie=2, port=40001)]
    scene.counted = {b"b": peer(cookie=2, is_first_sent=True)}
    scene.flush()
    assert scene.listeners.live == []
    scene.counted[b"a"] = peer()
    scene.flush()
    (listener,) = scene.listeners.live
    assert (listener.port, listener.valid_from_unix_ts) == (40000, 1980.0)
