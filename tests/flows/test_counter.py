from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perfmeasure import checks
from perfmeasure.checks import Check, Status
from perfmeasure.errors import MeasurementError, MissingError
from perfmeasure.flows import keys
from perfmeasure.flows.counter import FlowCounter
from perfmeasure.flows.interfaces import choose_hooks
from perfmeasure.flows.keys import INGRESS, Total

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

PORT = 29999


def send(count: int, size: int = 100) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(count):
            sock.sendto(bytes(size), ("127.0.0.1", PORT))


def open_descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def ours(table: keys.Array) -> keys.Array:
    found: keys.Array = table[table["dst_port"] == PORT]
    return found


@pytest.mark.parametrize("is_xdp", [False, True])
@pytest.mark.parametrize("directions", ["auto", "both"])
def test_datagrams_over_loopback_are_counted_as_sent(
    directions: str, is_xdp: bool, require: Callable[..., None]
) -> None:
    require("root", "bpf")
    hooks = choose_hooks(["lo"], directions, is_xdp=is_xdp)
    with FlowCounter(hooks, 500_000_000) as counter:
        send(10)  # not attached yet
        counter.start()
        windows = []
        for _ in range(10):
            send(100)
            time.sleep(0.1)
            windows += counter.sweep()
        windows += counter.stop()
        send(10)  # not attached any more
        table = ours(keys.merge([window.flows for window in windows]))
        for direction in (0, 1) if directions == "both" else (0,):
            one_way = table[table["direction"] == direction]
            assert keys.total(one_way) == Total(1000, 142_000)
            assert (one_way["packets"] == 100).all()
            table = table[table["direction"] != direction]
        assert len(table) == 0
        assert counter.terms.missing() == Total()
        statistics = counter.program_statistics()
        assert set(statistics) == {hook.function for hook in hooks}
        assert all(run.run_count >= 1000 and run.run_time_ns for run in statistics.values())
        for count in counter.hook_counts():
            assert count.seen.packets >= 1000
            # Others may use loopback between the first look at its counters and the first count.
            assert count.interface.packets >= count.seen.packets
            if count.hook.direction == INGRESS and count.interface.packets == count.seen.packets:
                # Loopback counts without the Ethernet header.
                assert count.interface.bytes == count.seen.bytes - 14 * count.seen.packets
            assert count.fields()["seen_packets"] == count.seen.packets


def test_large_frames_have_their_true_length(require: Callable[..., None]) -> None:
    """A TCP stream over loopback goes in frames of several segments."""
    require("root", "bpf")
    size = 1_000_000
    with FlowCounter(choose_hooks(["lo"], "both", is_xdp=False), 10**9) as counter:
        counter.start()
        with socket.create_server(("127.0.0.1", PORT)) as server:
            client = socket.create_connection(("127.0.0.1", PORT))
            accepted, _ = server.accept()
            with client, accepted, accepted.makefile("rb") as stream:
                thread = threading.Thread(target=client.sendall, args=(bytes(size),))
                thread.start()
                assert len(stream.read(size)) == size
                thread.join()
                info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 216)
        # On a busy machine TCP may send some of it twice: tcpi_bytes_retrans of linux/tcp.h.
        (again,) = struct.unpack_from("=Q", info, 208)
        table = ours(keys.merge([window.flows for window in counter.stop()]))
    assert sorted(table["direction"].tolist()) == [0, 1]
    for row in table:
        assert row["segments"] > row["packets"]
        assert row["connects"] == 1
        # Headers of 66 bytes, of the SYN 74.
        assert row["bytes"] == size + again + 66 * row["packets"] + 8


def test_a_broken_law_fails_the_run(
    require: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One packet that is drained and was not seen is enough."""
    require("root", "bpf")
    with FlowCounter(choose_hooks(["lo"], "auto", is_xdp=False), 50_000_000) as counter:
        counter.start()
        send(10)
        finish = counter.windows.finish

        def one_too_many() -> list[object]:
            (*rest, last) = finish()
            drained = last.terms.drained.plus(Total(1, 60))
            return [*rest, replace(last, terms=last.terms.with_drained(drained))]

        monkeypatch.setattr(counter.windows, "finish", one_too_many)
        with pytest.raises(MeasurementError, match=r"^window of 20.*-1 packets and -60 bytes"):
            counter.stop()


def test_nothing_is_left_open(require: Callable[..., None]) -> None:
    require("root", "bpf")
    with FlowCounter(choose_hooks(["lo"], "both", is_xdp=False), 10**9) as counter:
        before = open_descriptors()
        counter.start()
        with pytest.raises(ZeroDivisionError), counter:
            raise ZeroDivisionError
        assert open_descriptors() == before


def test_without_the_right_it_is_said_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none = Check("BPF right", Status.MISSING, "cannot create a map: Operation not permitted", "x")
    monkeypatch.setattr(checks, "check_bpf_right", lambda: none)
    with pytest.raises(MissingError, match="cannot create a map"):
        FlowCounter(choose_hooks(["lo"], "auto", is_xdp=False), 10**9)
