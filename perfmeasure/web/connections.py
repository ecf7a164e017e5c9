"""The connections to the docroot's server, and what a client may do with them.

What a client may do is bounded (`Limits`): the time for a request to arrive, the time to take a
block of an answer, the size of a request's head, the number of connections. A request has no body
here, and one that comes with a body is refused unread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.web.http import HTTPChannel, HTTPFactory, Request

from perfmeasure.web.resources import ALLOWED_METHODS, DocrootResource, Sender

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure


@dataclass(frozen=True)
class Limits:
    """What one server grants its clients, together and each.

    Args:
        connections: how many may be open at once. One more takes the place of the one that has
            kept us waiting longest, for its request or for its reading, if that is over
            ``patience_seconds``; otherwise it is closed at once.
        patience_seconds: see ``connections``.
        request_seconds: a whole request has to be there this long after the connection was made
            or the last answer was sent.
        block_seconds: an answer's block of 64 KiB has to be taken within this time.
        close_seconds: after an orderly close, the rest has to be taken within this time.
    """

    connections: int = 256
    patience_seconds: float = 2.0
    request_seconds: float = 30.0
    block_seconds: float = 60.0
    close_seconds: float = 30.0


class _Request(Request):
    """A request without a body, answered by the server's resource."""

    channel: _Channel

    def parseCookies(self) -> None:
        """Ignore cookies: nothing here has any."""

    def process(self) -> None:
        self.channel.answer(self)


class _Channel(HTTPChannel):
    """One connection."""

    requestFactory = _Request
    maxHeaders = 100
    timeOut = None  # our deadlines replace these
    transport: Any
    factory: DocrootFactory
    requests: list[Request]

    def __init__(self) -> None:
        super().__init__()
        self.deadline = 0.0
        self.waiting_since = 0.0
        self.is_closing = False
        self.is_congested = False
        self._answering: Request | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._await(self.factory.limits.request_seconds)
        self.factory.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.forget(self)
        super().connectionLost(reason)

    def answer(self, request: Request) -> None:
        """Begin the answer to a complete request."""
        self._answering = request
        self.progress()
        request.notifyFinish().addBoth(lambda _: self._answered(request))
        self.factory.resource.respond(
            request, lambda file, offset, length: self._send(request, file, offset, length)
        )

    def progress(self) -> None:
        """Grant the client time for the next block."""
        self._await(self.factory.limits.block_seconds)

    def close(self) -> None:
        """Close when what was written is sent; abort if the client does not take it."""
        if not self.is_closing:
            self.is_closing = True
            self._await(self.factory.limits.close_seconds)
            self.loseConnection()

    def give_up(self) -> None:
        """End a connection whose deadline is over."""
        if self.is_closing or self.is_busy:
            self.transport.abortConnection()
        else:
            self.close()

    @property
    def is_busy(self) -> bool:
        """Whether an answer is on its way."""
        return self._answering is not None

    def pauseProducing(self) -> None:
        self.is_congested = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self.is_congested = False
        super().resumeProducing()

    def allHeadersReceived(self) -> None:
        """Go on with a request, or refuse it when a body follows."""
        if self.length == 0:
            super().allHeadersReceived()
        elif self._command in ALLOWED_METHODS:
            self._refuse(b"413 Content Too Large")
        else:
            self._refuse(b"405 Method Not Allowed\r\nAllow: " + b", ".join(ALLOWED_METHODS))

    def rawDataReceived(self, data: bytes) -> None:
        if not self.is_closing:
            super().rawDataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if not self.is_closing:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        del line
        self._refuse(b"431 Request Header Fields Too Large")

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._refuse(b"400 Bad Request")

    def _refuse(self, status: bytes) -> None:
        if not self.is_closing:
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            self.close()

    def _await(self, seconds: float) -> None:
        self.waiting_since = self.factory.now()
        self.deadline = self.waiting_since + seconds

    def _answered(self, request: Request) -> None:
        if self._answering is not request:
            return  # the next request came along with it, and its answer has begun already
        self._answering = None
        if self.persistent:
            self._await(self.factory.limits.request_seconds)
        else:
            self.is_closing = True
            self._await(self.factory.limits.close_seconds)

    def _send(self, request: Request, file: BinaryIO, offset: int, length: int) -> None:
        request.notifyFinish().addBoth(lambda _: file.close())
        sender = Sender(request, file, offset, length, self.progress)
        sender.start(is_congested=self.is_congested)


class DocrootFactory(HTTPFactory):
    """All connections to one server.

    Args:
        docroot: the folder to serve.
        on_error: called with one line for the operator.
        limits: what clients may do.
        reactor: for the time and the port.
    """

    protocol = _Channel  # type: ignore[assignment]  # without HTTP/2 and its switching proxy

    def __init__(
        self, docroot: Path, on_error: Callable[[str], None], limits: Limits, reactor: Any
    ) -> None:
        super().__init__(reactor=reactor)
        self.reactor: Any = reactor
        self.timeOut = None
        self.limits = limits
        self.resource = DocrootResource(docroot, on_error)
        self.channels: set[_Channel] = set()
        self.now: Callable[[], float] = reactor.seconds
        self._sweep = LoopingCall(self._give_up_late)
        self._sweep.clock = reactor
        self._when_empty: Deferred[None] | None = None

    def startFactory(self) -> None:
        """Begin to watch the deadlines; the base class would begin an access log."""
        self._sweep.start(min(1.0, self.limits.request_seconds / 4), now=False)

    def stopFactory(self) -> None:
        """Keep the sweep: connections outlive the port."""

    def log(self, request: Request) -> None:
        """Keep no log of who fetched what."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Take a connection, if there is room or room can be made."""
        if len(self.channels) >= self.limits.connections and not self._make_room():
            return None
        return super().buildProtocol(addr)

    def forget(self, channel: _Channel) -> None:
        """Count a connection as gone."""
        self.channels.discard(channel)
        self._fire_if_empty()

    def close_all(self, grace_seconds: float) -> Deferred[None]:
        """End every connection: idle ones now, the others when done or after the grace.

        The Deferred fires when none is left.
        """
        done: Deferred[None] = Deferred()
        self._when_empty = done
        timer = self.reactor.callLater(grace_seconds, self._abort_all)

        def clean_up(_: object) -> None:
            if timer.active():
                timer.cancel()
            if self._sweep.running:
                self._sweep.stop()

        done.addBoth(clean_up)
        for channel in list(self.channels):
            if not channel.is_busy:
                channel.transport.abortConnection()
        self._fire_if_empty()
        return done

    def _abort_all(self) -> None:
        for channel in list(self.channels):
            channel.transport.abortConnection()

    def _fire_if_empty(self) -> None:
        if not self.channels and self._when_empty is not None:
            done, self._when_empty = self._when_empty, None
            done.callback(None)

    def _give_up_late(self) -> None:
        now = self.now()
        for channel in [channel for channel in self.channels if channel.deadline < now]:
            channel.give_up()

    def _make_room(self) -> bool:
        slowest = min(self.channels, key=lambda channel: channel.waiting_since)
        if self.now() - slowest.waiting_since < self.limits.patience_seconds:
            return False
        # Its end comes in the reactor's next turn; more connections may come in this one.
        self.channels.discard(slowest)
        slowest.transport.abortConnection()
        return True
