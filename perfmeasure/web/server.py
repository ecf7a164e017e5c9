"""The HTTP server of a docroot as one Twisted service: for `measure`, `serve` and `twistd`."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError

from perfmeasure.errors import InputError, MeasurementError, PerfmeasureError, UsageError
from perfmeasure.web.connections import DocrootFactory, Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEFAULT_PORT = 8081
DEFAULT_INTERFACE = "127.0.0.1"


class DocrootService(Service):
    """Serves a docroot from ``privilegedStartService`` or ``startService`` on.

    Starting raises:
        InputError: the docroot is no folder that can be read.
        UsageError: the address is not one of this host.
        MeasurementError: the port is taken or not permitted.
    """

    _GRACE_SECONDS = 3.0

    def __init__(
        self,
        docroot: Path,
        port: int,
        interface: str,
        *,
        limits: Limits,
        on_error: Callable[[str], None],
        reactor: Any,
    ) -> None:
        self._docroot = docroot
        self._port_wanted = port
        self._interface = interface
        self._reactor = reactor
        self._factory = DocrootFactory(docroot, on_error, limits, reactor)
        self._port: Any = None

    @property
    def url(self) -> str:
        """Where it listens, such as ``http://127.0.0.1:8081/``; only when it does."""
        address = self._port.getHost()
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"http://{host}:{address.port}/"

    @property
    def port(self) -> int:
        """The port it listens on; only when it does."""
        return cast("int", self._port.getHost().port)

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return len(self._factory.channels)

    def privilegedStartService(self) -> None:
        """Listen, which a port below 1024 needs privileges for."""
        self._listen()
        super().privilegedStartService()

    def startService(self) -> None:
        """Listen, if that has not happened yet."""
        if self._port is None:
            self._listen()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop listening, let answers that are on their way end for a moment, close."""
        super().stopService()
        if self._port is None:
            return succeed(None)
        port, self._port = self._port, None
        stopped: Deferred[Any] = maybeDeferred(port.stopListening)
        return stopped.addCallback(lambda _: self._factory.close_all(self._GRACE_SECONDS))

    def _listen(self) -> None:
        check_docroot(self._docroot)
        check_interface(self._interface)
        where = f"{self._interface}:{self._port_wanted}"
        try:
            self._port = self._reactor.listenTCP(
                self._port_wanted, self._factory, backlog=128, interface=self._interface
            )
        except CannotListenError as error:
            raise _listen_error(where, error.socketError) from error


def _listen_error(where: str, error: Exception) -> PerfmeasureError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return MeasurementError(
            where, "the port is taken by another program", "a free port",
            "choose another with --http-port, or find the program with: ss -ltnp",
        )  # fmt: skip
    if number in (errno.EACCES, errno.EPERM):
        return MeasurementError(
            where, "not permitted: ports below 1024 are for root", "a port from 1024 on",
            "choose another with --http-port, or put a web server in front",
        )  # fmt: skip
    if number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, socket.EAI_NONAME):
        return UsageError(
            where, "this host does not have the address", "an address of this host",
            "`ip address` lists them; 0.0.0.0 is all of them",
        )  # fmt: skip
    return MeasurementError(where, f"cannot listen ({error})", "a free port")


def check_docroot(docroot: Path) -> None:
    """Make sure that ``docroot`` is a folder which can be read.

    Raises:
        InputError: it is not.
    """
    hint = "give the docroot folder of a measurement, such as perfmeasure-data/docroot"
    try:
        next(docroot.iterdir(), None)
    except FileNotFoundError as error:
        raise InputError(str(docroot), "no such folder", "a docroot", hint) from error
    except NotADirectoryError as error:
        raise InputError(str(docroot), "not a folder", "a docroot", hint) from error
    except OSError as error:
        raise InputError(str(docroot), f"cannot be read ({error.strerror})", "a docroot") from error


def check_interface(interface: str) -> None:
    """Make sure that ``interface`` is an IP address.

    Raises:
        UsageError: it is not.
    """
    try:
        ipaddress.ip_address(interface)
    except ValueError as error:
        raise UsageError(
            "the address to listen on",
            repr(interface),
            "an IPv4 or IPv6 address, such as 127.0.0.1",
        ) from error


def docroot_service(
    docroot: Path,
    port: int = DEFAULT_PORT,
    interface: str = DEFAULT_INTERFACE,
    *,
    on_error: Callable[[str], None],
    limits: Limits | None = None,
    reactor: Any = None,
) -> DocrootService:
    """Return a service that serves ``docroot`` at ``interface``:``port`` (0 takes a free port).

    Args:
        docroot: the folder to serve.
        port: TCP port.
        interface: IP address to listen on.
        on_error: called with one line for the operator, such as a file that cannot be read.
        limits: what clients may do, when not the usual.
        reactor: the reactor, when not the global one.
    """
    return DocrootService(
        docroot,
        port,
        interface,
        limits=limits or Limits(),
        on_error=on_error,
        reactor=reactor or global_reactor(),
    )


def global_reactor() -> Any:
    """Return Twisted's reactor; the first import of it installs it, so not before it is used."""
    from twisted.internet import reactor  # noqa: PLC0415

    return reactor
