"""Tor's control protocol: connect, authenticate, send commands, receive events.

Source: Tor's control-spec (PROTOCOLINFO, AUTHENTICATE, AUTHCHALLENGE, GETINFO).
Blocking, for processes that have nothing else to do; events are handed over with the moment at
which they reached this machine's socket.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from perfmeasure.errors import ControlError, UsageError
from perfmeasure.tor.messages import NOT_TOR_NEXT_STEP, MessageSplitter, Reply, unquote

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_SECONDS = 10.0
"""How long tor may take to answer a command (a busy tor takes tens of milliseconds)."""

SHORT_WAIT_SECONDS = 0.005
"""Waits up to this are made in recvmsg(2) itself, at half the cost of poll(2) and recvmsg(2)."""

_RECV_BYTES = 1 << 16  # malloc gets more from the kernel, anew each time, which costs 15 us
_COOKIE_BYTES = 32

# <asm-generic/socket.h>; the socket module knows the name only from Python 3.14 on.
_SO_TIMESTAMPNS = 35
_TIMESPEC = _TIMEVAL = struct.Struct("@ll")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)


@dataclass(frozen=True)
class ControlAddress:
    """Where a control port is: a TCP host and port, or the path of a Unix socket."""

    host: str = "127.0.0.1"
    port: int = 9051
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> ControlAddress:
        """Read ``PORT``, ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

        Raises:
            UsageError: none of these.
        """
        if text.startswith("unix:") and len(text) > 5:
            return cls("", 0, text[5:])
        host, _, port = text.rpartition(":")
        if port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            return cls(host.strip("[]") or "127.0.0.1", int(port))
        raise UsageError(
            "control port", f"{text!r} is not an address", "PORT, HOST:PORT or unix:PATH"
        )

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Arrival(NamedTuple):
    """The messages that one read completed, and when their last byte reached this machine."""

    utc_ns: int
    messages: list[bytes]


class ControlConnection:
    """One connection to a control port.

    Args:
        sock: a connected stream socket, which is now ours.
        address: where it leads, for messages.
        on_events: takes the events that arrive while a command waits for its answer.
        interrupt_fd: when this becomes readable, waiting for longer than `SHORT_WAIT_SECONDS`
            ends early.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: ControlAddress,
        *,
        on_events: Callable[[Arrival], None] = lambda _arrival: None,
        interrupt_fd: int | None = None,
    ) -> None:
        self.address = address
        self._sock = sock
        self._on_events = on_events
        self._splitter = MessageSplitter(str(address))
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        if interrupt_fd is not None:
            self._poll.register(interrupt_fd, select.POLLIN)
        # The kernel notes when a segment reached the socket, so a stamp does not depend on when
        # this process gets a processor. Unix sockets have no such note.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        short = _TIMEVAL.pack(0, round(SHORT_WAIT_SECONDS * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, short)

    @classmethod
    def connect(
        cls,
        address: ControlAddress,
        *,
        on_events: Callable[[Arrival], None] = lambda _arrival: None,
        interrupt_fd: int | None = None,
    ) -> ControlConnection:
        """Connect, without authenticating.

        Raises:
            ControlError: nothing listens there, or it cannot be reached.
        """
        try:
            if address.path:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    sock.connect(address.path)
                except OSError:
                    sock.close()
                    raise
            else:
                sock = socket.create_connection((address.host, address.port), ANSWER_SECONDS)
                sock.settimeout(None)
        except OSError as error:
            line = f"ControlPort {address.path and 'unix:'}{address.path or address.port}"
            raise ControlError(
                str(address),
                f"cannot connect ({error.strerror or error})",
                "tor's control port",
                f"set '{line}' and 'CookieAuthentication 1' in tor's torrc and restart it, "
                "or name another port with --port or --control",
            ) from error
        return cls(sock, address, on_events=on_events, interrupt_fd=interrupt_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of a message whose end has not come yet."""
        return self._splitter.unfinished_bytes

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def receive(self, timeout_seconds: float) -> Arrival | None:
        """Wait for bytes and return the messages they complete, perhaps none.

        Args:
            timeout_seconds: 0 does not wait; a wait up to `SHORT_WAIT_SECONDS` may last that long.

        Returns:
            None when nothing came in time, or when the wait was interrupted.

        Raises:
            ControlError: the connection was closed, or what came is not the control protocol.
        """
        flags = int(socket.MSG_DONTWAIT)
        if timeout_seconds > SHORT_WAIT_SECONDS:
            ready = self._poll.poll(timeout_seconds * 1000)
            if self._sock.fileno() not in (descriptor for descriptor, _ in ready):
                return None
        elif timeout_seconds > 0:
            flags = 0
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_RECV_BYTES, _ANCILLARY_BYTES, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ControlError(str(self.address), f"connection lost ({error.strerror})") from error
        utc_ns = time.time_ns()
        for _, kind, stamp in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                utc_ns = seconds * 10**9 + nanoseconds
        if not data:
            raise ControlError(str(self.address), "connection closed by the other side")
        return Arrival(utc_ns, self._splitter.feed(data))

    def command(self, line: str) -> Reply:
        """Send one command and return tor's whole answer, whatever its status.

        Raises:
            ControlError: no answer in time, interrupted, or the connection was lost.
        """
        if "\r" in line or "\n" in line:
            raise ValueError("a command is one line")
        verb = line.split(" ", 1)[0]
        try:
            self._sock.sendall(line.encode() + b"\r\n")
        except OSError as error:
            raise ControlError(str(self.address), f"connection lost ({error.strerror})") from error
        deadline = time.monotonic() + ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            arrival = self.receive(left)
            if arrival is None:
                break
            replies = [m for m in arrival.messages if m[:3] != b"650"]
            events = [m for m in arrival.messages if m[:3] == b"650"]
            if events:
                self._on_events(Arrival(arrival.utc_ns, events))
            if replies:
                return Reply(replies[0])
        raise ControlError(
            str(self.address), f"no answer to {verb}", "tor's control port", NOT_TOR_NEXT_STEP
        )

    def get_info(self, *keys: str) -> dict[str, str]:
        """Ask ``GETINFO`` for some keys; those that this tor does not know are absent.

        Raises:
            ControlError: see `command`.
        """
        values: dict[str, str] = {}
        for key in keys:  # one unknown key would make tor refuse all of one command
            for line in self.command(f"GETINFO {key}").lines:
                name, equals, value = line.partition("=")
                if equals and name == key:
                    values[key] = value.removeprefix("\n")
        return values

    # ---- authentication ---------------------------------------------------------------------

    def authenticate(self, cookie: Path | None = None, password: str | None = None) -> None:
        """Authenticate by the first of the ways that tor offers and we can go.

        In this order: none needed, password (when one is given), safe cookie, cookie.

        Args:
            cookie: the cookie file; otherwise the one that tor names.
            password: for ``HashedControlPassword``.

        Raises:
            ControlError: tor refuses, or what it wants cannot be given.
        """
        try:
            info = self.command("PROTOCOLINFO 1")
        except ControlError as error:
            if error.next_step:
                raise
            raise ControlError(error.where, error.got, "an answer", NOT_TOR_NEXT_STEP) from error
        if info.status != 250:
            raise ControlError(
                str(self.address), f"PROTOCOLINFO was answered {str(info)[:60]!r}",
                "tor's control port", NOT_TOR_NEXT_STEP,
            )  # fmt: skip
        methods, cookie_file = _auth_methods(info.lines)
        if not methods or "NULL" in methods:
            proof = ""
        elif password is not None and "HASHEDPASSWORD" in methods:
            proof = ' "' + password.replace("\\", "\\\\").replace('"', '\\"') + '"'
        elif methods & {"SAFECOOKIE", "COOKIE"}:
            secret = self._read_cookie(cookie or cookie_file)
            proof = " " + (self._answer(secret) if "SAFECOOKIE" in methods else secret).hex()
        else:
            raise ControlError(
                str(self.address), f"tor wants authentication by {', '.join(sorted(methods))}",
                "a password", "put it into a file and name that with --password-file, or into "
                "PERFMEASURE_CONTROL_PASSWORD; or set 'CookieAuthentication 1' in tor's torrc",
            )  # fmt: skip
        reply = self.command(f"AUTHENTICATE{proof}")
        if reply.status != 250:
            raise ControlError(
                str(self.address), f"tor refused the authentication ({reply})",
                next_step="check that the password or the cookie file is this tor's",
            )  # fmt: skip

    def _read_cookie(self, path: Path | None) -> bytes:
        where = str(path or self.address)
        try:
            secret = path.read_bytes() if path else b""
        except OSError as error:
            raise ControlError(
                where, f"the control cookie cannot be read ({error.strerror})",
                next_step="run as tor's user, or set 'CookieAuthFileGroupReadable 1' in tor's "
                "torrc and join the group that owns the file; --cookie names another file",
            ) from error  # fmt: skip
        if len(secret) != _COOKIE_BYTES:
            # The control-spec's rule: never send a file that somebody else chose to tor.
            raise ControlError(
                where, f"{len(secret)} bytes", f"a control cookie of {_COOKIE_BYTES} bytes",
                "name tor's control_auth_cookie with --cookie",
            )  # fmt: skip
        return secret

    def _answer(self, secret: bytes) -> bytes:
        """Prove that we know the cookie, after tor has proved it (AUTHCHALLENGE)."""
        ours = secrets.token_bytes(32)
        reply = self.command(f"AUTHCHALLENGE SAFECOOKIE {ours.hex()}")
        match = re.search(r"SERVERHASH=([0-9A-Fa-f]{64}) SERVERNONCE=([0-9A-Fa-f]{64})", str(reply))
        proven = b""
        nonces = b""
        if match:
            proven = bytes.fromhex(match[1])
            nonces = ours + bytes.fromhex(match[2])
        if not hmac.compare_digest(
            proven, _safe_cookie_hash("server-to-controller", secret, nonces)
        ):
            raise ControlError(
                str(self.address), "tor does not know the control cookie that was read",
                next_step="name this tor's control_auth_cookie with --cookie",
            )  # fmt: skip
        return _safe_cookie_hash("controller-to-server", secret, nonces)


def _safe_cookie_hash(direction: str, secret: bytes, nonces: bytes) -> bytes:
    key = f"Tor safe cookie authentication {direction} hash".encode()
    return hmac.digest(key, secret + nonces, hashlib.sha256)


def _auth_methods(lines: list[str]) -> tuple[set[str], Path | None]:
    """Return the methods that PROTOCOLINFO names, and the cookie file."""
    for line in lines:
        if match := re.match(r'AUTH METHODS=([A-Z,]+)(?: COOKIEFILE=("(?:[^"\\]|\\.)*"))?', line):
            path = Path(os.fsdecode(unquote(match[2]))) if match[2] else None
            return set(match[1].split(",")), path
    return set(), None
