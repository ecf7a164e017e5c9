"""Divides the time of a transfer into consecutive phases: where did the seconds go?

Each phase ends at a step that the generator timed; a step that it did not reach, or did not time,
leaves its seconds to the phase that was going on. So the phases add up to the transfer's
duration, and in a failed transfer the last one is the phase in which it failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from perfmeasure.analysis.torlog import Stream
    from perfmeasure.analysis.transfers import Transfer

# (phase, the elapsed_seconds field that ends it)
_BEFORE_PROXY = (("connect", "socket_connect"),)
_PROXY = (("socks", "proxy_request"), ("attach", "proxy_response"))
_AFTER_PROXY = (
    ("command", "command"),
    ("response", "response"),
    ("first_byte", "first_byte"),
    ("payload", "last_byte"),
    ("checksum", "checksum"),
)


def phases(transfer: Transfer, stream: Stream | None) -> dict[str, float]:
    """Return seconds by phase, in order; nothing for a transfer whose end or steps are unknown.

    connect
        from the start until the TCP connection (to the proxy, or to the server) stands
    socks
        greeting and request of SOCKS; only with a proxy, like the next
    attach
        until the proxy's answer. With the Tor stream known, two phases in its place: ``circuit``,
        until the stream was sent over the circuit that carried it (waiting for, and building,
        circuits; with an onion service, descriptor and rendezvous), and ``stream``, until the
        far end had connected
    command, response, first_byte
        the generator's own header sent, answered, the first byte of the payload
    payload, checksum
        first to last byte, and the comparison of checksums
    finish
        the footer and the close
    """
    record = transfer.record
    elapsed = record["elapsed_seconds"]
    if not record["is_complete"]:
        return {}
    duration_us = round((transfer.end - transfer.start) * 1e6)
    has_proxy = not record["endpoint_proxy"].startswith("NULL")
    steps = (*_BEFORE_PROXY, *(_PROXY if has_proxy else ()), *_AFTER_PROXY)
    spent_us: dict[str, int] = {}
    now_us = 0
    phase = ""
    for name, field in steps:
        phase = phase or name
        step_us = _microseconds(elapsed, field)
        if step_us is None:
            continue  # its seconds go to the next step that is known, under this phase's name
        step_us = min(max(step_us, now_us), duration_us)
        spent_us[phase] = step_us - now_us
        now_us = step_us
        phase = ""
    spent_us[phase or "finish"] = duration_us - now_us
    if stream is not None and "attach" in spent_us:
        _divide_attach(spent_us, transfer.start, stream)
    return {name: spent / 1e6 for name, spent in spent_us.items()}


def _microseconds(elapsed: Mapping[str, Any], field: str) -> int | None:
    return round(elapsed[field] * 1e6) if field in elapsed else None


def _divide_attach(spent_us: dict[str, int], start: float, stream: Stream) -> None:
    """Put ``circuit`` and ``stream`` in the place of ``attach``, if the stream was ever sent."""
    until_succeeded = stream.events
    for index, (name, _) in enumerate(stream.events):
        if name.endswith(":SUCCEEDED"):
            until_succeeded = stream.events[:index]
    sent = [ts for name, ts in until_succeeded if name.endswith((":SENTCONNECT", ":SENTRESOLVE"))]
    order = list(spent_us.items())
    spent_us.clear()
    now_us = 0
    for name, spent in order:
        if name != "attach":
            spent_us[name] = spent
        elif not sent:
            spent_us["circuit"] = spent
        else:
            # Another clock reading, perhaps rounded: it divides the phase, it does not move it.
            at_us = round((sent[-1] - start) * 1e6)
            waited = min(max(at_us - now_us, 0), spent)
            spent_us["circuit"] = waited
            spent_us["stream"] = spent - waited
        now_us += spent
