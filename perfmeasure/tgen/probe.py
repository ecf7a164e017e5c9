"""One small download, to see that a server answers before it is measured.

An onion service's first fetch often fails though its descriptor is published; a probe that is
repeated until it succeeds keeps such failures out of the measurement.
"""

from __future__ import annotations

import sys
from typing import cast

from twisted.internet.defer import Deferred

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.tgen.actions import StreamOptions
from perfmeasure.tgen.logline import Log
from perfmeasure.tgen.peer import parse_peer
from perfmeasure.tgen.reactor import Reactor, monotonic_us
from perfmeasure.tgen.statistics import Statistics
from perfmeasure.tgen.stream import Context, Route, Stream, open_stream


class _NoLog(Log):
    """A log that nobody reads: a probe is no transfer."""

    def __init__(self) -> None:
        super().__init__(sys.__stderr__.fileno() if sys.__stderr__ else 2)

    def write(self, level: str, place: str, text: str) -> None:
        """Drop the line."""


def probe(  # noqa: PLR0917 - in the order in which one says it
    reactor: object,
    socks_host: str,
    socks_port: int,
    host: str,
    port: int,
    size_bytes: int = 1024,
    timeout_seconds: float = 30,
) -> Deferred[float]:
    """Download a few bytes from a TGen server through a SOCKS5 proxy.

    Args:
        reactor: Twisted's.
        socks_host: the proxy's host.
        socks_port: the proxy's port.
        host: the server's host; a name goes to the proxy as it is.
        port: the server's port.
        size_bytes: how much to fetch.
        timeout_seconds: when to give up.

    Returns:
        The seconds that it took, or a `MeasurementError` with what went wrong; a `UsageError` for
        a host or port that cannot be one. Cancelling gives up.
    """
    result: Deferred[float] = Deferred(lambda _: stream.abandon())
    where = f"probe of {host}:{port} through {socks_host}:{socks_port}"

    def on_end(ended: Stream) -> None:
        if ended.is_success:
            result.callback((monotonic_us() - ended.transport.started_us) / 1e6)
            return
        error, inner = ended.error, ended.transport.error
        got = f"{error} ({inner})" if inner != "NONE" else error
        result.errback(
            MeasurementError(where, f"failed with {got}", "an answer from the server's generator")
        )

    try:
        route = Route(parse_peer(f"{host}:{port}"), parse_peer(f"{socks_host}:{socks_port}"))
    except UsageError as error:
        result.errback(error)
        return result
    options = StreamOptions(
        send_size_bytes=0,
        recv_size_bytes=size_bytes,
        timeout_seconds=timeout_seconds,
        stallout_seconds=0,
    )
    context = Context(cast("Reactor", reactor), _NoLog(), Statistics(), "probe")
    stream = open_stream(context, "probe", options, route, on_end)
    return result
