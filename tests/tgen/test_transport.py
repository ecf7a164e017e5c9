"""perfmeasure.tgen.transport: direct and through SOCKS, with every fault a proxy can have."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from perfmeasure.tgen.peer import Peer, parse_peer
from perfmeasure.tgen.statistics import Statistics
from perfmeasure.tgen.transport import Transport


class User:
    """Notes what a transport tells it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def transport_opened(self) -> None:
        self.events.append("opened")

    def transport_failed(self, reason: str) -> None:
        self.events.append(f"failed: {reason}")

    def on_readable(self) -> None:
        self.events.append("readable")

    def on_writable(self) -> None:
        self.events.append("writable")

    def on_hangup(self) -> None:
        self.events.append("hangup")


@pytest.fixture
def user() -> User:
    return User()


@pytest.fixture
def transport(loop: Any, user: User) -> Iterator[Transport]:
    transport = Transport(loop.reactor, user, Statistics())
    yield transport
    transport.close()


@pytest.fixture
def target() -> Iterator[Peer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Peer("127.0.0.1", listener.getsockname()[1])


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_a_direct_connection(loop: Any, user: User, transport: Transport, target: Peer) -> None:
    assert transport.state == "CONNECT"
    transport.connect(target)
    loop.until(lambda: user.events)
    assert user.events == ["opened"]
    assert transport.state == "SUCCESS_OPEN"
    assert transport.started_us <= transport.created_us <= transport.connected_us
    assert transport.proxy_init_us == -1
    assert str(transport) == (
        f"[fd={transport.fileno()},local={transport.local},proxy=NULL:0.0.0.0:0,"
        f"remote=localhost:127.0.0.1:{target.port},state=SUCCESS_OPEN,error=NONE]"
    )
    assert transport.local.startswith("localhost:127.0.0.1:")


def test_a_refused_connection(loop: Any, user: User, transport: Transport) -> None:
    transport.connect(Peer("127.0.0.1", closed_port()))
    loop.until(lambda: user.events)
    assert "ECONNREFUSED" in user.events[0]
    assert (transport.state, transport.error) == ("ERROR", "CONNECT")


def test_a_name_is_looked_up(loop: Any, user: User, transport: Transport, target: Peer) -> None:
    answers: dict[str, Deferred[str]] = {}

    def resolve(name: str) -> Deferred[str]:
        answers[name] = Deferred()
        return answers[name]

    loop.reactor.resolve = resolve
    transport.connect(Peer("a.test", target.port))
    assert transport.state == "CONNECT"
    answers["a.test"].callback("127.0.0.1")
    loop.until(lambda: user.events)
    assert user.events == ["opened"]


def test_a_name_that_is_not_known(loop: Any, user: User, transport: Transport) -> None:
    answer: Deferred[str] = Deferred()
    loop.reactor.resolve = lambda _name: answer
    transport.connect(Peer("a.test", 1))
    answer.errback(OSError("no such name"))
    assert "cannot resolve a.test" in user.events[0]
    assert transport.error == "CONNECT"


def test_a_transport_closed_in_the_meantime_needs_no_answer(loop: Any, user: User) -> None:
    for outcome in ("127.0.0.1", OSError("x")):
        answer: Deferred[str] = Deferred()
        loop.reactor.resolve = lambda _name, answer=answer: answer
        transport = Transport(loop.reactor, user, Statistics())
        transport.connect(Peer("a.test", 1))
        transport.close()
        (answer.callback if isinstance(outcome, str) else answer.errback)(outcome)  # type: ignore[arg-type]
        assert not user.events


@pytest.mark.parametrize(
    "faults", [{}, {"dribble": True}, {"address_type": 3}, {"address_type": 4}]
)
def test_through_a_proxy(
    *, loop: Any, user: User, transport: Transport, target: Peer,
    socks_server: Callable[..., Any], faults: dict[str, Any],
) -> None:  # fmt: skip
    proxy = socks_server(**faults)
    transport.connect(Peer("abc.onion", target.port), parse_peer(proxy.peer))
    loop.until(lambda: user.events)
    assert user.events == ["opened"]
    assert proxy.requests == [(b"abc.onion", target.port)]
    steps = [transport.connected_us, transport.proxy_init_us, transport.proxy_choice_us,
             transport.proxy_request_us, transport.proxy_response_us]  # fmt: skip
    assert steps == sorted(steps)
    assert steps[0] >= transport.started_us


def test_with_a_password(
    loop: Any, user: User, transport: Transport, target: Peer, socks_server: Callable[..., Any]
) -> None:
    proxy = socks_server(user=(b"me", b"secret"))
    transport.connect(target, parse_peer(proxy.peer), "me", "secret")
    loop.until(lambda: user.events)
    assert user.events == ["opened"]
    assert "secret" not in str(transport)


@pytest.mark.parametrize(
    ("faults", "username", "error", "text"),
    [
        *(({"status": code}, None, "STATUS", f"error status {code:X}") for code in range(1, 10)),
        ({"version": 4}, None, "VERSION", "wants version 4"),
        ({"address_type": 9}, None, "ADDR", "address type 0x9"),
        ({"choice": 0xFF}, None, "CHOICE", "method 0xff"),
        ({"user": (b"me", b"right")}, "me", "AUTH", "refused the user name"),
        ({"close": "choice"}, None, "READ", "closed the connection"),
        ({"close": "request"}, None, "READ", "closed the connection"),
        ({"user": None, "close": "auth"}, "me", "READ", "closed the connection"),
    ],
)
def test_a_proxys_refusals(
    *, loop: Any, user: User, transport: Transport, target: Peer, socks_server: Callable[..., Any],
    faults: dict[str, Any], username: str | None, error: str, text: str,
) -> None:  # fmt: skip
    proxy = socks_server(**faults)
    transport.connect(target, parse_peer(proxy.peer), username, username)
    loop.until(lambda: user.events)
    assert user.events[0].startswith("failed: ")
    assert text in user.events[0]
    assert (transport.state, transport.error) == ("ERROR", error)
    assert transport.proxy_response_us == -1


def test_a_refused_proxy(loop: Any, user: User, transport: Transport, target: Peer) -> None:
    transport.connect(target, Peer("127.0.0.1", closed_port()))
    loop.until(lambda: user.events)
    assert transport.error == "CONNECT"


def test_a_proxy_that_resets(loop: Any, user: User, transport: Transport, target: Peer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport.connect(target, Peer("127.0.0.1", listener.getsockname()[1]))
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.close()
        loop.until(lambda: user.events)
    assert transport.error in ("READ", "WRITE")
    assert user.events[0].startswith("failed")


def test_an_open_socket_that_breaks_is_told(loop: Any, user: User, transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport.connect(Peer("127.0.0.1", listener.getsockname()[1]))
        accepted, _ = listener.accept()
        loop.until(lambda: user.events)
        transport.want_read(wanted=False)
        transport.want_write()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        loop.until(lambda: "writable" in user.events)
        transport.want_write(wanted=False)
        accepted.close()
        loop.run(0.05)
        transport.want_write()
        loop.until(lambda: "hangup" in user.events)


def test_an_accepted_connection_is_open(loop: Any, user: User, transport: Transport) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        transport.accept(*listener.accept())
        assert transport.is_open
        assert transport.remote == Peer("127.0.0.1", client.getsockname()[1])
        assert user.events == ["readable"]
        client.sendall(b"x")
        loop.until(lambda: len(user.events) > 1)
    transport.close()
    transport.close()
    assert transport.fileno() == -1
    transport.doRead()
    transport.doWrite()
    assert transport.logPrefix() == "tgen"
