"""One blocking conversation with a running tor through its control port.

Stem knows how to open the port and how to read a reply; its oddities stay in this module and in
`perfmeasure.tor.client`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Self

import stem
import stem.connection
import stem.response
import stem.socket

from perfmeasure.errors import ControlError
from perfmeasure.tor.ports import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_LIMIT_SECONDS = 20.0
"""How long a tor that works may take for an answer; loaded machines are slow."""


class ControlRefusedError(ControlError):
    """Tor answered, but not with what was asked for."""


class ControlClient:
    """One blocking, authenticated conversation with a tor on this machine.

    Args:
        port: its control port.
        cookie_path: the file with the cookie that opens it.
        limit_seconds: how long to wait for any one answer.

    Raises:
        ControlError: no tor there, or it does not accept the cookie. Either can be so for a
            moment while tor starts.
    """

    def __init__(
        self, port: int, cookie_path: Path, limit_seconds: float = ANSWER_LIMIT_SECONDS
    ) -> None:
        self._where = f"control port {LOOPBACK}:{port}"
        self._port = open_port(port, cookie_path, limit_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def getinfo(self, key: str) -> str:
        """Return what tor knows about ``key`` (control-spec, GETINFO).

        Raises:
            ControlRefusedError: tor does not know it.
            ControlError: the connection broke.
        """
        reply = self._ask(f"GETINFO {key}")
        try:
            stem.response.convert("GETINFO", reply)
        except stem.ControllerError as error:
            raise ControlRefusedError(self._where, f"GETINFO {key}: {error}") from error
        return b"\n".join(reply.entries.values()).decode("utf-8", "replace")

    def command(self, text: str) -> None:
        """Send a command that is answered with OK.

        Raises:
            ControlRefusedError: tor refused it.
            ControlError: the connection broke.
        """
        self._ask(text)

    def take_ownership(self) -> None:
        """Make tor end when this conversation ends, be it because our process was killed.

        Raises:
            ControlError: the connection broke.
        """
        self.command("TAKEOWNERSHIP")

    def close(self) -> None:
        """End the conversation."""
        self._port.close()

    def _ask(self, text: str) -> Any:
        verb = text.split(" ", 1)[0]
        try:
            self._port.send(text)
            reply = self._port.recv()
        except stem.ControllerError as error:
            raise ControlError(self._where, f"broke off at {verb} ({error})") from error
        if not reply.is_ok():
            raise ControlRefusedError(
                self._where, f"tor answered {text!r} with {str(reply)[:200]!r}"
            )
        return reply


def open_port(port: int, cookie_path: Path, limit_seconds: float) -> Any:
    """Return stem's ControlPort, authenticated.

    Raises:
        ControlError: no tor there, or it does not accept the cookie.
    """
    where = f"control port {LOOPBACK}:{port}"
    try:
        control = stem.socket.ControlPort(LOOPBACK, port)
    except stem.SocketError as error:
        raise ControlError(where, f"cannot be reached ({error})") from error
    socket_of(control).settimeout(limit_seconds)
    try:
        # Unlike a plain cookie this shows us, too, that it is our tor that answers.
        stem.connection.authenticate_safecookie(control, str(cookie_path))
    except (
        stem.connection.AuthenticationFailure,
        stem.ControllerError,
        # stem 1.8.2 stumbles over its own error when the connection breaks while it speaks.
        TypeError,
        UnboundLocalError,
    ) as error:
        control.close()
        raise ControlError(where, f"does not take the cookie {cookie_path} ({error})") from error
    return control


def socket_of(control: Any) -> socket.socket:
    """Return the socket below stem's ControlPort.

    Raises:
        ControlError: there is none any more.
    """
    found = control._socket  # noqa: SLF001 - stem offers no way to set a time limit
    if found is None:
        raise ControlError("control port", "closed at once")
    assert isinstance(found, socket.socket)  # noqa: S101 - for the type checker
    return found
