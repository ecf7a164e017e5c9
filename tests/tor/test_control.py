"""perfmeasure.tor.control against a real tor, against stem, and against what is no control port."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import stem.connection
import stem.response
import stem.socket
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import ControlError, UsageError
from perfmeasure.tor.control import Arrival, ControlAddress, ControlConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASSWORD = 'a "quoted\\" secret'


@pytest.fixture(scope="module")
def tor(make_tor: Callable[..., Any]) -> Any:
    """A tor that offers every way to authenticate, on TCP and on a Unix socket."""
    hashed = subprocess.run(
        ["/usr/bin/env", f"PATH={os.environ['PATH']}:/usr/sbin", "tor", "--quiet",
         "--hash-password", PASSWORD],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    tor = make_tor("CookieAuthentication 1", f"HashedControlPassword {hashed}")
    unix = tor.data / "control.sock"
    with ControlConnection.connect(ControlAddress(port=tor.port)) as connection:
        connection.authenticate()
        assert connection.command(f'SETCONF ControlSocket="{unix}"').status == 250
    tor.unix = unix
    return tor


def connect(port: int) -> ControlConnection:
    return ControlConnection.connect(ControlAddress(port=port))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9051", ControlAddress()),
        ("host.example:1", ControlAddress("host.example", 1)),
        ("[::1]:9151", ControlAddress("::1", 9151)),
        ("unix:/run/tor/control", ControlAddress("", 0, "/run/tor/control")),
    ],
)
def test_addresses(text: str, address: ControlAddress) -> None:
    assert ControlAddress.parse(text) == address
    assert ControlAddress.parse(str(address)) == address


@pytest.mark.parametrize("text", ["", "unix:", "host", "host:", "host:0", "host:65536", "1:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        ControlAddress.parse(text)


# ---- authentication -----------------------------------------------------------------------------


def test_safe_cookie_by_tcp_and_unix_socket(tor: Any) -> None:
    for address in (ControlAddress(port=tor.port), ControlAddress.parse(f"unix:{tor.unix}")):
        with ControlConnection.connect(address) as connection:
            assert connection.command("GETINFO version").status == 514  # not yet
        with ControlConnection.connect(address) as connection:
            connection.authenticate()
            assert connection.command("GETINFO version").status == 250


def test_stem_sees_the_same_methods_and_cookie(tor: Any) -> None:
    theirs = stem.connection.get_protocolinfo(stem.socket.ControlPort("127.0.0.1", tor.port))
    assert {str(method).upper() for method in theirs.auth_methods} == {
        "COOKIE",
        "SAFECOOKIE",
        "PASSWORD",
    }
    assert theirs.cookie_path == str(tor.cookie)


def test_password(tor: Any) -> None:
    with connect(tor.port) as connection:
        connection.authenticate(password=PASSWORD)
        assert connection.command("GETINFO version").status == 250
    with (
        connect(tor.port) as connection,
        pytest.raises(ControlError, match=r"refused the authentication .*515") as caught,
    ):
        connection.authenticate(password="wrong")
    assert "wrong" not in str(caught.value)


def test_no_authentication(make_tor: Callable[..., Any]) -> None:
    with connect(make_tor("CookieAuthentication 0").port) as connection:
        connection.authenticate()
        assert connection.command("GETINFO version").status == 250


def test_another_tors_cookie_is_never_sent(tor: Any, tmp_path: Path) -> None:
    other = tmp_path / "cookie"
    other.write_bytes(b"x" * 32)
    with (
        connect(tor.port) as connection,
        pytest.raises(ControlError, match="does not know the control cookie"),
    ):
        connection.authenticate(cookie=other)


def test_a_file_that_is_no_cookie_is_not_sent(tor: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 33)
    with connect(tor.port) as connection, pytest.raises(ControlError, match="33 bytes; wanted"):
        connection.authenticate(cookie=secret)


def test_a_cookie_that_cannot_be_read(tor: Any, tmp_path: Path) -> None:
    with connect(tor.port) as connection, pytest.raises(ControlError) as caught:
        connection.authenticate(cookie=tmp_path / "none")
    assert caught.value.where == str(tmp_path / "none")
    assert "CookieAuthFileGroupReadable" in caught.value.next_step


def test_plain_cookie_where_tor_offers_only_that(
    make_port: Callable[..., Any], tmp_path: Path
) -> None:
    cookie = tmp_path / 'a "strange" pläce'
    cookie.write_bytes(b"\x01" * 32)
    quoted = str(cookie).replace('"', '\\"').encode().replace("ä".encode(), rb"\303\244")
    port = make_port(
        {"PROTOCOLINFO": b'250-AUTH METHODS=COOKIE COOKIEFILE="' + quoted + b'"\r\n250 OK\r\n'}
    )
    with connect(port.port) as connection:
        connection.authenticate()
    assert port.commands == ["PROTOCOLINFO 1", f"AUTHENTICATE {'01' * 32}"]


def test_a_password_is_wanted_and_none_was_given(make_port: Callable[..., Any]) -> None:
    port = make_port({"PROTOCOLINFO": b"250-AUTH METHODS=HASHEDPASSWORD\r\n250 OK\r\n"})
    with connect(port.port) as connection, pytest.raises(ControlError, match="--password-file"):
        connection.authenticate()


# ---- what is no control port --------------------------------------------------------------------


def test_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ControlError, match=f"refused.*Set 'ControlPort {port}'"):
            connect(port)
    with pytest.raises(ControlError, match="No such file"):
        ControlConnection.connect(ControlAddress.parse(f"unix:{tmp_path / 'none'}"))


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "not the control protocol"),
        (b"220 mail.example ESMTP\r\n", "answered '220 mail"),
    ],
)
def test_something_else_listens(
    make_port: Callable[..., Any], greeting: bytes, message: str
) -> None:
    with (
        connect(make_port(greeting=greeting).port) as connection,
        pytest.raises(ControlError, match=message) as caught,
    ):
        connection.authenticate()
    assert "ControlPort" in caught.value.next_step


def test_tors_own_socks_port_is_told_apart(make_tor: Callable[..., Any]) -> None:
    tor = make_tor("CookieAuthentication 1")
    with connect(tor.port) as connection:
        connection.authenticate()
        assert connection.command("RESETCONF DisableNetwork SocksPort=auto").status == 250
        socks = connection.get_info("net/listeners/socks")["net/listeners/socks"]
    with (
        connect(int(socks.strip('"').rpartition(":")[2])) as connection,
        pytest.raises(ControlError, match=r"not the control protocol|closed|lost") as caught,
    ):
        connection.authenticate()
    assert "not its SocksPort" in caught.value.next_step


def test_silence_and_hanging_up(
    make_port: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfmeasure.tor.control.ANSWER_SECONDS", 0.2)
    with (
        connect(make_port({"PROTOCOLINFO": b""}).port) as connection,
        pytest.raises(ControlError, match="no answer to PROTOCOLINFO"),
    ):
        connection.authenticate()
    port = make_port()
    with connect(port.port) as connection:
        connection.authenticate()
        port.hang_up()
        with pytest.raises(ControlError, match="closed by the other side"):
            connection.receive(1)


# ---- commands and events ------------------------------------------------------------------------


def test_values_as_stem_reads_them(tor: Any) -> None:
    keys = ("version", "config/names", "status/bootstrap-phase", "no/such/key", "events/names")
    with connect(tor.port) as connection:
        connection.authenticate()
        ours = connection.get_info(*keys)
    with stem.socket.ControlPort("127.0.0.1", tor.port) as control:
        stem.connection.authenticate(control)
        control.send(f"GETINFO {' '.join(key for key in keys if key != 'no/such/key')}")
        theirs = control.recv()
        stem.response.convert("GETINFO", theirs)
    assert {k: v.encode() for k, v in ours.items()} == theirs.entries


def test_events_between_answers_are_handed_over(tor: Any) -> None:
    events: list[bytes] = []
    stop = threading.Event()

    def take(arrival: Arrival) -> None:
        events.extend(arrival.messages)

    def disturb() -> None:
        with connect(tor.port) as other:
            other.authenticate()
            while not stop.is_set():
                other.command("SIGNAL CLEARDNSCACHE")

    thread = threading.Thread(target=disturb)
    with ControlConnection.connect(ControlAddress(port=tor.port), on_events=take) as connection:
        connection.authenticate()
        assert connection.command("SETEVENTS SIGNAL").status == 250
        thread.start()
        replies = [connection.command("GETINFO version") for _ in range(2000)]
        stop.set()
        thread.join()
    assert all(re.fullmatch(r"250-version=\S+.*\r\n250 OK", str(reply)) for reply in replies)
    assert len(events) > 2
    assert all(event.startswith(b"650 SIGNAL ") for event in events)


@given(st.text(alphabet="\r\nA", min_size=1).filter(lambda text: set(text) & {"\r", "\n"}))
def test_a_command_cannot_carry_another(command: str) -> None:
    ours, theirs = socket.socketpair()
    with (
        theirs,
        ControlConnection(ours, ControlAddress()) as connection,
        pytest.raises(ValueError, match="one line"),
    ):
        connection.command(command)


def test_a_stamp_is_the_arrival_not_the_reading() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        connect(listener.getsockname()[1]) as connection,
        listener.accept()[0] as peer,
    ):
        for _ in range(2):  # the first may come before the kernel has switched stamping on
            sent = time.time_ns()
            peer.sendall(b"650 BW 1 2\r\n")
            time.sleep(0.3)
            arrival = connection.receive(1)
    assert arrival is not None
    assert sent <= arrival.utc_ns < sent + 200_000_000


def test_a_unix_socket_stamps_at_reading() -> None:
    ours, theirs = socket.socketpair()
    with ControlConnection(ours, ControlAddress(path="x")) as connection, theirs:
        theirs.sendall(b"650 BW 1 2\r\n650 B")
        before = time.time_ns()
        arrival = connection.receive(1)
        assert arrival is not None
        assert before <= arrival.utc_ns <= time.time_ns()
        assert arrival.messages == [b"650 BW 1 2\r\n"]
        assert connection.unfinished_bytes == 5


def test_a_wait_is_interrupted_but_what_came_is_read_first() -> None:
    ours, theirs = socket.socketpair()
    readable, writable = os.pipe()
    try:
        with (
            ControlConnection(ours, ControlAddress(), interrupt_fd=readable) as connection,
            theirs,
        ):
            assert connection.receive(0.01) is None
            os.write(writable, b"!")
            started = time.monotonic()
            assert connection.receive(30) is None
            theirs.sendall(b"650 BW 1 2\r\n")
            assert connection.receive(30) is not None
            with pytest.raises(ControlError, match="no answer"):
                connection.command("GETINFO version")
            assert time.monotonic() - started < 5
    finally:
        os.close(readable)
        os.close(writable)
