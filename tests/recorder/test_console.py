from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfmeasure.recorder.classes import PacketClass
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.console import MAX_SUBSCRIPTIONS, Console
from tests.recorder import made
from tests.recorder.made import Timed
from tests.recorder.served import Kept
from tests.recorder.test_answer import packets_of, stored
from tests.recorder.wire import Line, Running

OK = re.compile(r"OK (\d+) packets (\d+) bytes (\d+\.\d{6}) s\Z")
KEY = "tcp 10.0.0.1:1000 10.0.0.2:80"
SWAPPED = "tcp 10.0.0.1:80 10.0.0.2:1000"
TURNED = "tcp 10.0.0.2:80 10.0.0.1:1000"


def counted(reply: str) -> tuple[int, int]:
    match = OK.match(reply)
    assert match is not None, reply
    return int(match[1]), int(match[2])


def packet(number: int = 0, port: int = 1000, flags: int = made.ACK, size: int = 100) -> bytes:
    """Return a frame of the connection; odd ones go back."""
    ends: tuple[str, int, str, int] = ("10.0.0.1", port, "10.0.0.2", 80)
    if number % 2:
        ends = (*ends[2:], *ends[:2])
    return made.ethernet(made.tcp(*ends, size, flags))


# ---- a store without a recorder -----------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return stored(tmp_path, made.pcap(made.trace(1, 500, 10))).folder


def test_queries_need_no_recorder(store: Path) -> None:
    console, client = Console(store), Kept()
    hosts = [made.fields(p.frame).src for p in made.trace(1, 500, 10)]
    host = max(set(hosts) - {""}, key=hosts.count)
    trace = sorted(made.trace(1, 500, 10), key=lambda p: p.ts_ns)
    start_ns, end_ns = trace[100].ts_ns, trace[300].ts_ns
    wanted = [
        p
        for p in trace
        if host in (made.fields(p.frame).src, made.fields(p.frame).dst)
        and start_ns <= p.ts_ns <= end_ns
    ]
    times = [f"{ns // 10**9}.{ns % 10**9:09d}" for ns in (start_ns, end_ns)]
    flags = f'index ip "{host}" start {times[0]} end {times[1]}'
    reply = console.execute(f'query to_file "a.pcap" {flags}', client)
    assert counted(reply) == (len(wanted), sum(len(p.frame) for p in wanted))
    assert packets_of(store / "queries" / "a.pcap") == wanted
    assert console.execute(f"query feed p tag t {flags}", client).startswith("OK")
    fed = b"".join(content for _, _, content in client.blocks)
    assert fed == (store / "queries" / "a.pcap").read_bytes()
    first, _ = counted(console.execute(f"find host {host}", client))
    second, _ = counted(console.execute(f"find not host {host}", client))
    assert first + second == 500
    assert client.lines == []


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ('query to_file "x" index ip "nonsense"', "ERROR QUERY KEY UNDEFINED - "),
        ('query to_file "x" index none "1.2.3.4"', "ERROR NO SUCH INDEX - "),
        ('query to_file "../x" index ip "1.2.3.4"', "ERROR PARSER ERROR - "),
        ('find to_file "x" host nonsense', "ERROR PARSER ERROR - query, character 6: "),
        ('find to_file "x" transfer unknown', "ERROR PARSER ERROR - query, character 10: no tr"),
        ('query to_file "x" index ip "1.2.3.4" subscribe', "ERROR NO RECORDER: "),
        ('query to_file "x" index ip "1.2.3.4" mem_only', "ERROR NO RECORDER: "),
        ("show stats", "ERROR NO RECORDER: "),
        (f'suspend_cutoff "{KEY}"', "ERROR NO RECORDER: "),
        ("unsubscribe 7", "ERROR NO SUCH SUBSCRIPTION - 7: "),
    ],
)
def test_an_error_is_one_line_and_leaves_no_file(store: Path, line: str, reply: str) -> None:
    """The original left an empty capture when the key was bad."""
    client = Kept()
    answer = Console(store).execute(line, client)
    assert answer.startswith(reply)
    assert "\n" not in answer
    assert client.lines == []
    assert client.blocks == []
    assert not list(store.glob("queries/*"))


def test_words_are_answered(store: Path) -> None:
    console, client = Console(store), Kept()
    assert console.execute('print "a b"', client) == "OK"
    assert client.lines == ["a b"]
    assert console.execute("nop", client) == console.execute("", client) == "OK"
    assert console.execute("help", client) == "OK"
    assert any("set_dyn_class" in line for line in client.lines)


# ---- a recorder on a line -----------------------------------------------------------------------


class Live:
    """A recorder that captures, its console in this process, and a client."""

    def __init__(self, line: Line, store: Path, setup: Setup) -> None:
        self.line = line
        self.store = store
        self.running = Running(store, setup, line.name)
        self.console = Console(store, self.running.recorder, self.running.messages.append)
        self.client = Kept()
        self.sent = 0

    def send(self, *frames: bytes) -> None:
        self.line.send(frames)
        self.sent += len(frames)
        self.running.wait_for(self.sent)

    def ask(self, line: str) -> str:
        return self.console.execute(line, self.client)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.02)

    def end(self) -> None:
        self.running.end()
        self.console.close()
        self.running.recorder.close()


@pytest.fixture
def live(line: Line, tmp_path: Path) -> Iterator[Live]:
    classes = (
        PacketClass("all", cutoff_bytes=400),
        PacketClass("alarm", filter="port 9", precedence=5),
    )
    made_live = Live(line, tmp_path / "store", Setup(classes=classes))
    yield made_live
    made_live.end()


def test_connections_are_shown_with_each_port_at_its_address(live: Live) -> None:
    """The original swapped the ports where it showed a sample, and took swapped ones in keys."""
    live.send(packet(flags=made.SYN, size=0), packet(1), packet(2))
    assert live.ask(f'show conn "{KEY}"') == "OK"
    (shown,) = live.client.lines
    assert shown.startswith(f"{KEY} packets 3 bytes {54 + 2 * 154} first 1")
    assert shown.endswith(" class all cutoff 400 suspended -")
    assert live.ask(f'show conn "{TURNED}"') == "OK"
    assert live.ask("show conn sample") == "OK"
    assert live.client.lines == [shown] * 3
    for line in (f'show conn "{SWAPPED}"', f'suspend_timeout "{SWAPPED}"'):
        assert live.ask(line).startswith(f"ERROR NOT IN CONNECTION TABLE - {SWAPPED}: ")
    assert counted(live.ask(f'query to_file "x" index connection4 "{SWAPPED}"'))[0] == 0
    assert counted(live.ask(f'query to_file "x" index connection4 "{TURNED}"'))[0] == 3


def test_the_cutoff_of_a_connection_is_suspended_and_holds_again(live: Live) -> None:
    live.send(*[packet(n) for n in range(6)])  # 154 bytes each, so that 3 begin below 400
    assert counted(live.ask(f'find conn "{KEY}"'))[0] == 3
    assert live.ask(f'suspend_cutoff "{KEY}"') == live.ask(f'suspend_timeout "{TURNED}"') == "OK"
    live.send(*[packet(n) for n in range(4)])
    assert counted(live.ask(f'find conn "{KEY}"'))[0] == 7
    live.ask(f'show conn "{KEY}"')
    assert live.client.lines[-1].endswith("suspended cutoff,timeout")
    assert live.ask(f'unsuspend_cutoff "{KEY}"') == live.ask(f'unsuspend_timeout "{KEY}"') == "OK"
    live.send(*[packet(n) for n in range(4)])
    assert counted(live.ask(f'find conn "{KEY}"'))[0] == 7
    live.ask(f'show conn "{KEY}"')
    assert live.client.lines[-1].endswith("suspended -")


def test_addresses_are_assigned_to_classes(live: Live) -> None:
    live.send(*[packet(n) for n in range(6)])
    assert live.ask("set_dyn_class 10.0.0.1 none").startswith("ERROR class 'none': no such class")
    assert live.ask("set_dyn_class 10.0.0.1 alarm orig") == "OK"
    live.send(*[packet(n) for n in range(4)])
    live.ask(f'show conn "{KEY}"')
    assert " class alarm cutoff no " in live.client.lines[-1]
    assert counted(live.ask(f'find conn "{KEY}"'))[0] == 7
    assert live.ask("set_dyn_class 10.0.0.2 alarm resp") == "OK"
    assert live.ask("unset_dyn_class 10.0.0.1") == live.ask("unset_dyn_class 10.0.0.2") == "OK"
    live.send(packet(0, 1001))
    live.ask('show conn "tcp 10.0.0.1:1001 10.0.0.2:80"')
    assert " class all cutoff 400 " in live.client.lines[-1]


def test_statistics_are_of_what_was_recorded(live: Live) -> None:
    """The original divided by a counter that was not there, and printed what it found."""
    live.send(*[packet(n) for n in range(6)])
    live.ask("find port 80")
    live.client.lines.clear()
    assert live.ask("show stats") == "OK"
    values = dict(line.split(" ", 1) for line in live.client.lines if line.count(" ") == 1)
    assert (values["totPkts"], values["totBytes"]) == ("6", str(6 * 154))
    assert (values["uncutPkts"], values["uncutBytes"]) == ("3", str(3 * 154))
    assert (values["queryPkts"], values["queryBytes"]) == ("3", str(3 * 154))
    assert (values["conns"], values["drop_ratio"], values["state"]) == (
        "1", "0.000000", "recording",
    )  # fmt: skip
    classes = {
        line.split()[1]: line.split() for line in live.client.lines if line.startswith("class ")
    }
    assert set(classes) == {"all", "alarm"}
    assert classes["all"][classes["all"].index("stored_pkts") + 1] == "3"
    assert sum(line.startswith("index ") for line in live.client.lines) == 9


def test_a_time_range_holds_in_memory_too(live: Live) -> None:
    """The original gave all packets in memory, whatever times were asked for."""
    live.send(packet(0, 1), packet(0, 2))
    middle = time.time()
    live.send(packet(0, 3), packet(0, 4), packet(0, 5))
    query = 'query to_file "x" index ip "10.0.0.1"'
    assert counted(live.ask(f"{query} mem_only"))[0] == 5
    assert counted(live.ask(f"{query} start 0 end {middle:.6f} mem_only"))[0] == 2
    assert counted(live.ask(f"{query} start {middle:.6f} end 9999999999"))[0] == 3
    live.running.call(lambda _: live.running.recorder.writer.rotate())
    assert counted(live.ask(f"{query} mem_only"))[0] == 0
    assert counted(live.ask(f"{query} start 0 end {middle:.6f}"))[0] == 2


def test_a_subscription_to_a_file_has_each_packet_once(live: Live) -> None:
    live.send(*[packet(0, port) for port in range(1, 6)])
    assert counted(live.ask('query to_file "a" index ip "10.0.0.1" subscribe'))[0] == 5
    assert live.client.lines == ["subscription 1"]
    assert counted(live.ask("find subscribe to_file b port 7"))[0] == 0
    path = live.store / "queries" / "a"
    assert len(packets_of(path)) == 5
    assert live.ask('query to_file "a" index port "7"').startswith("ERROR IN USE: ")
    for number in range(30):
        live.send(packet(0, 10 + number))
        if number % 10 == 0:
            live.running.call(lambda _: live.running.recorder.writer.rotate())
    live.wait_for(lambda: len(packets_of(path)) == 35)
    live.client.lines.clear()
    assert live.ask("show subscriptions") == "OK"
    assert live.client.lines == [
        (
            f"1 packets 30 bytes {30 * 154} missed_segments 0 "
            'query to_file "a" index ip "10.0.0.1" subscribe'
        ),
        "2 packets 0 bytes 0 missed_segments 0 find subscribe to_file b port 7",
    ]
    assert live.ask("unsubscribe 1") == "OK"
    live.send(packet(0, 7))
    live.wait_for(lambda: len(packets_of(live.store / "queries" / "b")) == 1)
    ports = [made.fields(p.frame).src_port for p in packets_of(path)]
    assert ports == [*range(1, 6), *range(10, 40)]
    assert counted(live.ask('query to_file "a" index port "7"'))[0] == 1


def test_a_subscription_ends_with_what_was_recorded_to_the_end(line: Line, tmp_path: Path) -> None:
    live = Live(line, tmp_path / "store", Setup())
    try:
        assert live.ask("find subscribe feed p tag t port 80").startswith("OK 0 packets")
        live.send(*[packet(n) for n in range(20)])
    finally:
        live.end()
    *fed, end = live.client.blocks
    assert end == ("p", "t", b"")
    (tmp_path / "x.pcap").write_bytes(b"".join(content for _, _, content in fed))
    assert [p.frame for p in packets_of(tmp_path / "x.pcap")] == [packet(n) for n in range(20)]
    assert live.ask("show stats") == (
        "ERROR NO RECORDER: none answers here; wanted one that is running"
    )


def test_subscriptions_have_a_bound(live: Live) -> None:
    for number in range(MAX_SUBSCRIPTIONS):
        assert live.ask(f"find subscribe to_file f{number} port 80").startswith("OK")
    reply = live.ask("find subscribe to_file one_more port 80")
    assert reply.startswith("ERROR TOO MANY SUBSCRIPTIONS: 64")
    assert not (live.store / "queries" / "one_more").exists()
    assert live.ask("unsubscribe 5") == "OK"
    assert live.ask("find subscribe to_file one_more port 80").startswith("OK")


def test_a_client_that_left_is_fed_no_more(live: Live) -> None:
    live.ask("find subscribe feed p tag t port 80")
    live.ask("find subscribe to_file f port 80")
    live.console.leave(live.client)
    assert live.client.blocks[-1] == ("p", "t", b"")
    live.client.lines.clear()
    live.ask("show subscriptions")
    assert [line.split()[0] for line in live.client.lines] == ["2"]


def test_all_that_is_asked_is_answered_by_time(live: Live) -> None:
    """The original gave the packets of several classes one class after the other."""
    frames = [packet(0, 9 if n % 2 else 1000 + n) for n in range(20)]
    live.send(*frames)
    live.ask('query to_file "x" index ip "10.0.0.1"')
    found: list[Timed] = packets_of(live.store / "queries" / "x")
    assert [p.frame for p in found] == frames
