"""Records of connections against a relay's log, tcp_info, a capture and what was sent."""

from __future__ import annotations

import os
import random
import shutil
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

import perfmeasure
from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall, btf, connection_source, headers
from perfmeasure.flows.connection_source import ConnectionSource, offsets
from perfmeasure.flows.connections import Record

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

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
    connecting_ns: int
    """Before the call of connect(2)."""
    sending_ns: tuple[int, int]
    """Before the first call of send(2) at each end."""


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


def _send(sock: socket.socket, count: int, began_ns: list[int]) -> None:
    data = bytes(count)
    began_ns.append(time.monotonic_ns())
    sock.sendall(data)


def _exchange(client: socket.socket, target: tuple[Any, ...], listener: socket.socket,
              sizes: tuple[int, int]) -> Outcome:  # fmt: skip
    """Connect, ask, be answered, and read what the sockets know when all has arrived."""
    client.settimeout(30)
    connecting_ns = time.monotonic_ns()
    client.connect(target)
    server, _ = listener.accept()
    began_ns: list[int] = []
    with client, server:
        server.settimeout(30)
        for source, drain, size in ((client, server, sizes[0]), (server, client, sizes[1])):
            sender = threading.Thread(target=_send, args=(source, size, began_ns))
            sender.start()
            _receive(drain, size)
            sender.join()
        deadline = time.monotonic() + 30
        while not (_all_acknowledged(client) and _all_acknowledged(server)):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return Outcome(
            client.getsockname()[:2], server.getsockname()[:2], sizes,
            (_total_retrans(client), _total_retrans(server)),
            connecting_ns, (began_ns[0], began_ns[1]),
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
    return _measured(tmp_path_factory.mktemp("relayed"), 1000 if is_long else 200)


def _measured(folder: Path, count: int, *wrapper: str) -> Run:
    """Have so many connections recorded; ``wrapper`` is what to start the collector with."""
    chance = random.Random(4)
    log = folder / "connections.log"
    with (
        inside_a_cgroup() as group,
        collecting(log, "--cgroup", str(group), wrapper=wrapper) as collector,
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
    pcaps = [captured(folder / f"{number}.pcap") for number in range(2)]
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
        # So that no other process comes between a stamp and the packet. Its senders inherit it.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
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


SLACK_NS = 20_000
"""A packet's stamp is UTC, converted by a pair of clocks that were read one after the other."""


class Bracket(NamedTuple):
    """A time of a record, and two moments between which it has to lie."""

    name: str
    earliest_ns: int
    stamp_ns: int
    latest_ns: int

    @property
    def holds(self) -> bool:
        return self.earliest_ns - SLACK_NS <= self.stamp_ns <= self.latest_ns + SLACK_NS

    @property
    def width_ns(self) -> int:
        return self.latest_ns - self.earliest_ns


def _written(name: str, stamp_ns: int, packets: list[Packet]) -> Bracket:
    """Return the bracket of a packet's arrival: the relay's write that it fits, else the nearest.

    The first two may have been dropped at the receiver's device.
    """

    def distance_ns(one: Packet) -> int:
        return max(one.before_ns - stamp_ns, stamp_ns - one.after_ns, 0)

    packet = min(packets[:3], key=distance_ns)
    return Bracket(name, packet.before_ns, stamp_ns, packet.after_ns)


def brackets(run: Run) -> Iterator[Bracket]:
    """Yield the brackets of all times of all connections.

    What arrives is stamped while the relay writes it. What is sent is stamped after the call that
    made the kernel send it (for a SYN/ACK, the relay's write of the SYN), and before the packet
    comes to the relay's device.
    """
    flows = _by_flow(run.relayed)
    for outcome, active, passive in _both(run):
        there = flows[outcome.client, outcome.server]
        back = flows[outcome.server, outcome.client]
        syn, syn_ack = _syns(there), _syns(back)
        asked, answered = _with_payload(there), _with_payload(back)

        def of(record: dict[str, Any], name: str) -> tuple[str, int]:
            return f"{record['side']} {name}", record[f"{name}_monotonic_ns"]

        for record, name, packets in (
            (active, "syn_ack", syn_ack),
            (active, "established", syn_ack),
            (passive, "connect", syn),
            (active, "first_received", answered),
            (passive, "first_received", asked),
        ):
            yield _written(*of(record, name), packets)
        for record, name, called_ns, packet in (
            (active, "connect", outcome.connecting_ns, syn[0]),
            (passive, "syn_ack", syn[0].before_ns, syn_ack[0]),
            (active, "first_sent", outcome.sending_ns[0], asked[0]),
            (passive, "first_sent", outcome.sending_ns[1], answered[0]),
        ):
            label, stamp_ns = of(record, name)
            yield Bracket(label, called_ns, stamp_ns, packet.arrived_ns)


def _most_wide(count: int) -> int:
    """Return how many brackets may be wider than what is asked for, the machine being busy."""
    return max(4, count // 20)


@pytest.mark.alone("it is held up by what else runs")
def test_times_are_those_of_the_relay(run: Run) -> None:
    """Each lies in its bracket, and a bracket is as narrow as the error that is allowed.

    Only where the machine itself stood still between the two moments is a bracket wider; these are
    counted.
    """
    found: defaultdict[str, list[Bracket]] = defaultdict(list)
    for bracket in brackets(run):
        found[bracket.name].append(bracket)
    assert len(found) == 9
    for name, some in found.items():
        assert len(some) == len(run.outcomes)
        widths = sorted(bracket.width_ns for bracket in some)
        wide = sum(width > TOLERANCE_NS for width in widths)
        print(  # noqa: T201 - figures
            f"{name}: {len(some)} brackets, ns wide: median {widths[len(some) // 2]}, "
            f"most {widths[-1]}; {wide} wider than {TOLERANCE_NS}"
        )
        assert [bracket for bracket in some if not bracket.holds] == []
        assert wide <= _most_wide(len(some)), name


@pytest.mark.parametrize("error", ["+ 2000000", "- 2000000"])
def test_an_error_of_two_milliseconds_is_caught(
    error: str, require: Callable[..., None], tmp_path: Path
) -> None:
    """All stamps of a program with a planted error are outside of brackets that are narrow."""
    require("root", "bpf", "ip", "nsenter", "tcpdump")
    package = Path(perfmeasure.__file__).resolve().parent
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("*.pyc"))
    program = tmp_path / package.name / "bpf" / "connections.bpf.c"
    program.write_text(
        program.read_text().replace("bpf_ktime_get_ns()", f"(bpf_ktime_get_ns() {error})")
    )
    run = _measured(tmp_path, 20, "env", f"--chdir={tmp_path}")  # where -m looks first
    narrow = [bracket for bracket in brackets(run) if bracket.width_ns <= TOLERANCE_NS]
    assert len(narrow) >= 9 * (20 - _most_wide(20))
    assert [bracket for bracket in narrow if bracket.holds] == []


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
