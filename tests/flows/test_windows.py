"""Windows on real maps; frames come by test runs, so that time is the only thing not under control.

What a real path does is in tests/integration/test_flows_live.py.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

import pytest

from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall, keys
from perfmeasure.flows.keys import Total
from perfmeasure.flows.windows import MARGIN_NS, Window, Windows

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

WINDOW_NS = 20_000_000


def udp(source_port: int, destination_port: int = 53, size: int = 60) -> bytes:
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0,
        socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2"),
    )  # fmt: skip
    head = bytes(12) + b"\x08\x00" + ip + struct.pack("!HHHH", source_port, destination_port, 8, 0)
    return head.ljust(size, b"\0")


def tcp(source: tuple[str, int], destination: tuple[str, int], flags: int) -> bytes:
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0,
        socket.inet_aton(source[0]), socket.inet_aton(destination[0]),
    )  # fmt: skip
    head = struct.pack("!HHIIBBHHH", source[1], destination[1], 0, 0, 0x50, flags, 1, 0, 0)
    return bytes(12) + b"\x08\x00" + ip + head


def make(length_ns: int = WINDOW_NS, *, is_service_key: bool = False) -> Windows:
    return Windows(length_ns, 64, functions=["count_xdp"], is_service_key=is_service_key)


@pytest.fixture(scope="module")
def windows(require: Callable[..., None]) -> Windows:
    require("root", "bpf")
    return make()


def feed(windows: Windows, *frames: bytes) -> None:
    for frame in frames:
        bpfcall.test_run(windows.program.fd("count_xdp"), frame)


def seen(swept: list[Window]) -> int:
    return sum(window.terms.seen.packets for window in swept)


def test_nothing_is_counted_before_it_begins(windows: Windows) -> None:
    feed(windows, udp(1))
    windows.begin()
    swept = windows.finish()
    assert seen(swept) == 0
    assert all(len(window.flows) == 0 for window in swept)


def test_flows_are_counted_with_times_in_their_window(windows: Windows) -> None:
    began_ns = windows.begin()
    feed(windows, udp(1), udp(1, size=90), udp(2))
    swept = [window for window in windows.finish() if window.terms.seen.packets]
    table = keys.merge([window.flows for window in swept])
    found = {int(row["src_port"]): (int(row["packets"]), int(row["bytes"])) for row in table}
    assert found == {1: (2, 150), 2: (1, 60)}
    for window in swept:
        window.terms.check("here")
        for row in window.flows:
            assert window.begin_ns <= row["first_ns"] <= row["last_ns"]
            assert row["last_ns"] < window.begin_ns + WINDOW_NS
    assert abs(swept[0].begin_unix_ts - time.time()) < 5
    assert swept[0].begin_ns > began_ns - WINDOW_NS


def test_windows_come_in_order_each_once_and_not_before_they_ended(windows: Windows) -> None:
    windows.begin()
    swept = []
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        feed(windows, udp(1))
        got = windows.sweep()
        now_ns = time.monotonic_ns()
        for window in got:
            assert window.begin_ns + WINDOW_NS + MARGIN_NS <= now_ns
        swept += got
    swept += windows.finish()
    numbers = [window.number for window in swept]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) >= 20
    for window in swept:
        window.terms.check("here")


def test_what_comes_while_no_slot_is_armed_is_late(require: Callable[..., None]) -> None:
    require("root", "bpf")
    windows = make(length_ns=200_000_000)
    windows.begin()
    feed(windows, udp(1))
    time.sleep(1.1)
    feed(windows, udp(2), udp(3))
    swept = windows.sweep()
    feed(windows, udp(4))
    swept += windows.finish()
    for window in swept:
        window.terms.check("here")
    table = keys.merge([window.flows for window in swept])
    assert sorted(table["src_port"].tolist()) == [1, 4]
    assert sum(window.terms.late.packets for window in swept) == 2


def test_counters_of_many_missed_windows_become_one(require: Callable[..., None]) -> None:
    require("root", "bpf")
    windows = make(length_ns=100_000)
    windows.begin()
    for _ in range(50):
        feed(windows, udp(1))
        time.sleep(0.002)
    swept = windows.finish()
    for window in swept:
        window.terms.check("here")
    assert seen(swept) == 50
    assert len(swept) <= keys.WINDOW_RING + keys.SLOTS


def test_what_finds_no_room_is_full_and_in_the_overflow(windows: Windows) -> None:
    windows.begin()
    feed(windows, *(udp(port) for port in range(1, 201)))
    swept = windows.finish()
    for window in swept:
        window.terms.check("here")
        assert len(window.flows) <= 64
        total = Total()
        for part in window.overflow:
            assert (part.direction, part.protocol) == (keys.INGRESS, 17)
            total = total.plus(part.total)
        assert total == window.terms.full
    full = sum(window.terms.full.packets for window in swept)
    assert full > 0
    assert windows.full_by_error() == {"E2BIG": full}


def test_what_is_no_flow_is_unparsed_by_reason(windows: Windows) -> None:
    before = windows.unparsed_by_reason()
    windows.begin()
    arp = bytes(12) + b"\x08\x06" + bytes(46)
    feed(windows, arp, udp(1)[:30], udp(1))
    swept = windows.finish()
    assert sum(window.terms.unparsed.packets for window in swept) == 2
    after = windows.unparsed_by_reason()
    more = {reason: count - before.get(reason, 0) for reason, count in after.items()}
    assert {reason: count for reason, count in more.items() if count} == {"not_ip": 1, "cut": 1}


def test_the_hook_has_a_count_of_its_own(require: Callable[..., None]) -> None:
    require("root", "bpf")
    windows = make()
    windows.begin()
    feed(windows, udp(1), udp(2))
    windows.finish()
    # A test run comes from loopback, whose index is 1.
    assert windows.hook_total(1, keys.INGRESS) == Total(2, 120)
    assert windows.hook_total(1, keys.EGRESS) == Total()


def test_without_the_barrier_the_slots_are_written_anew(
    windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(bpfcall, "wait_for_programs", refuse)
    windows.begin()
    feed(windows, udp(1), udp(2))
    swept = windows.finish()
    assert seen(swept) == 2
    assert not windows._has_barrier
    windows._has_barrier = True


@pytest.fixture(scope="module")
def services(require: Callable[..., None]) -> Windows:
    require("root", "bpf")
    return make(length_ns=3600 * 10**9, is_service_key=True)


def service_rows(services: Windows, *frames: bytes) -> set[tuple[str, int, str, int, int, int]]:
    services.begin()
    feed(services, *frames)
    table = keys.merge([window.flows for window in services.finish()])
    return {
        (
            keys.address_text(row["src_ip"].tobytes()),
            int(row["src_port"]),
            keys.address_text(row["dst_ip"].tobytes()),
            int(row["dst_port"]),
            int(row["packets"]),
            int(row["connects"]),
        )
        for row in table
    }


def test_with_the_service_key_many_connects_are_one_entry(services: Windows) -> None:
    client, service = "192.168.1.10", ("10.0.0.5", 80)
    frames = []
    for port in range(40000, 40100):
        frames += [
            tcp((client, port), service, 0x02),
            tcp(service, (client, port), 0x12),
            tcp((client, port), service, 0x11),
        ]
    assert service_rows(services, *frames) == {
        (client, 0, *service, 200, 100),
        (*service, client, 0, 100, 0),
    }


def test_a_million_connects_are_one_entry(services: Windows) -> None:
    services.begin()
    for port in range(20_000, 20_100):
        syn = tcp(("192.168.1.10", port), ("10.0.0.5", 80), 0x02)
        bpfcall.test_run(services.program.fd("count_xdp"), syn, repeat=10_000)
    (row,) = keys.merge([window.flows for window in services.finish()])
    assert (row["connects"], row["packets"], row["bytes"]) == (10**6, 10**6, 54 * 10**6)


def test_the_syn_says_which_side_is_the_service(services: Windows) -> None:
    """The service's port is the higher one here, and what follows has no SYN."""
    client, service = ("10.1.0.1", 1024), ("10.1.0.2", 9999)
    frames = [tcp(client, service, 0x02), tcp(service, client, 0x10), tcp(client, service, 0x10)]
    assert service_rows(services, *frames) == {
        ("10.1.0.1", 0, *service, 2, 1),
        (*service, "10.1.0.1", 0, 1, 0),
    }


def test_without_a_syn_the_lower_port_is_the_services(services: Windows) -> None:
    low, high = ("10.2.0.1", 443), ("10.2.0.2", 50000)
    assert service_rows(services, tcp(low, high, 0x10), tcp(high, low, 0x10)) == {
        (*low, "10.2.0.2", 0, 1, 0),
        ("10.2.0.2", 0, *low, 1, 0),
    }


def test_a_program_that_is_not_there_is_one_message(require: Callable[..., None]) -> None:
    require("root", "bpf")
    with pytest.raises(MissingError, match=r"no-such\.bpf\.c"):
        Windows(WINDOW_NS, file_name="no-such.bpf.c")
