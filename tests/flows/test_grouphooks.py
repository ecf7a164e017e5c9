from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from collecting import inside_a_cgroup

from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall, grouphooks, keys
from perfmeasure.flows.counter import FlowCounter
from perfmeasure.flows.grouphooks import GroupHook
from perfmeasure.flows.interfaces import Hook, choose_hooks
from perfmeasure.flows.keys import EGRESS, INGRESS, Total
from perfmeasure.flows.windows import Windows

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

_HOUR_NS = 3600 * 10**9


@pytest.fixture(autouse=True)
def _needs_bpf(require: Callable[..., None]) -> None:
    require("root", "bpf", "cgroup2")


def flows_of(counter: FlowCounter, **wanted: int) -> keys.Array:
    """Stop; return the flows with these values in their keys."""
    table = keys.merge([window.flows for window in counter.stop()])
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def test_a_group_has_the_frames_that_its_interface_has() -> None:
    """What goes over loopback within a group is seen four times, and is the same each time."""
    with inside_a_cgroup() as group:
        hooks: list[Hook | GroupHook] = [*grouphooks.both_ways(group)]
        hooks += choose_hooks(["lo"], "both", is_xdp=False)
        with FlowCounter(hooks, _HOUR_NS) as counter:
            counter.start()
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                with socket.create_server((host, 0), family=family) as listener:
                    port = listener.getsockname()[1]
                    client = socket.create_connection((host, port))
                    server, _ = listener.accept()
                for _ in range(20):
                    client.sendall(bytes(50_000))
                    assert len(server.recv(50_000, socket.MSG_WAITALL)) == 50_000
                server.close()
                client.close()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
                receiver.bind(("127.0.0.1", 0))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.sendto(bytes(100), receiver.getsockname())
            table = flows_of(counter, interface=socket.if_nametoindex("lo") & 0xFFFF)
            (ingress, egress) = counter.hook_counts()  # of the interface alone
            assert {ingress.hook, egress.hook} == set(hooks[2:])
    ours = table[(table["dst_port"] == port) | (table["src_port"] == port)]
    assert len(ours) == 4
    for row in ours:
        # Both hooks of a direction count into one row, each of them the same frames.
        assert row["packets"] % 2 == row["bytes"] % 2 == row["segments"] % 2 == 0
    to_server = ours[ours["dst_port"] == port]
    assert (to_server["connects"] == 2).all()
    headers = 14 + 40 + 32
    for row in to_server:
        assert row["bytes"] == 2 * 20 * 50_000 + headers * row["packets"] + 2 * 8
    (datagram, other) = table[table["protocol"] == 17]
    assert {datagram["direction"], other["direction"]} == {INGRESS, EGRESS}
    assert keys.total(table[table["protocol"] == 17]) == Total(4, 4 * 142)


def test_other_groups_are_not_counted() -> None:
    with inside_a_cgroup() as group:
        elsewhere = FlowCounter(grouphooks.both_ways(group), _HOUR_NS)
    group.mkdir()
    try:
        with elsewhere as counter:
            counter.start()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(bytes(100), ("127.0.0.1", 9))
            assert len(flows_of(counter)) == 0
            assert counter.terms.seen == Total()
    finally:
        group.rmdir()


def test_what_cannot_be_attached_to_is_one_message(tmp_path: Path) -> None:
    counter = FlowCounter(grouphooks.both_ways(tmp_path), _HOUR_NS)
    with counter, pytest.raises(MissingError, match=r"control group .* cannot be attached to"):
        counter.start()
    counter = FlowCounter(grouphooks.both_ways(tmp_path / "gone"), _HOUR_NS)
    with counter, pytest.raises(MissingError, match="No such file"):
        counter.start()


def _send(sock: socket.socket, count: int) -> None:
    for _ in range(count):
        sock.send(bytes(50))


def test_no_count_is_lost_to_an_interruption(is_long: bool) -> None:
    """More processes than processors send by one socket: they interrupt one another's counting."""
    count = 1_000_000 if is_long else 50_000
    processes = 2 * (os.cpu_count() or 1)
    with (
        inside_a_cgroup() as group,
        FlowCounter(grouphooks.both_ways(group), _HOUR_NS) as counter,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        counter.start()
        started = [
            multiprocessing.get_context("fork").Process(target=_send, args=(sender, count))
            for _ in range(processes)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(300)
            assert process.exitcode == 0
        table = flows_of(counter, dst_port=receiver.getsockname()[1])
    sent = Total(processes * count, processes * count * 92)
    for direction in (INGRESS, EGRESS):
        assert keys.total(table[table["direction"] == direction]) == sent
    assert counter.terms.missing() == Total()


def frame(ethernet_type: int, packet: bytes) -> bytes:
    return bytes(12) + ethernet_type.to_bytes(2, "big") + packet


def test_packets_of_a_group_are_parsed_as_those_of_an_interface() -> None:
    """The same frames go through both hooks; what is after the Ethernet header counts alike."""
    windows = Windows(_HOUR_NS, functions=["count_ingress", *grouphooks.FUNCTIONS])
    windows.begin()
    v4 = bytes.fromhex("4500001c00000000401100000a0000010a000002") + bytes.fromhex(
        "0400003500080000"
    )
    v6 = b"\x60" + bytes(3) + (8).to_bytes(2, "big") + b"\x11\x40" + bytes(15) + b"\1" + bytes(15)
    v6 += b"\2" + bytes.fromhex("0400003500080000")
    cut = v4[:10] + bytes(12)
    frames = [frame(0x0800, v4), frame(0x86DD, v6), frame(0x0800, cut[:20]), frame(0x0806, v4)]
    names = ["count_ingress", "count_cgroup_ingress", "count_cgroup_egress"]
    for name in names:
        for one in frames:
            assert bpfcall.test_run(windows.program.fd(name), one).return_value in {1, 2**32 - 1}
    (window,) = windows.finish()
    window.terms.check("test")
    assert window.terms.unparsed.packets == 6
    by_direction = {
        direction: window.flows[window.flows["direction"] == direction]
        for direction in (INGRESS, EGRESS)
    }
    assert by_direction[INGRESS]["packets"].tolist() == [2, 2]
    assert by_direction[EGRESS]["packets"].tolist() == [1, 1]
    lengths = sorted(len(one) for one in frames[:2])
    assert np.sort(by_direction[EGRESS]["bytes"]).tolist() == lengths
    assert np.sort(by_direction[INGRESS]["bytes"]).tolist() == [2 * length for length in lengths]


def test_the_names_of_interfaces_are_those_of_this_namespace() -> None:
    assert grouphooks.interface_names()[socket.if_nametoindex("lo") & 0xFFFF] == "lo"
