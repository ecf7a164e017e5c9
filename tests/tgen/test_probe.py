"""perfmeasure.tgen.probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from perfmeasure.errors import MeasurementError, PerfmeasureError, UsageError
from perfmeasure.tgen.actions import StreamOptions
from perfmeasure.tgen.probe import probe
from perfmeasure.tgen.server import Server
from perfmeasure.tgen.stream import Context, accept_stream


@pytest.fixture
def port(context: Context) -> Iterator[int]:
    server = Server(
        context.reactor, context.log, 0,
        lambda *found: accept_stream(context, StreamOptions(), *found),
    )  # fmt: skip
    yield server.port
    server.stop()


def outcome(loop: Any, deferred: Deferred[float]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    loop.until(lambda: found)
    return getattr(found[0], "value", found[0])


def test_an_answer(
    loop: Any, port: int, socks_server: Callable[..., Any], line_log: Any, capfd: Any
) -> None:
    proxy = socks_server()
    begin = time.monotonic()
    seconds = outcome(loop, probe(loop.reactor, "127.0.0.1", proxy.port, "abc.onion", port))
    assert 0 < seconds <= time.monotonic() - begin
    assert proxy.requests == [(b"abc.onion", port)]
    loop.until(lambda: line_log.of("[stream-success]"))
    assert line_log.of("[stream-success]")[0]["payload-bytes-send"] == "1024"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ({"status": 4}, r"PROXY \(STATUS\)"),
        ({"close": "request"}, r"PROXY \(READ\)"),
        ({"cut_after_bytes": 100}, "READEOF"),
        ({"hang": "request"}, "TIMEOUT"),
    ],
)
def test_faults(
    loop: Any, port: int, socks_server: Callable[..., Any], faults: dict[str, Any], text: str
) -> None:
    proxy = socks_server(**faults)
    error = outcome(
        loop, probe(loop.reactor, "127.0.0.1", proxy.port, "a.onion", port, timeout_seconds=0.3)
    )
    assert isinstance(error, MeasurementError)
    assert str(error).startswith(f"probe of a.onion:{port} through 127.0.0.1:{proxy.port}: ")
    with pytest.raises(PerfmeasureError, match=text):
        raise error


def test_no_proxy(loop: Any) -> None:
    error = outcome(loop, probe(loop.reactor, "127.0.0.1", 1, "a.onion", 1))
    assert "CONNECT" in str(error)


def test_what_is_no_host(loop: Any) -> None:
    assert isinstance(outcome(loop, probe(loop.reactor, "127.0.0.1", 1, "a b", 1)), UsageError)


def test_it_can_be_cancelled(loop: Any, socks_server: Callable[..., Any]) -> None:
    proxy = socks_server(hang="request")
    deferred = probe(loop.reactor, "127.0.0.1", proxy.port, "a.onion", 1)
    loop.run(0.05)
    deferred.cancel()
    assert isinstance(outcome(loop, deferred), CancelledError)
    assert not loop.reactor.getDelayedCalls()
