"""Divides the time of a transfer into consecutive phases: where did the seconds go?

Each phase lies between two moments that somebody stamped: the generator its steps, the kernel the
connection to the proxy, tor the stream. All but tor's are of one clock, the kernel's monotonic
one. What lies beside a step that was not stamped, though a later one was, is nobody's: ``rest``. So
the phases add up to the transfer's duration, and in a failed transfer the last one is the phase in
which it failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from perfmeasure.analysis.kernel import KernelConnection
    from perfmeasure.analysis.torlog import Stream
    from perfmeasure.analysis.transfers import Transfer

# (phase, the elapsed_seconds field that ends it)
_AFTER_PROXY = (
    ("command", "command"),
    ("response", "response"),
    ("first_byte", "first_byte"),
    ("payload", "last_byte"),
    ("checksum", "checksum"),
)
_MOST_CLOCK_ERROR_NS = 10**9
"""How far the clocks of generator and kernel may seem apart; those of two machines are further."""


def phases(
    transfer: Transfer, stream: Stream | None, connection: KernelConnection | None = None
) -> dict[str, float]:
    """Return seconds by phase, in order; nothing for a transfer whose end or steps are unknown.

    docs/formats.md, "phases", says what each phase is.

    Args:
        transfer: with its steps.
        stream: the stream of tor that it is linked to.
        connection: the connection of the kernel that it is linked to.
    """
    record = transfer.record
    if not record["is_complete"]:
        return {}
    duration_us = round((transfer.end - transfer.start) * 1e6)
    stamps_us = _kernel_us(transfer, connection) if connection else {}
    moments = list(_moments(transfer, stream, stamps_us))
    limits_us = _limits_us(moments, duration_us)
    spent_us: dict[str, int] = {}
    now_us = 0
    unstamped = ""  # the first phase that a missing stamp leaves without an end
    for moment, limit_us in zip(moments, limits_us, strict=True):
        if moment.until_us is None:
            unstamped = unstamped or moment.phase
            continue
        # A stamp of another clock, or rounded, divides what is there; it moves no step.
        until_us = max(min(moment.until_us, limit_us), now_us)
        phase = "rest" if unstamped else moment.phase
        spent_us[phase] = spent_us.get(phase, 0) + until_us - now_us
        now_us = until_us
        unstamped = ""
    spent_us[unstamped or "finish"] = duration_us - now_us
    return {name: spent / 1e6 for name, spent in spent_us.items()}


class _Moment(NamedTuple):
    """The end of a phase, in microseconds from the start; None if nobody stamped it."""

    phase: str
    until_us: int | None
    is_step: bool = True  # of the generator


def _moments(
    transfer: Transfer, stream: Stream | None, stamps_us: Mapping[str, int]
) -> Iterator[_Moment]:
    elapsed = transfer.record["elapsed_seconds"]
    if "connect" in stamps_us:
        yield _Moment("socket", stamps_us["connect"], is_step=False)
    if "established" in stamps_us:
        yield _Moment("connect", stamps_us["established"], is_step=False)
    else:
        yield _Moment("connect", _step_us(elapsed, "socket_connect"))
    if not transfer.record["endpoint_proxy"].startswith("NULL"):
        request = "socks"
        if "first_sent" in stamps_us and "first_received" in stamps_us:
            yield _Moment("greeting", stamps_us["first_sent"], is_step=False)
            yield _Moment("choice", stamps_us["first_received"], is_step=False)
            request = "request"
        yield _Moment(request, _step_us(elapsed, "proxy_request"))
        answer = "attach"
        if stream is not None:
            yield _Moment("circuit", _sent_us(transfer, stream), is_step=False)
            answer = "stream"
        yield _Moment(answer, _step_us(elapsed, "proxy_response"))
    for phase, field in _AFTER_PROXY:
        yield _Moment(phase, _step_us(elapsed, field))


def _limits_us(moments: list[_Moment], duration_us: int) -> list[int]:
    """Return for each moment the first step of the generator that is not before it."""
    limits = []
    for moment in reversed(moments):
        if moment.is_step and moment.until_us is not None:
            duration_us = min(duration_us, moment.until_us)
        limits.append(duration_us)
    return limits[::-1]


def _step_us(elapsed: Mapping[str, Any], field: str) -> int | None:
    return round(elapsed[field] * 1e6) if field in elapsed else None


def _sent_us(transfer: Transfer, stream: Stream) -> int | None:
    """Return when the stream was last sent to a circuit before it succeeded."""
    until_succeeded = stream.events
    for index, (name, _) in enumerate(stream.events):
        if name.endswith(":SUCCEEDED"):
            until_succeeded = stream.events[:index]
    sent = [ts for name, ts in until_succeeded if name.endswith((":SENTCONNECT", ":SENTRESOLVE"))]
    return round((sent[-1] - transfer.start) * 1e6) if sent else None


def _kernel_us(transfer: Transfer, connection: KernelConnection) -> dict[str, int]:
    """Return the kernel's stamps in microseconds from the start of the transfer.

    The generator's ``created-ts`` is of the same clock. Nothing if it is not told, or if it is of
    another machine's clock.
    """
    created = transfer.record.get("time_info", {}).get("created-ts")
    if created is None or connection.start_ts is None or connection.began_ns is None:
        return {}
    created_ns = int(created) * 1000
    by_utc_ns = (connection.start_ts - transfer.start) * 1e9
    if abs(connection.began_ns - created_ns - by_utc_ns) > _MOST_CLOCK_ERROR_NS:
        return {}
    return {name: (ns - created_ns) // 1000 for name, ns in connection.stamps.items()}
