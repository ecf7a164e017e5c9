"""Records of connections against a relay's log, tcp_info, a capture and what was sent."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from collecting import collecting, inside_a_cgroup
from packet_relay import ADDRESSES, DEVICE, Packet, RelayedNetwork, captured, inside

from perfmeasure.clock import read_pair
from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall, btf, connection_source, headers
from perfmeasure.flows.connection_source import ConnectionSource, offsets
from perfmeasure.flows.connections import Record

DELAY_MS = 5.0
DROP_EVERY = 23
TOLERANCE_NS = 1_000_000

_DROPPER = """
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/pkt_cls.h>

BPF_ARRAY(counts, u64, 2);  // payload segments seen, and dropped

int drop(struct __sk_buff *skb) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct iphdr *ip = data;
    u32 offset;
    int seen = 0, dropped = 1;
    if ((void *)(ip + 1) > end)
        return TC_ACT_OK;
    offset = ip->version == 4 ? ip->ihl * 4 : sizeof(struct ipv6hdr);
    struct tcphdr *tcp = data + offset;
    if ((void *)(tcp + 1) > end || skb->len <= offset + tcp->doff * 4)
        return TC_ACT_OK;
    u64 *count = counts.lookup(&seen);
    if (!count || __sync_fetch_and_add(count, 1) % EVERY != EVERY - 1)
        return TC_ACT_OK;
    count = counts.lookup(&dropped);
    if (count)
        __sync_fetch_and_add(count, 1);
    return TC_ACT_SHOT;
}
"""


class Dropper:
    """Drops every n-th segment with payload that arrives on the relay's device of a namespace."""

    def __init__(self, namespaces: tuple[str, ...]) -> None:
        import bcc

        source = headers.folder_for_bcc(headers.find(), headers.cache_folder())
        if source is not None:
            os.environ["BCC_KERNEL_SOURCE"] = str(source)
        self._program = bcc.BPF(text=_DROPPER.encode(), cflags=[f"-DEVERY={DROP_EVERY}"])
        fd = self._program.load_func(b"drop", bcc.BPF.SCHED_CLS).fd
        self._links = []
        for namespace in namespaces:
            with inside(namespace):
                index = socket.if_nametoindex(DEVICE)
                self._links.append(bpfcall.link_create(fd, index, bpfcall.AttachType.TCX_INGRESS))

    @property
    def dropped(self) -> int:
        return int(self._program[b"counts"][1].value)

    def close(self) -> None:
        for link in self._links:
            os.close(link)


class Outcome(NamedTuple):
    """What the sockets of one connection knew before they were closed; client first."""

    client: tuple[str, int]
    server: tuple[str, int]
    sent: tuple[int, int]
    retransmitted: tuple[int, int]


def _all_acknowledged(sock: socket.socket) -> bool:
    import fcntl
    import termios

    return fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) == bytes(4)


def _total_retrans(sock: socket.socket) -> int:
    # struct tcp_info: tcpi_total_retrans is at 100.
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=I", info, 100)[0])


def _receive(sock: socket.socket, count: int) -> None:
    while count:
        data = sock.recv(min(count, 1 << 16))
        assert data
        count -= len(data)


def _exchange(client: socket.socket, target: tuple[Any, ...], listener: socket.socket,
              sizes: tuple[int, int]) -> Outcome:  # fmt: skip
    """Connect, ask, be answered, and read what the sockets know when all has arrived."""
    client.settimeout(30)
    client.connect(target)
    server, _ = listener.accept()
    with client, server:
        server.settimeout(30)
        sender = threading.Thread(target=client.sendall, args=(bytes(sizes[0]),))
        sender.start()
        _receive(server, sizes[0])
        sender.join()
        sender = threading.Thread(target=server.sendall, args=(bytes(sizes[1]),))
        sender.start()
        _receive(client, sizes[1])
        sender.join()
        deadline = time.monotonic() + 30
        while not (_all_acknowledged(client) and _all_acknowledged(server)):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return Outcome(
            client.getsockname()[:2], server.getsockname()[:2], sizes,
            (_total_retrans(client), _total_retrans(server)),
        )  # fmt: skip


class Run(NamedTuple):
    """All that is known of a run."""

    outcomes: list[Outcome]
    records: dict[tuple[tuple[str, int], tuple[str, int]], dict[str, Any]]
    relayed: list[Packet]
    captures: list[list[Packet]]
    dropped: int
    lost: list[dict[str, Any]]


def _capture(namespace: str, path: Path) -> subprocess.Popen[bytes]:
    tcpdump = ["tcpdump", "-i", DEVICE, "-Q", "out", "-s", "128", "-B", "32768", "-w", str(path)]
    process = subprocess.Popen(
        ["nsenter", f"--net={namespace}", *tcpdump, "--immediate-mode", "-U", "-Z", "root"],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"listening" in line:
            return process
    raise AssertionError("tcpdump ended")


@pytest.fixture(scope="module")
def run(
    require: Callable[..., None], is_long: bool, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    require("root", "bpf", "ip", "nsenter", "tcpdump")
    folder = tmp_path_factory.mktemp("relayed")
    count = 1000 if is_long else 200
    chance = random.Random(4)
    with (
        inside_a_cgroup() as group,
        collecting(folder / "connections.log", "--cgroup", str(group)) as collector,
    ):
        network = RelayedNetwork(folder, DELAY_MS)
        captures: list[subprocess.Popen[bytes]] = []
        dropper = None
        try:
            for side in (network.a, network.b):
                captures.append(_capture(side, folder / f"{len(captures)}.pcap"))
            dropper = Dropper((network.a, network.b))
            outcomes = _drive(network, count, chance)
            collector.until(lambda: len(collector.connections()) >= 2 * count)
            dropped = dropper.dropped
            relayed = network.packets()
        finally:
            if dropper is not None:
                dropper.close()
            for process in captures:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=30)
            network.close()
        assert collector.stop() == (0, "")
    records = {_ends(record): record for record in collector.connections()}
    lost = [record for record in collector.records() if record["record"] == "lost"]
    distance_ns = read_pair().distance_ns
    pcaps = [captured(folder / f"{number}.pcap", distance_ns) for number in range(2)]
    return Run(outcomes, records, relayed, pcaps, dropped, lost)


def _drive(network: RelayedNetwork, count: int, chance: random.Random) -> list[Outcome]:
    sizes = [(chance.randint(1, 60_000), chance.randint(1, 60_000)) for _ in range(count)]
    listeners = []
    for family, number in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        for _ in range(2):
            with inside(network.b):
                listener = socket.create_server((ADDRESSES[number][1], 0), family=family)
            listener.settimeout(30)
            listeners.append(listener)

    def work(worker: int) -> list[Outcome]:
        listener = listeners[worker]
        found = []
        for pair in sizes[worker :: len(listeners)]:
            with inside(network.a):
                client = socket.socket(listener.family)
            found.append(_exchange(client, listener.getsockname(), listener, pair))
        return found

    with ThreadPoolExecutor(len(listeners)) as workers:
        outcomes = [
            outcome for part in workers.map(work, range(len(listeners))) for outcome in part
        ]
    for listener in listeners:
        listener.close()
    return outcomes


def _ends(record: dict[str, Any]) -> tuple[tuple[str, int], tuple[str, int]]:
    return (
        (record["local_ip"], record["local_port"]),
        (record["remote_ip"], record["remote_port"]),
    )


def _both(run: Run) -> Iterator[tuple[Outcome, dict[str, Any], dict[str, Any]]]:
    for outcome in run.outcomes:
        ends = outcome.client, outcome.server
        yield outcome, run.records[ends], run.records[ends[::-1]]


def test_every_connection_has_a_record_at_both_ends(run: Run) -> None:
    assert len(run.records) == 2 * len(run.outcomes)
    assert run.lost == []
    for _, active, passive in _both(run):
        assert (active["side"], passive["side"]) == ("active", "passive")
        assert active["pid"] == passive["pid"] == os.getpid()
        assert active["netns"] != passive["netns"]


def test_bytes_are_what_was_sent(run: Run) -> None:
    for outcome, active, passive in _both(run):
        assert (active["bytes_sent"], active["bytes_received"]) == outcome.sent
        assert (passive["bytes_received"], passive["bytes_sent"]) == outcome.sent


def test_retransmits_are_those_of_tcp_info_and_of_the_capture(run: Run) -> None:
    repeated: defaultdict[tuple[tuple[str, int], tuple[str, int]], int] = defaultdict(int)
    highest: dict[tuple[tuple[str, int], tuple[str, int]], int] = {}
    for packet in (packet for capture in run.captures for packet in capture):
        if not packet.payload_bytes:
            continue
        flow = packet.source, packet.target
        end = packet.sequence + packet.payload_bytes
        # Numbers wrap round at 32 bits.
        if flow in highest and (packet.sequence - highest[flow]) & 0x80000000:
            repeated[flow] += 1
        elif flow not in highest or (end - highest[flow]) & 0x80000000 == 0:
            highest[flow] = end & 0xFFFFFFFF
    total = 0
    for outcome, active, passive in _both(run):
        told = active["retransmitted_segments"], passive["retransmitted_segments"]
        assert told == outcome.retransmitted
        flow = outcome.client, outcome.server
        assert told == (repeated[flow], repeated[flow[::-1]])
        total += sum(told)
    assert run.dropped > len(run.outcomes) / 2
    assert total >= run.dropped


def _with_payload(packets: list[Packet]) -> list[Packet]:
    return [packet for packet in packets if packet.payload_bytes]


def _by_flow(packets: Iterable[Packet]) -> defaultdict[Any, list[Packet]]:
    flows: defaultdict[Any, list[Packet]] = defaultdict(list)
    for packet in packets:
        flows[packet.source, packet.target].append(packet)
    return flows


def test_times_are_those_of_the_relay(run: Run) -> None:
    flows = _by_flow(run.relayed)
    captures = _by_flow(packet for capture in run.captures for packet in capture)
    errors: defaultdict[str, list[int]] = defaultdict(list)
    for outcome, active, passive in _both(run):
        there, back = (outcome.client, outcome.server), (outcome.server, outcome.client)
        # Writing to the TUN delivers, so what arrives is stamped between the two moments. The first
        # segments may have been dropped at the receiver's device.
        for record, name, packets in (
            (active, "syn_ack", _syns(flows[back])),
            (passive, "connect", _syns(flows[there])),
            (active, "first_received", _with_payload(flows[back])),
            (passive, "first_received", _with_payload(flows[there])),
        ):
            stamp = record[f"{name}_monotonic_ns"]
            errors[f"arrival: {record['side']} {name}"].append(
                min(max(one.before_ns - stamp, stamp - one.after_ns, 0) for one in packets)
            )
        # The relay comes late to a packet when the machine is busy, never early; the capture has
        # the kernel's own stamp of the same packet.
        for record, name, flow, choose in (
            (active, "connect", there, _syns),
            (active, "first_sent", there, _with_payload),
            (passive, "syn_ack", back, _syns),
            (passive, "first_sent", back, _with_payload),
        ):
            stamp = record[f"{name}_monotonic_ns"]
            label = f"{record['side']} {name}"
            errors[f"read: {label}"].append(choose(flows[flow])[0].read_ns - stamp)
            errors[f"capture: {label}"].append(choose(captures[flow])[0].read_ns - stamp)
        errors["read: active established after connect"].append(
            active["established_monotonic_ns"]
            - active["connect_monotonic_ns"]
            - (_syns(flows[back])[0].after_ns - _syns(flows[there])[0].read_ns)
        )
    for name, values in errors.items():
        values.sort()
        median, most = values[len(values) // 2], values[-1]
        print(f"{name}: ns off: least {values[0]}, median {median}, most {most}")  # noqa: T201 - figures
        if name.startswith("read: "):
            assert abs(median) <= TOLERANCE_NS, name
            assert values[0] >= 0 or name.endswith("connect"), name
        else:
            assert abs(values[0]) <= TOLERANCE_NS, name
            assert most <= TOLERANCE_NS, name


def _syns(packets: list[Packet]) -> list[Packet]:
    return [packet for packet in packets if packet.is_syn]


def _connect_and_close(count: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(count):
            with socket.create_connection(listener.getsockname()):
                listener.accept()[0].close()


def test_records_that_find_no_room_are_counted(
    require: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    require("root", "bpf")
    monkeypatch.setattr(connection_source, "RING_BYTES", os.sysconf("SC_PAGE_SIZE"))
    with inside_a_cgroup() as group:
        source = ConnectionSource(group)
        try:
            _connect_and_close(50)
            time.sleep(0.1)
            first = [Record.unpack(data) for data in source.read()]
            lost = source.lost()["ring_reservations"]
            assert 0 < len(first) < 50
            assert len(first) + lost == 100 + 2  # the listener's beginning and end
            _connect_and_close(3)
            time.sleep(0.1)
            assert len(source.read()) == 6 + 2
            assert source.lost() == {"ring_reservations": lost, "storage": 0}
        finally:
            source.close()


def test_a_kernel_without_a_member_is_told_of(
    require: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    require("bpf")
    types = btf.running_kernel()
    assert len(set(offsets(types).values())) > 10
    monkeypatch.setitem(connection_source._MEMBERS, "SRTT_US", "tcp_sock.no_such")
    with pytest.raises(MissingError, match=r"no member tcp_sock\.no_such"):
        offsets(types)


def test_a_group_that_is_gone_cannot_be_attached_to(
    require: Callable[..., None], tmp_path: Path
) -> None:
    require("root", "bpf")
    with pytest.raises(MissingError, match="cannot be attached"):
        ConnectionSource(tmp_path)
