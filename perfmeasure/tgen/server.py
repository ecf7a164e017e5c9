"""The listening socket, at which peers begin streams."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from perfmeasure.errors import MeasurementError
from perfmeasure.tgen.logline import Log, place
from perfmeasure.tgen.reactor import Reactor

_PLACE = place("new")

_ACCEPTS_AT_ONCE = 64
_WAIT_SECONDS = 0.5


@implementer(IReadDescriptor)
class Server:
    """Listens on all IPv4 addresses, as TGen does, and hands each connection on.

    Args:
        reactor: calls us when someone connects.
        log: told where we listen.
        port: the TCP port; 0 takes a free one.
        on_accept: called with the connected socket and the peer's address.

    Raises:
        MeasurementError: the port cannot be had.
    """

    def __init__(
        self,
        reactor: Reactor,
        log: Log,
        port: int,
        on_accept: Callable[[socket.socket, tuple[str, int]], object],
    ) -> None:
        self._reactor = reactor
        self._log = log
        self._on_accept = on_accept
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("0.0.0.0", port))  # noqa: S104 - see the class
            self._socket.listen(1024)
        except OSError as error:
            self._socket.close()
            raise MeasurementError(
                f"port {port}", f"cannot listen: {error.strerror}", next_step="choose another port"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        log.message(_PLACE, f"server listening at 0.0.0.0:{self.port}")
        log.message(
            _PLACE, f"Started server on port {self.port} using descriptor {self._socket.fileno()}"
        )
        reactor.addReader(self)

    def stop(self) -> None:
        """Listen no more."""
        self._reactor.removeReader(self)
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return a name for Twisted's own log."""
        return "tgen server"

    def doRead(self) -> None:
        """Take the connections that wait."""
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                accepted, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # No descriptors left, say: the connection stays in the queue, so look away for a
                # moment instead of being called over and over.
                self._log.warning(_PLACE, f"cannot accept a connection: {error.strerror}")
                self._reactor.removeReader(self)
                self._reactor.callLater(_WAIT_SECONDS, self._look_again)
                return
            try:
                self._on_accept(accepted, address)
            except OSError as error:  # gone before we looked at it
                self._log.warning(_PLACE, f"lost a connection: {error.strerror}")
                with contextlib.suppress(OSError):
                    accepted.close()

    def _look_again(self) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        """Take note that the socket is gone, which the system does not do to a listening one."""
        self._log.critical(_PLACE, f"server socket lost: {reason.getErrorMessage()}")
        self._socket.close()
