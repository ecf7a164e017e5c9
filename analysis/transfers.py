"""A transfer: from the bracketed sections of TGen's lines to the seed's fields, as numbers.

The record of a transfer keeps the line's four sections as text beside the seed's fields
(``transport_info``, ``stream_info``, ``byte_info``, ``time_info``, the names that OnionPerf 3.x
gives them), so that the other tools' versions can be written exactly.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NoReturn

from perfmeasure.analysis.sections import sections_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfmeasure.analysis.clocksteps import ClockStep

PAYLOAD_MARKS_BYTES = (
    10240, 20480, 51200, 102400, 204800, 512000, 1048576, 2097152, 5242880,
)  # fmt: skip
"""Sizes at which the time is kept, as OnionPerf does."""

_DECILES = tuple(f"{index / 10:.1f}" for index in range(11))
_NEVER = float("inf")
_ROUNDED_SECONDS = 0.01  # by so much a stamp and the generator's monotonic clock may differ

# elapsed_seconds name -> time_info name; {} is the direction, recv or send.
_ELAPSED = (
    ("socket_create", "usecs-to-socket-create"),
    ("socket_connect", "usecs-to-socket-connect"),
    ("proxy_init", "usecs-to-proxy-init"),
    ("proxy_choice", "usecs-to-proxy-choice"),
    ("proxy_request", "usecs-to-proxy-request"),
    ("proxy_response", "usecs-to-proxy-response"),
    ("command", "usecs-to-command"),
    ("response", "usecs-to-response"),
    ("first_byte", "usecs-to-first-byte-{}"),
    ("last_byte", "usecs-to-last-byte-{}"),
    ("checksum", "usecs-to-checksum-{}"),
)


@dataclasses.dataclass(slots=True)
class Transfer:
    """One transfer, whole or cut.

    ``base_id`` is ``VERTEX:ID``; the database adds ``#2`` when it comes again. The transfer lived
    within ``start`` to ``end`` (Unix seconds; of a cut one, ``end`` is when its process is known
    to have gone or the log ends). ``source_port`` is its end of the connection, 0 if unknown.
    ``call_sign`` is what both ends call it by: the client's name, and its count or its vertex.
    """

    base_id: str
    record: dict[str, Any]
    start: float
    end: float
    source_port: int
    call_sign: tuple[str, str] = ("", "")


@dataclasses.dataclass(slots=True)
class TgenLog:
    """What the logs of one generator say.

    ``passive_count`` streams were answered, not begun, by it: a server's log has only those.
    ``answered`` are those of them that ended, as the server saw them.
    """

    host: str = ""
    program: str = ""
    transfers: list[Transfer] = dataclasses.field(default_factory=list)
    passive_count: int = 0
    answered: list[Transfer] = dataclasses.field(default_factory=list)
    clock_steps: list[ClockStep] = dataclasses.field(default_factory=list)

    def add(self, other: TgenLog) -> None:
        """Take in what other logs say."""
        self.transfers += other.transfers
        self.passive_count += other.passive_count


class Begun:
    """A transfer that has not ended: the times at which it passed each mark, and its last line."""

    __slots__ = (
        "first_line", "first_ts", "line", "recv_bytes", "recv_mark", "recv_next_decile",
        "recv_next_mark", "recv_progress", "send_bytes", "send_mark", "send_next_decile",
        "send_next_mark", "send_progress",
    )  # fmt: skip

    def __init__(self, ts: float, line: bytes) -> None:
        self.first_ts = ts
        self.first_line = line
        self.line = line
        # Stamps of the deciles and of the marks passed, in order.
        self.recv_progress: list[float] = []
        self.send_progress: list[float] = []
        self.recv_bytes: list[float] = []
        self.send_bytes: list[float] = []
        # What must be reached next, so that most lines cost four comparisons.
        self.recv_next_decile: float = 0.0
        self.send_next_decile: float = 0.0
        self.recv_next_mark: float = PAYLOAD_MARKS_BYTES[0]
        self.send_next_mark: float = PAYLOAD_MARKS_BYTES[0]

    def passes(self, recv: int, send: int, recv_pct: float, send_pct: float) -> bool:
        """Whether `reach` would note anything."""
        return (
            recv_pct >= self.recv_next_decile
            or send_pct >= self.send_next_decile
            or recv >= self.recv_next_mark
            or send >= self.send_next_mark
        )

    def reach(self, ts: float, recv: int, send: int, recv_pct: float, send_pct: float) -> None:
        """Note the time of what has been passed: payload bytes and percent, both ways."""
        if recv_pct >= self.recv_next_decile:
            self.recv_next_decile = _pass_deciles(self.recv_progress, recv_pct, ts)
        if send_pct >= self.send_next_decile:
            self.send_next_decile = _pass_deciles(self.send_progress, send_pct, ts)
        if recv >= self.recv_next_mark:
            self.recv_next_mark = _pass_marks(self.recv_bytes, recv, ts)
        if send >= self.send_next_mark:
            self.send_next_mark = _pass_marks(self.send_bytes, send, ts)

    def shift(self, seconds: float) -> None:
        """Bring what was stamped before a step of the clock to the time after it."""
        self.first_ts += seconds
        for stamps in (self.recv_progress, self.send_progress, self.recv_bytes, self.send_bytes):
            stamps[:] = [ts + seconds for ts in stamps]

    def elapsed(
        self, direction: str, start: float, end: float
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return seconds since ``start`` by decile and by mark.

        A stamp outside of ``start`` to ``end`` is none of this transfer's: the clock was set
        without a pair that tells of it. Then the time is not known. Readers of deciles want all
        of them, so then there is none.
        """
        progress, marks = (
            (self.recv_progress, self.recv_bytes)
            if direction == "recv"
            else (self.send_progress, self.send_bytes)
        )
        deciles = _within(zip(_DECILES, progress, strict=False), start, end)
        return (
            deciles if len(deciles) == len(progress) else {},
            _within(zip(map(str, PAYLOAD_MARKS_BYTES), marks, strict=False), start, end),
        )


def _within(stamps: Iterable[tuple[str, float]], start: float, end: float) -> dict[str, float]:
    lasted = end - start
    return {
        name: round(min(max(ts - start, 0.0), lasted), 6)
        for name, ts in stamps
        if -_ROUNDED_SECONDS <= ts - start <= lasted + _ROUNDED_SECONDS
    }


def _pass_deciles(passed: list[float], percent: float, ts: float) -> float:
    while len(passed) < len(_DECILES) and percent >= 10 * len(passed):
        passed.append(ts)
    return 10.0 * len(passed) if len(passed) < len(_DECILES) else _NEVER


def _pass_marks(passed: list[float], size: int, ts: float) -> float:
    while len(passed) < len(PAYLOAD_MARKS_BYTES) and size >= PAYLOAD_MARKS_BYTES[len(passed)]:
        passed.append(ts)
    return PAYLOAD_MARKS_BYTES[len(passed)] if len(passed) < len(PAYLOAD_MARKS_BYTES) else _NEVER


def garbled() -> NoReturn:
    """Raise the ValueError of a line that is not as it should be."""
    raise ValueError("cut or garbled")


def port_of(endpoint: str) -> int:
    """Return the port of ``NAME:ADDRESS:PORT``, 0 if there is none."""
    port = endpoint.rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0


def _seed_fields(sections: dict[str, dict[str, str]]) -> tuple[str, dict[str, Any]]:
    """Return the transfer's direction (recv or send) and the fields that do not need its end."""
    transport, stream = sections["transport"], sections["stream"]
    size = sections.get("bytes")
    asked_recv, asked_send = int(stream["recvsize"]), int(stream["sendsize"])
    if asked_recv == asked_send == 0 and size:  # left to the traffic model
        moved = int(size["payload-bytes-send"]) > int(size["payload-bytes-recv"])
    else:
        moved = asked_send > asked_recv
    direction = "send" if moved else "recv"
    record: dict[str, Any] = {
        "endpoint_local": transport["local"],
        "endpoint_proxy": transport["proxy"],
        "endpoint_remote": transport["remote"],
        "error_code": stream["error"],
        "filesize_bytes": max(asked_recv, asked_send),
        "hostname_local": stream["name"],
        "hostname_remote": stream["peername"],
        "is_commander": not is_passive(sections),
        "method": "PUT" if direction == "send" else "GET",
        "stream_info": stream,
        "transport_info": transport,
    }
    if size:
        record["byte_info"] = size
        record["payload_bytes_status"] = int(size[f"payload-bytes-{direction}"])
        record["total_bytes_read"] = int(size["total-bytes-recv"])
        record["total_bytes_write"] = int(size["total-bytes-send"])
    return direction, record


def elapsed_payload(begun: Begun, direction: str, start: float, end: float) -> dict[str, Any]:
    """Return the payload maps of elapsed_seconds; the other direction's carry its name."""
    other = "recv" if direction == "send" else "send"
    progress, sizes = begun.elapsed(direction, start, end)
    other_progress, other_sizes = begun.elapsed(other, start, end)
    return {
        "payload_progress": progress,
        "payload_bytes": sizes,
        f"payload_progress_{other}": other_progress,
        f"payload_bytes_{other}": other_sizes,
    }


def ended_transfer(
    sections: dict[str, dict[str, str]], begun: Begun, ts: float, *, is_error: bool
) -> Transfer:
    """Return a transfer that ended at ``ts``.

    Raises:
        ValueError: a field that should be a number is none.
    """
    direction, record = _seed_fields(sections)
    times = sections["times"]
    lasted_us = int(times["now-ts"]) - int(times["created-ts"])
    start = ts - lasted_us / 1e6
    if lasted_us < 0 or start < 0:
        garbled()
    elapsed: dict[str, Any] = {}
    for name, field in _ELAPSED:
        microseconds = int(times[field.format(direction)])
        if microseconds >= 0:
            elapsed[name] = microseconds / 1e6
    elapsed.update(elapsed_payload(begun, direction, start, ts))
    record.update(
        elapsed_seconds=elapsed,
        is_complete=True,
        is_error=is_error,
        is_success=not is_error,
        time_info=times,
        unix_ts_end=ts,
        unix_ts_start=start,
    )
    return Transfer(
        _base_id(sections),
        record,
        start,
        ts,
        port_of(record["endpoint_local"]),
        _call_sign(sections["stream"]),
    )


def cut_transfer(line: bytes, begun: Begun, ts: float) -> Transfer:
    """Return a transfer that had not ended when its process did, or the log, at ``ts``.

    Raises:
        ValueError: ``line``, the last one about it, is not as it should be.
    """
    sections = sections_of(line)
    if sections is None:
        garbled()
    direction, record = _seed_fields(sections)
    start = begun.first_ts
    record.update(
        # The log's last stamp is no bound: it may be of a line that is out of place.
        elapsed_seconds=elapsed_payload(begun, direction, start, _NEVER),
        is_complete=False,
        is_error=False,
        is_success=False,
        unix_ts_start=start,
    )
    return Transfer(
        _base_id(sections),
        record,
        start,
        max(ts, start),
        port_of(record["endpoint_local"]),
        _call_sign(sections["stream"]),
    )


_PASSIVE = "passive-stream"


def is_passive(sections: dict[str, dict[str, str]]) -> bool:
    """Whether the stream was answered, not begun."""
    return sections["stream"]["vertexid"].startswith(_PASSIVE)


def _call_sign(stream: dict[str, str]) -> tuple[str, str]:
    vertex = stream["vertexid"]
    if vertex.startswith(_PASSIVE):
        return stream["peername"], vertex.removeprefix(_PASSIVE).removeprefix(":")
    return stream["name"], vertex


def _base_id(sections: dict[str, dict[str, str]]) -> str:
    return f"{sections['stream']['vertexid']}:{sections['stream']['id']}"
