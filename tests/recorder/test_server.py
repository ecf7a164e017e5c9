"""The console over TCP: clients that behave, and clients that do not."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.recorder import door, server
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.server import MAX_CLIENTS, ConsoleServer
from tests.recorder import made
from tests.recorder.served import Talk, served
from tests.recorder.wire import Line, Running

BIG = made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2, 8000))
FEED = "find feed p tag t port 2"
SECONDS = 30.0


@pytest.fixture
def running(line: Line, tmp_path: Path) -> Iterator[tuple[Running, int]]:
    with served(line, tmp_path / "store", send_seconds=1.0) as made_running:
        yield made_running


def record(line: Line, running: Running, count: int) -> None:
    """Have so many big packets recorded."""
    before = running.call(lambda _: running.seen)
    for _ in range(count // 100):
        line.send([BIG] * 100, 0.0001)
    running.wait_for(before + count)


def clients() -> int:
    return sum(thread.name == "client" for thread in threading.enumerate())


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def test_answers_are_as_documented(
    line: Line, running: tuple[Running, int], tmp_path: Path
) -> None:
    line.send([BIG] * 3)
    running[0].wait_for(3)
    with Talk(running[1], tmp_path / "store") as talk:
        assert talk.ask("nop") == ["OK"]
        assert talk.ask('print "OK"') == [" OK", "OK"]
        assert talk.ask("nop\r") == ["OK"]
        assert talk.ask("nonsense")[0].startswith("ERROR PARSER ERROR - character 1: 'nonsense'")
        (reply,) = talk.ask('query to_file "x.pcap" index port "2"')
        assert re.fullmatch(r"OK 3 packets 24126 bytes \d+\.\d{6} s", reply)
        talk.send(b'query feed zeek tag t-1 index ip "10.0.0.1"\nnop\n')
        content = b""
        while (block := talk.block())[2]:
            assert block[:2] == ("zeek", "t-1")
            content += block[2]
        assert content == (tmp_path / "store" / "queries" / "x.pcap").read_bytes()
        assert talk.line().startswith(b"OK 3 packets 24126 bytes ")
        assert talk.line() == b"OK\n"


@pytest.mark.parametrize(
    "given", [b"token \n", b"token " + b"0" * 64 + b"\n", b"show stats\n", b"\xff\n", b"\n"]
)
def test_without_the_token_there_is_no_entry(running: tuple[Running, int], given: bytes) -> None:
    with Talk(running[1]) as talk:
        talk.send(given)
        talk.send(b"show stats\n")
        assert talk.line() == b"ERROR wrong token\n"
        with contextlib.suppress(ConnectionResetError):  # as there is a line that nobody read
            assert talk.line() == b""
    wait_for(lambda: not clients(), "it is still there")


def test_the_token_is_in_no_message_or_log(running: tuple[Running, int], tmp_path: Path) -> None:
    store = tmp_path / "store"
    token = door.read_token(door.token_path(store))
    with Talk(running[1]) as talk:
        talk.send(f"token {token[:-1]}\n".encode())
        assert talk.line() == b"ERROR wrong token\n"
    with Talk(running[1], store) as talk:
        talk.ask("show stats")
        talk.ask("nonsense")
    assert not any(token in message for message in running[0].messages)
    found = subprocess.run(
        ["grep", "-rl", token, str(store)], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == [str(door.token_path(store))]


def test_it_listens_on_loopback_only(running: tuple[Running, int]) -> None:
    for family, port in (("tcp", running[1]), ("tcp6", running[1])):
        lines = Path(f"/proc/self/net/{family}").read_text("ascii").splitlines()[1:]
        listening = [
            fields[1] for text in lines if (fields := text.split())[3] == "0A"
            and fields[1].endswith(f":{port:04X}")
        ]  # fmt: skip
        assert listening == ([f"0100007F:{port:04X}"] if family == "tcp" else [])


def test_who_never_says_the_token_is_cut_off(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_TOKEN_SECONDS", 0.3)
    with served(line, tmp_path / "store") as (_, port), Talk(port) as talk:
        for _ in range(20):  # neither silence nor single letters keep it open
            with_break = time.monotonic()
            try:
                talk.send(b"t")
            except OSError:
                break
            time.sleep(0.1)
            assert time.monotonic() - with_break < SECONDS
        wait_for(lambda: not clients(), "it is still there")


@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_a_line_has_a_bound(running: tuple[Running, int], tmp_path: Path, tail: bytes) -> None:
    with Talk(running[1], tmp_path / "store") as talk:
        talk.send(b"print " + b"x" * 4000 + b"\n")
        assert talk.line() == b" " + b"x" * 4000 + b"\n"
        assert talk.line() == b"OK\n"
        talk.send(b"x" * 5000 + tail)
        assert talk.line() == b"ERROR a line of more than 4096 bytes\n"
        assert talk.line() == b""


def test_several_clients_at_once(line: Line, running: tuple[Running, int], tmp_path: Path) -> None:
    """The original's parser was one for all."""
    record(line, running[0], 300)
    failures: list[object] = []

    def work(number: int) -> None:
        try:
            with Talk(running[1], tmp_path / "store") as talk:
                for turn in range(10):
                    (reply,) = talk.ask(f'query to_file "f{number}" index port "2"')
                    assert reply.startswith("OK 300 packets 2412600 bytes ")
                    assert talk.ask(f"print {turn}") == [f" {turn}", "OK"]
        except Exception as error:  # noqa: BLE001 - it is the test's
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert failures == []
    contents = {(tmp_path / f"store/queries/f{number}").read_bytes() for number in range(6)}
    assert len(contents) == 1


def test_one_too_many_is_told_so(running: tuple[Running, int], tmp_path: Path) -> None:
    talks = [Talk(running[1], tmp_path / "store") for _ in range(MAX_CLIENTS)]
    with socket.create_connection(("127.0.0.1", running[1]), SECONDS) as client:
        assert client.makefile("rb").read() == b"ERROR too many clients\n"
    for talk in talks:
        assert talk.ask("nop") == ["OK"]
        talk.close()
    wait_for(lambda: not clients(), "they are still there")
    with Talk(running[1], tmp_path / "store") as talk:
        assert talk.ask("nop") == ["OK"]


@pytest.mark.parametrize("is_reset", [False, True])
def test_who_vanishes_in_mid_answer_harms_nobody(
    line: Line, running: tuple[Running, int], tmp_path: Path, is_reset: bool
) -> None:
    """The original was gone after this."""
    store = tmp_path / "store"
    record(line, running[0], 3000)
    with Talk(running[1], store) as witness:
        for command in (FEED, "show stats", f"{FEED}\nshow stats", FEED.replace("find", "find subs"
                        "cribe")):  # fmt: skip
            talk = Talk(running[1], store)
            talk.send(f"{command}\n".encode())
            assert talk.line()
            if is_reset:
                talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            talk.close()
        record(line, running[0], 100)
        assert witness.ask("find port 2")[-1].startswith("OK 3100 packets ")
        wait_for(lambda: clients() == 1, "they are still there")
        assert witness.ask("show subscriptions") == ["OK"]


def test_who_never_reads_is_cut_off_and_holds_up_nobody(
    line: Line, running: tuple[Running, int], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    record(line, running[0], 3000)  # 24 MB, which no socket buffers
    lazy = [Talk(running[1], store) for _ in range(3)]
    lazy[0].send(f"{FEED}\n".encode())
    lazy[1].send(FEED.replace("find", "find subscribe").encode() + b"\n")
    lazy[2].send(b"show stats\n" * 100_000)  # and neither reads the answers
    with Talk(running[1], store) as talk:
        record(line, running[0], 1000)
        assert talk.ask("find port 2")[-1].startswith("OK 4000 packets ")
        wait_for(lambda: clients() == 1, "they are still there")
        assert talk.ask("nop") == ["OK"]
    for one in lazy:
        one.close()
    recorder = running[0].recorder
    assert recorder.losses.dropped == 0


def test_the_port_and_the_clients_go_with_the_recorder(line: Line, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with served(line, store) as (_, port):
        assert door.announced(store) == port
        token = door.read_token(door.token_path(store))
        talk = Talk(port, store)
        assert talk.ask("find subscribe feed p tag t port 2")[0].startswith("DATA p t 24")
    assert door.announced(store) is None
    assert b"OK 0 packets 0 bytes" in talk._file.read()
    talk.close()
    assert clients() == 0
    with pytest.raises(ConnectionRefusedError):
        Talk(port)
    with served(line, store, Setup()) as (_, port), Talk(port, store) as talk:
        assert talk.ask("nop") == ["OK"]
        assert door.read_token(door.token_path(store)) == token


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "store", Setup(), print)
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(MeasurementError, match=f"console port {port}: cannot be opened"):
                ConsoleServer(recorder, port, print)
    finally:
        recorder.close()
