"""perfmeasure.tgen.stream: its lines are TGen's, its times are kept, it leaves nothing behind."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from perfmeasure.tgen.actions import StreamOptions
from perfmeasure.tgen.peer import Peer, parse_peer
from perfmeasure.tgen.protocol import response_line
from perfmeasure.tgen.stream import Context, Route, Stream, open_stream


def shape(line: str) -> str:
    """Return a line with its values left out."""
    message = line[line.index("] [stream-") + 2 :].strip()
    return re.sub(r"=[^,\]]*", "=", message)


def real_lines(fixtures: Path, name: str, kind: str) -> list[str]:
    text = (fixtures / f"tgen/{name}.tgen.log").read_text()
    return [line for line in text.splitlines() if f"[{kind}]" in line]


def test_its_lines_have_the_fields_of_real_ones_in_their_order(
    fixtures: Path, ends: Any, loop: Any, line_log: Any
) -> None:
    client, served = ends.pair(send_size_bytes=1024, recv_size_bytes=2**20)
    loop.until(lambda: client.has_ended and served[0].has_ended)
    for kind in ("stream-success", "stream-status"):
        real = shape(real_lines(fixtures, "client-direct-success", kind)[0])
        ours = [line for line in line_log.lines if f"[{kind}]" in line]
        assert {shape(line) for line in ours} == {real}
    assert all("[message]" in line for line in line_log.lines if "[stream-success]" in line)
    assert all("[info]" in line for line in line_log.lines if "[stream-status]" in line)


def test_an_error_has_the_fields_and_names_of_a_real_one(
    *, fixtures: Path, loop: Any, context: Context, line_log: Any, socks_server: Callable[..., Any],
    fields_of: Callable[[str], dict[str, str]],
) -> None:  # fmt: skip
    proxy = socks_server(status=1)
    onion = "5g73myzr5vf5uqajbs6vzo4bqkapzvpbavod5zdhf5g5fgz75dwe7gad.onion"
    options = StreamOptions(send_size_bytes=0, recv_size_bytes=5242880)
    ended: list[Stream] = []
    route = Route(Peer(onion, 8080), parse_peer(proxy.peer))
    open_stream(context, "stream", options, route, ended.append)
    loop.until(lambda: ended)
    (ours,) = [line for line in line_log.lines if "[stream-error]" in line]
    real = real_lines(fixtures, "client-socks-status1", "stream-error")[0]
    assert shape(ours) == shape(real)
    mine, theirs = fields_of(ours), fields_of(real)
    for name in ("sendstate", "recvstate", "error", "transport.state", "transport.error",
                 "transport.remote", "sendsize", "recvsize", "vertexid", "peername",
                 "payload-progress-recv", "payload-progress-send", "total-bytes-recv"):  # fmt: skip
        assert mine[name] == theirs[name], name
    reached = [name for name, value in theirs.items() if name.startswith("usecs") and value != "-1"]
    assert reached == [
        name for name, value in mine.items() if name.startswith("usecs") and value != "-1"
    ]


def test_times_are_in_order(ends: Any, loop: Any, line_log: Any) -> None:
    client, served = ends.pair(send_size_bytes=50_000, recv_size_bytes=2**20)
    loop.until(lambda: client.has_ended and served[0].has_ended)
    outcomes = {o["vertexid"]: o for o in line_log.of("[stream-success]")}
    mine = {k: int(v) for k, v in outcomes["stream"].items() if k.startswith("usecs")}
    for order in (
        ("socket-create", "socket-connect", "command", "response", "first-byte-recv",
         "last-byte-recv", "checksum-recv"),
        ("command", "first-byte-send", "last-byte-send", "checksum-send"),
    ):  # fmt: skip
        steps = [mine[f"usecs-to-{name}"] for name in order]
        assert steps == sorted(steps), order
        assert min(steps) >= 0
    outcome = outcomes["stream"]
    assert int(outcome["now-ts"]) - int(outcome["created-ts"]) >= mine["usecs-to-checksum-recv"]


def test_status_lines_are_few_and_meet_the_marks(ends: Any, loop: Any, line_log: Any) -> None:
    client, _ = ends.pair(send_size_bytes=0, recv_size_bytes=20 * 2**20)
    loop.until(lambda: client.has_ended)
    lines = [o for o in line_log.of("[stream-status]") if o["vertexid"] == "stream"]
    assert len(lines) <= 112
    assert lines[-1]["payload-progress-recv"] == "100.00%"
    assert int(lines[0]["payload-bytes-recv"]) <= 256 * 1024


def test_a_status_line_comes_each_second_at_least(ends: Any, loop: Any, line_log: Any) -> None:
    stream, wire = ends.commander(send_size_bytes=0, recv_size_bytes=10**9)
    wire.send(response_line("far", "NONE") + b"a" * 300_000)
    loop.until(lambda: stream.recv.payload_bytes == 300_000)
    wire.send(b"a")
    loop.run(0.05)
    before = len(line_log.of("[stream-status]"))
    stream._next_status_us -= 1_000_000  # a second passes
    wire.send(b"a")
    loop.until(lambda: stream.recv.payload_bytes == 300_002)
    assert len(line_log.of("[stream-status]")) == before + 1


def test_no_status_line_is_made_when_none_is_shown(ends: Any, loop: Any, line_log: Any) -> None:
    line_log.set_level("message")
    client, _ = ends.pair(send_size_bytes=0, recv_size_bytes=2**20)
    loop.until(lambda: client.has_ended)
    assert not line_log.of("[stream-status]")
    assert line_log.of("[stream-success]")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"timeout_seconds": 0.3, "stallout_seconds": 0}, "TIMEOUT"),
        ({"stallout_seconds": 0.3}, "STALLOUT"),
        ({"timeout_seconds": 0.3, "stallout_seconds": 5}, "TIMEOUT"),
    ],
)
def test_a_silent_peer(
    ends: Any, loop: Any, line_log: Any, options: dict[str, float], code: str
) -> None:
    stream, wire = ends.commander(send_size_bytes=0, recv_size_bytes=10, **options)
    wire.send(response_line("far", "NONE") + b"aaa")
    loop.until(lambda: stream.has_ended, 2)
    (outcome,) = line_log.of("[stream-error]")
    assert outcome["error"] == code
    assert (outcome["transport.state"], outcome["transport.error"]) == ("SUCCESS_OPEN", "NONE")
    assert (outcome["sendstate"], outcome["recvstate"]) == ("SEND_FOOTER", "RECV_PAYLOAD")
    assert outcome["payload-progress-recv"] == "30.00%"
    elapsed = int(outcome["now-ts"]) - int(outcome["created-ts"])
    assert 300_000 <= elapsed < 600_000


def test_bytes_put_the_stallout_off(ends: Any, loop: Any) -> None:
    stream, wire = ends.commander(send_size_bytes=0, recv_size_bytes=100, stallout_seconds=1.0)
    wire.send(response_line("far", "NONE"))
    for _ in range(6):
        loop.run(0.25)
        wire.send(b"a")
    assert not stream.has_ended
    loop.until(lambda: stream.has_ended, 5)
    assert stream.error == "STALLOUT"


def test_a_silent_proxy_is_a_timeout_with_the_handshakes_state(
    loop: Any, context: Context, line_log: Any, socks_server: Callable[..., Any]
) -> None:
    proxy = socks_server(hang="request")
    ended: list[Stream] = []
    options = StreamOptions(timeout_seconds=0.3, stallout_seconds=0)
    route = Route(Peer("a.onion", 1), parse_peer(proxy.peer))
    open_stream(context, "stream", options, route, ended.append)
    loop.until(lambda: ended, 3)
    (outcome,) = line_log.of("[stream-error]")
    assert outcome["error"] == "TIMEOUT"
    assert (outcome["transport.state"], outcome["transport.error"]) == ("RESPONSE_STATUS", "NONE")


def test_a_connection_that_never_opens_is_the_transports_timeout(
    loop: Any, context: Context, line_log: Any
) -> None:
    loop.reactor.resolve = lambda _name: Deferred()
    ended: list[Stream] = []
    options = StreamOptions(timeout_seconds=0.1)
    open_stream(context, "stream", options, Route(Peer("a.test", 1)), ended.append)
    loop.until(lambda: ended, 3)
    (outcome,) = line_log.of("[stream-error]")
    assert (outcome["error"], outcome["transport.error"]) == ("PROXY", "TIMEOUT")


def test_no_secret_is_in_the_log(
    loop: Any, context: Context, line_log: Any, socks_server: Callable[..., Any]
) -> None:
    line_log.set_level("debug")
    proxy = socks_server(user=(b"right", b"right"))
    ended: list[Stream] = []
    options = StreamOptions(socks_username="alice", socks_password="hunter2")
    route = Route(Peer("a.onion", 1), parse_peer(proxy.peer), "alice", "hunter2")
    open_stream(context, "stream", options, route, ended.append)
    loop.until(lambda: ended)
    assert ended[0].transport.error == "AUTH"
    assert not [line for line in line_log.lines if "alice" in line or "hunter2" in line]


def test_ended_streams_leave_no_descriptor_and_no_timer(ends: Any, loop: Any) -> None:
    def count() -> int:
        gc.collect()  # what an earlier test left is not ours
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for _ in range(5):
        client, served = ends.pair(send_size_bytes=10, recv_size_bytes=10, timeout_seconds=60)
        loop.until(lambda c=client, s=served: c.has_ended and s[0].has_ended)
    assert count() <= before  # something of an earlier test may have ended only now
    assert not [call for call in loop.reactor.getDelayedCalls() if call.getTime() > 0]
    assert not ends.context.streams
