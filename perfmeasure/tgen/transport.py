"""A transport: the TCP connection of a stream, direct or through a SOCKS proxy.

It is a descriptor of the Twisted reactor (``IReadDescriptor``, ``IWriteDescriptor``) of its own,
not a Twisted protocol: a protocol's every byte is copied and passed through Python calls that
would cost more than the payload's MD5. A transport gets the connection open and then leaves the
socket to its stream, which reads into and writes from its own large buffers.

States: CONNECT, those of `SocksHandshake`, SUCCESS_OPEN, SUCCESS_EOF, ERROR. Errors: NONE, CONNECT,
CHOICE, AUTH, ADDR, VERSION, STATUS, WRITE, READ, MISC, STALLOUT, TIMEOUT. Both as in TGen's log.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Protocol

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from perfmeasure.tgen.peer import NO_PEER, Peer
from perfmeasure.tgen.reactor import Reactor, monotonic_us
from perfmeasure.tgen.socks import SocksError, SocksHandshake
from perfmeasure.tgen.statistics import Statistics

_AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOTCONN, errno.EINPROGRESS, errno.EALREADY)


class TransportUser(Protocol):
    """Whom a transport serves: a stream, or the probe."""

    def transport_opened(self) -> None:
        """The way to the remote is open; from now on the socket is yours."""

    def transport_failed(self, reason: str) -> None:
        """It could not be opened; state and error say where it failed."""

    def on_readable(self) -> None:
        """The open socket can be read."""

    def on_writable(self) -> None:
        """The open socket can be written; called only after `Transport.want_write`."""

    def on_hangup(self) -> None:
        """The open socket is gone without anything left to read."""


@implementer(IReadWriteDescriptor)
class Transport:
    """One connection; times are monotonic microseconds, -1 while not reached.

    Args:
        reactor: calls us when the socket is ready.
        user: whom to tell.
        statistics: counts the handshake's bytes; the user counts its own.
    """

    def __init__(self, reactor: Reactor, user: TransportUser, statistics: Statistics) -> None:
        self._reactor = reactor
        self._user = user
        self._statistics = statistics
        self._handshake: SocksHandshake | None = None
        self._output = b""
        self._reads = False
        self._writes = False
        self.descriptor = -1
        self.socket: socket.socket | None = None
        self.local = NO_PEER
        self.proxy: Peer | None = None
        self.remote: Peer | None = None
        self.state = "CONNECT"
        self.error = "NONE"
        self.started_us = monotonic_us()
        self.created_us = -1
        self.connected_us = -1
        self.proxy_init_us = -1
        self.proxy_choice_us = -1
        self.proxy_request_us = -1
        self.proxy_response_us = -1
        self.last_progress_us = self.started_us

    def connect(
        self,
        remote: Peer,
        proxy: Peer | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        """Open a connection to ``remote``, through ``proxy`` if there is one.

        The user is told of success or failure, perhaps before this returns.
        """
        self.remote, self.proxy = remote, proxy
        if proxy is not None:
            self._handshake = SocksHandshake(remote, username, password)
        self.started_us = monotonic_us()
        try:
            self._use(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        except OSError as error:
            self._fail("CONNECT", f"no socket: {error.strerror}")
            return
        self.created_us = self.last_progress_us = monotonic_us()
        connectee = proxy or remote
        if connectee.is_address or connectee.host == "localhost":
            self._connect_to("127.0.0.1" if connectee.host == "localhost" else connectee.host)
        else:
            found: object = self._reactor.resolve(connectee.host)
            found.addCallbacks(self._connect_to, self._not_resolved)  # type: ignore[attr-defined]

    def accept(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        """Take over a connection that a peer opened, and let the user read at once."""
        self._use(accepted)
        self.created_us = self.connected_us = self.last_progress_us = monotonic_us()
        self.remote = Peer(*address[:2])
        self.state = "SUCCESS_OPEN"
        self._user.on_readable()  # the peer's first bytes are often here already
        self._settle()

    def _use(self, opened: socket.socket) -> None:
        opened.setblocking(False)
        self.socket = opened
        self.descriptor = opened.fileno()

    def _connect_to(self, address: str) -> None:
        connectee = self.proxy or self.remote
        if self.socket is None or connectee is None:
            return  # given up while the name was looked up
        result = self.socket.connect_ex((address, connectee.port))
        if result not in (0, errno.EINPROGRESS):
            self._fail("CONNECT", f"cannot connect to {connectee}: {errno.errorcode[result]}")
            return
        # On loopback it is open at once in most cases, and need not wait for the reactor.
        self._try_connected()
        if self.state == "CONNECT":
            self._settle()
            self.want_write()

    def _not_resolved(self, failure: Failure) -> None:
        if self.socket is not None:
            self._fail("CONNECT", f"cannot resolve {self.proxy or self.remote}: {failure.value}")

    def _settle(self) -> None:
        """Read our address, be called when there is something to read, and never wait to send."""
        if self.socket is None:
            return
        self.want_read()
        with contextlib.suppress(OSError):
            self.local = str(Peer(*self.socket.getsockname()[:2]))
            # The lines around the payload are small and the peer waits for them.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _try_connected(self) -> None:
        if self.socket is None:
            return
        refused = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if refused:
            self._fail("CONNECT", f"connection to {self.proxy or self.remote} failed: "
                                  f"{errno.errorcode.get(refused, refused)}")  # fmt: skip
            return
        try:
            self.socket.getpeername()
        except OSError:
            return  # still on its way
        self.connected_us = self.last_progress_us = monotonic_us()
        self.want_write(wanted=False)
        if self._handshake is None:
            self.state = "SUCCESS_OPEN"
            self._user.transport_opened()
        else:
            self.state = self._handshake.state
            self._push_handshake()
        self._settle()  # after the first bytes are on their way, since the peer waits for them

    def _push_handshake(self) -> None:
        """Send what the handshake has to say, as far as the socket takes it."""
        handshake = self._handshake
        if handshake is None or self.socket is None:
            return
        self._output = self._output or handshake.take_output()
        if self._output:
            try:
                sent = self.socket.send(self._output)
            except OSError as error:
                if error.errno not in _AGAIN:
                    self._fail("WRITE", f"cannot write to the proxy: {error.strerror}")
                    return
                sent = 0
            self._statistics.bytes_written += sent
            self._output = self._output[sent:]
            self.want_write(wanted=bool(self._output))
            if self._output:
                return
            now_us = self.last_progress_us = monotonic_us()
            if handshake.state == "CHOICE":
                self.proxy_init_us = now_us
            elif handshake.state == "RESPONSE_STATUS":
                self.proxy_request_us = now_us
        self.state = handshake.state

    def _pull_handshake(self) -> None:
        """Read the proxy's answers, never more than belongs to the handshake."""
        handshake = self._handshake
        while handshake is not None and self.socket is not None and not handshake.is_done:
            try:
                data = self.socket.recv(handshake.wanted())
            except OSError as error:
                if error.errno not in _AGAIN:
                    self._fail("READ", f"cannot read from the proxy: {error.strerror}")
                return
            if not data:
                self._fail("READ", "the proxy closed the connection in the handshake")
                return
            self._statistics.bytes_read += len(data)
            before = handshake.state
            try:
                handshake.receive(data)
            except SocksError as error:
                if before == "CHOICE":
                    self.proxy_choice_us = monotonic_us()
                self._fail(
                    error.code,
                    f"connection from {self.local} through socks proxy {self.proxy}"
                    f" to {self.remote} failed: {error}",
                )
                return
            now_us = self.last_progress_us = monotonic_us()
            if before == "CHOICE" and handshake.state != "CHOICE":
                self.proxy_choice_us = now_us
            self._push_handshake()
            if self.state == "ERROR":
                return
        if handshake is not None and handshake.is_done:
            self.proxy_response_us = monotonic_us()
            self.state = "SUCCESS_OPEN"
            self._user.transport_opened()

    def _fail(self, code: str, reason: str) -> None:
        self.state, self.error = "ERROR", code
        self._user.transport_failed(reason)

    @property
    def is_open(self) -> bool:
        """Whether the handshakes are done (and the peer may have closed its side since)."""
        return self.state in ("SUCCESS_OPEN", "SUCCESS_EOF")

    def want_read(self, *, wanted: bool = True) -> None:
        """Be called when the socket can be read, or no longer."""
        if wanted != self._reads:
            self._reads = wanted
            (self._reactor.addReader if wanted else self._reactor.removeReader)(self)

    def want_write(self, *, wanted: bool = True) -> None:
        """Be called when the socket can be written, or no longer."""
        if wanted != self._writes:
            self._writes = wanted
            (self._reactor.addWriter if wanted else self._reactor.removeWriter)(self)

    def close(self) -> None:
        """Close the socket; `descriptor` keeps its number for the log."""
        if self.socket is None:
            return
        self.want_read(wanted=False)
        self.want_write(wanted=False)
        closing, self.socket = self.socket, None
        if self.error == "NONE":
            with contextlib.suppress(OSError):
                closing.shutdown(socket.SHUT_RDWR)
        closing.close()

    def __str__(self) -> str:
        return (
            f"[fd={self.descriptor},local={self.local},proxy={self.proxy or NO_PEER},"
            f"remote={self.remote or NO_PEER},state={self.state},error={self.error}]"
        )

    # What the reactor calls.

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 when it is closed."""
        return -1 if self.socket is None else self.descriptor

    def logPrefix(self) -> str:
        """Return a name for Twisted's own log."""
        return "tgen"

    def doRead(self) -> None:
        """Go on, now that the socket can be read."""
        if self.state == "SUCCESS_OPEN":
            self._user.on_readable()
        elif self.state == "CONNECT":
            self._try_connected()
        elif self.socket is not None:
            self._pull_handshake()

    def doWrite(self) -> None:
        """Go on, now that the socket can be written."""
        if self.state == "SUCCESS_OPEN":
            self._user.on_writable()
        elif self.state == "CONNECT":
            self._try_connected()
        elif self.socket is not None:
            self._push_handshake()

    def connectionLost(self, reason: Failure) -> None:
        """Take note that the socket is gone (``EPOLLHUP`` or ``EPOLLERR`` with nothing to read)."""
        self._reads = self._writes = False  # the reactor has forgotten us already
        if self.socket is None:
            return
        if self.is_open:
            self._user.on_hangup()
        elif self.state == "CONNECT":
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            why = errno.errorcode.get(code, reason.getErrorMessage())
            self._fail("CONNECT", f"connection to {self.proxy or self.remote} failed: {why}")
        else:
            self._fail("READ", "the proxy closed the connection in the handshake")
