"""Reads the lines of TGen before 1.0: ``[transfer-status]``, ``-complete]`` and ``-error]``.

Two forms, of 2015 and of 2016 to 2020 (docs/formats.md has both whole)::

    transport (TCP-FD[-PROXY]-REMOTE) transfer (COUNT-NAME-METHOD-SIZE-PEER-COUNT-state=…-error=…)
    transport TCP,FD,LOCAL,PROXY,REMOTE,state=…,error=… transfer VERTEX,COUNT,NAME,METHOD,SIZE,…

then the bytes, and on the lines that tell of an end the times. Names may hold commas, so fields
are recognised by what surrounds them. A transfer here is the same `Transfer` as of later programs.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from perfmeasure.analysis.sections import is_framed
from perfmeasure.analysis.transfers import Begun, Transfer, elapsed_payload, garbled, port_of

_STEPS = (
    "socket-create", "socket-connect", "proxy-init", "proxy-choice", "proxy-request",
    "proxy-response", "command", "response", "first-byte", "last-byte", "checksum",
)  # fmt: skip
_STEPS_2015 = _STEPS[6:]
_NO_PEER = "NULL:0.0.0.0:0"
_LONGEST_STEP_US = 10**12  # 11 days; an old TGen prints a time of day where it has no start

_WORD = r"[A-Z][A-Z0-9_]*"
_PEER = r"[^:,\s]*:[^:,\s]*:\d{1,5}"
_TRANSPORT = re.compile(
    rf"(?:TCP|UDP|PIPE|SOCKETPAIR|NONE),(?P<fd>-?\d{{1,9}}),(?P<local>{_PEER}),(?P<proxy>{_PEER}),"
    rf"(?P<remote>{_PEER}),state=(?P<state>{_WORD}),error=(?P<error>{_WORD})",
    re.ASCII,
)
_TRANSPORT_2015 = re.compile(
    rf"\(TCP-(?P<fd>-?\d{{1,9}})(?:-(?P<proxy>{_PEER}))??-(?P<remote>{_PEER})\)", re.ASCII
)
_TRANSFER = re.compile(
    r"(?P<vertex>[^\[\]%]+?),(?P<count>\d{1,15}),(?P<name>[^\[\]%]*),(?P<method>[A-Z]+),(?P<size>\d{1,15}),"
    rf"(?P<peer>[^\[\]%]*),(?P<peer_count>\d{{1,15}}),state=(?P<state>{_WORD}),error=(?P<error>{_WORD})",
    re.ASCII,
)
_TRANSFER_2015 = re.compile(
    r"\((?P<count>\d{1,15})-(?P<name>[^\[\]%]*)-(?P<method>[A-Z]+)-(?P<size>\d{1,15})-"
    rf"(?P<peer>[^\[\]%]*)-(?P<peer_count>\d{{1,15}})-state=(?P<state>{_WORD})-error=(?P<error>{_WORD})\)",
    re.ASCII,
)
_BYTES = re.compile(
    r" total-bytes-read=(\d{1,15}) total-bytes-write=(\d{1,15})"
    r"(?: payload-bytes-read=(\d{1,15})/(\d{1,15}) \((-?nan|\d{1,9}\.\d\d)%\))?"
    r"(?: payload-bytes-write=(\d{1,15})/(\d{1,15}) \((-?nan|\d{1,9}\.\d\d)%\))?"
    r"(?P<times>(?: [um]secs-to-[a-z-]+=-?\d{1,15})*)\s*",
    re.ASCII,
)
_INNER_STAMP = re.compile(r"\d-\d\d \d\d:\d\d:\d\d \d{9,10}\.", re.ASCII)
_PROGRESS = re.compile(
    rb" total-bytes-read=\d{1,15} total-bytes-write=\d{1,15}"
    rb"(?: payload-bytes-read=(\d{1,15})/\d{1,15} \((-?nan|\d{1,9}\.\d\d)%\))?"
    rb"(?: payload-bytes-write=(\d{1,15})/\d{1,15} \((-?nan|\d{1,9}\.\d\d)%\))?\s*"
)


class Payload(NamedTuple):
    """How far one direction is: bytes so far, bytes wanted, percent (-1 where nothing is)."""

    done: int
    wanted: int
    percent: float


_NOTHING = Payload(0, 0, -1.0)


class OldLine(NamedTuple):
    """One line, taken apart. ``times_us`` has the steps that were reached, in microseconds."""

    transport: dict[str, str]
    transfer: dict[str, str]
    total_read: int
    total_write: int
    read: Payload | None
    write: Payload | None
    times_us: dict[str, int] | None

    @property
    def key(self) -> bytes:
        """What identifies the transfer within its process."""
        return f"{self.transfer['vertex']},{self.transfer['count']}".encode()

    @property
    def reached(self) -> tuple[int, int, float, float]:
        """Bytes received and sent, percent received and sent."""
        recv, send = self.read or _NOTHING, self.write or _NOTHING
        return recv.done, send.done, recv.percent, send.percent

    @property
    def is_commander(self) -> bool:
        """Whether this side asked.

        The side that answers calls a GET a PUT, as it is the one that sends; it never has a proxy.
        So a PUT without a proxy is taken for an answer, which it nearly always is.
        """
        method = self.transfer["method"]
        if method == "NONE" or self.transfer["vertex"] == "(null)":
            return False  # it has not been told yet what is wanted
        return method != "PUT" or self.transport["proxy"] != _NO_PEER


def reached(line: bytes, at: int) -> tuple[int, int, float, float]:
    """Return bytes received and sent, percent received and sent, from ``total-bytes-read`` on.

    Raises:
        ValueError: there is no payload in it, or it is cut or garbled.
    """
    match = _PROGRESS.fullmatch(line, at)
    if match is None or match.lastindex is None:
        garbled()
    recv, recv_percent, send, send_percent = match.groups(b"0")
    return (
        int(recv), int(send),
        percent(recv_percent) if match[1] else -1.0, percent(send_percent) if match[3] else -1.0,
    )  # fmt: skip


def percent(text: bytes | str) -> float:
    """Return a percentage, -1 for the ``-nan`` of nothing out of nothing."""
    return -1.0 if text[-1:] in {b"n", "n"} else float(text)


def parse(line: bytes) -> OldLine:
    """Take a whole line apart.

    Raises:
        ValueError: it is cut or garbled.
    """
    text = line.decode("utf-8", "replace")
    if "\ufffd" in text or not text.rstrip().isprintable():
        garbled()
    word = text.find("[transfer-")
    begin = text.find("]", word)
    middle = text.find(" transfer ", begin)
    end = text.rfind(" total-bytes-read=")
    if _INNER_STAMP.search(text, begin) or not (
        is_framed(text, word) and text.startswith("] transport ", begin) and begin < middle < end
    ):
        garbled()
    transport_text, transfer_text = text[begin + 12 : middle], text[middle + 10 : end]
    transport = _TRANSPORT.fullmatch(transport_text) or _TRANSPORT_2015.fullmatch(transport_text)
    transfer = _TRANSFER.fullmatch(transfer_text) or _TRANSFER_2015.fullmatch(transfer_text)
    size = _BYTES.fullmatch(text, end)
    if transport is None or transfer is None or size is None:
        garbled()
    if size[3] is None and size[6] is None:
        garbled()
    fields = transfer.groupdict()
    ends = {name: value or _NO_PEER for name, value in transport.groupdict().items()}
    return OldLine(
        {"local": _NO_PEER, "state": "UNKNOWN", "error": "UNKNOWN", **ends},
        {"vertex": fields["name"], **fields},
        int(size[1]),
        int(size[2]),
        _payload(size[3], size[4], size[5]),
        _payload(size[6], size[7], size[8]),
        _times(size["times"]) if size["times"] else None,
    )


def _payload(done: str | None, wanted: str, percents: str) -> Payload | None:
    return None if done is None else Payload(int(done), int(wanted), percent(percents))


def _times(text: str) -> dict[str, int]:
    """Return the steps that were reached; all of one form must be there, else the line is cut."""
    found = {}
    unit = ""
    for word in text.split():
        name, _, value = word.partition("=")
        unit, _, step = name.partition("-to-")
        if step in found:
            garbled()
        found[step] = int(value) * (1000 if unit == "msecs" else 1)
    if tuple(found) != (_STEPS_2015 if unit == "msecs" else _STEPS):
        garbled()
    reached = {step: us for step, us in found.items() if 0 <= us < _LONGEST_STEP_US}
    # The checksum is the last step: if it seems not to be, digits are missing at its end.
    if reached.get("checksum", _LONGEST_STEP_US) < max(reached.values(), default=0):
        garbled()
    return reached


def transfer_of(
    old: OldLine, begun: Begun, ts: float, *, is_complete: bool, is_error: bool = False
) -> Transfer:
    """Return the transfer whose last line is ``old``, at ``ts`` (Unix seconds).

    These programs do not say when a transfer began. A success ends with its last step, so it began
    that long before; a failure may have waited long after its last step, so the first line about
    it counts as well, and it may have begun earlier still.

    Raises:
        ValueError: the line tells of a success without its times.
    """
    fields, times = old.transfer, old.times_us or {}
    is_of_2015 = old.transport["state"] == "UNKNOWN"
    if is_complete and old.times_us is None and not (is_error and is_of_2015):
        garbled()
    start = ts - max(times.values(), default=0) / 1e6 if is_complete else begun.first_ts
    if is_error:
        start = min(start, begun.first_ts)
    is_put = fields["method"] == "PUT"
    direction = "send" if is_put else "recv"
    main = old.write if direction == "send" else old.read
    elapsed: dict[str, Any] = {step.replace("-", "_"): us / 1e6 for step, us in times.items()}
    end = max(ts, start) if is_complete else float("inf")  # of a cut one, none is known
    elapsed.update(elapsed_payload(begun, direction, start, end))
    record: dict[str, Any] = {
        "elapsed_seconds": elapsed,
        "endpoint_local": old.transport["local"],
        "endpoint_proxy": old.transport["proxy"],
        "endpoint_remote": old.transport["remote"],
        "error_code": fields["error"],
        "filesize_bytes": int(fields["size"]),
        "hostname_local": fields["name"],
        "hostname_remote": fields["peer"],
        "is_commander": old.is_commander,
        "is_complete": is_complete,
        "is_error": is_error,
        "is_success": is_complete and not is_error,
        "method": "PUT" if is_put else "GET",
        "payload_bytes_status": main.done if main else 0,
        "total_bytes_read": old.total_read,
        "total_bytes_write": old.total_write,
        "transport_info": old.transport,
        "unix_ts_start": start,
    }
    if is_complete:
        record["unix_ts_end"] = ts
    side = ("name", "count") if old.is_commander else ("peer", "peer_count")
    return Transfer(
        f"{fields['vertex']}:{fields['count']}",
        record,
        start,
        max(ts, start),
        port_of(record["endpoint_local"]),
        (fields[side[0]], fields[side[1]]),
    )
