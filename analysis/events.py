"""The text of Tor's control-port events, taken apart (control-spec, section 4.1).

Each function takes what follows the event's name and gives a tuple, or raises `RejectedError` with
the reason why the line cannot be used. What the reader of the control port notes of itself gives
tuples as well: together they are the facts that `torctlscan` finds and `torctl` puts together.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from perfmeasure.analysis.torlog import HOP

if TYPE_CHECKING:
    from collections.abc import Iterable

_STREAM_STATUSES = frozenset({
    "NEW", "NEWRESOLVE", "REMAP", "SENTCONNECT", "SENTRESOLVE", "SUCCEEDED", "FAILED", "CLOSED",
    "DETACHED", "CONTROLLER_WAIT", "XOFF_SENT", "XOFF_RECV", "XON_SENT", "XON_RECV",
})  # fmt: skip
_CIRCUIT_STATUSES = {
    "CIRC": frozenset({"LAUNCHED", "BUILT", "GUARD_WAIT", "EXTENDED", "FAILED", "CLOSED"}),
    "CIRC_MINOR": frozenset({"PURPOSE_CHANGED", "CANNIBALIZED"}),
}
_CONNECTION_STATUSES = frozenset({"NEW", "LAUNCHED", "CONNECTED", "FAILED", "CLOSED"})
_GUARD_STATUSES = frozenset({"NEW", "UP", "DOWN", "DROPPED", "BAD", "GOOD", "BAD_L2", "GOOD_L2"})
_BUILD_TIMEOUT_KINDS = frozenset({"COMPUTED", "RESET", "SUSPENDED", "DISCARD", "RESUME"})
_WORD = re.compile(r'(?:[^ "]|"(?:[^"\\]|\\.)*")+')
_TARGET = re.compile(r'[^\s"=]*:\d{1,5}\Z', re.ASCII)
_NUMBER = re.compile(r"\d{1,15}\Z", re.ASCII)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"\Z')
_NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")
# What the values look like that are used; where one does not, the line is cut or garbled.
_SHAPES = {
    **dict.fromkeys(("HS_STATE", "OLD_PURPOSE", "PURPOSE", "REASON", "REMOTE_REASON"), _NAME),
    "CONFLUX_ID": re.compile(r"[0-9A-F]+\Z"),
    "CUTOFF_QUANTILE": re.compile(r"(?:0\.\d{1,9}|1\.0{1,9})\Z", re.ASCII),
    "ID": _NUMBER,
    "REND_QUERY": re.compile(r"[a-z2-7]+\Z"),
    "SOURCE_ADDR": re.compile(r"\S+:\d{1,5}\Z", re.ASCII),
    "TIMEOUT_MS": _NUMBER,
    "TIME_CREATED": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?\Z", re.ASCII),
}
_STARTED = re.compile(
    r"Starting torctl program on host (\S+) using Tor version (\S+)(?: \(\S*\))* status=.+"
)
_GAP = re.compile(
    r"\[GAP\] control connection (?:(?P<lost>lost: .+)|back after \d+\.\d{1,9} seconds)"
    r"|\[LOST\] (?P<entries>\d{1,15}) entries were not written: .+",
    re.ASCII,
)


class RejectedError(Exception):
    """A line that cannot be used; its text is the reason."""


class StreamEvent(NamedTuple):
    """STREAM. ``circuit`` is 0 for none; of ``values``, SOCKS names and passwords are left out."""

    number: int
    status: str
    circuit: int
    target: str
    values: dict[str, str]


class CircuitEvent(NamedTuple):
    """CIRC or CIRC_MINOR. ``path`` is of ``$FINGERPRINT~nickname``."""

    name: str
    number: int
    status: str
    path: list[str]
    values: dict[str, str]

    @property
    def purpose(self) -> str:
        """What the circuit is for."""
        return self.values.get("PURPOSE", "UNKNOWN")

    @property
    def hidden_service_state(self) -> str:
        """``HS_STATE``, and ``:REND_QUERY`` if there is one."""
        state = self.values.get("HS_STATE", "UNKNOWN")
        query = self.values.get("REND_QUERY")
        return f"{state}:{query}" if query else state


class GuardEvent(NamedTuple):
    """GUARD. ``kind`` is ENTRY for those that we know."""

    kind: str
    fingerprint: str
    nickname: str
    status: str


class ConnectionEvent(NamedTuple):
    """ORCONN. ``number`` is tor's ID, or the endpoint where an old tor gives none."""

    number: str
    endpoint: str
    status: str


class RelayStatus(NamedTuple):
    """A line ``r`` of a network status. ``identity`` is the fingerprint in base64."""

    identity: str
    address: str


class BuildTimeoutEvent(NamedTuple):
    """BUILDTIMEOUT_SET. ``kind`` is COMPUTED, RESET, SUSPENDED, DISCARD or RESUME."""

    kind: str
    timeout_ms: int
    quantile: float


class Bandwidth(NamedTuple):
    """All BW events of a log: bytes by Unix second, as three lists of the same length."""

    seconds: list[int]
    bytes_read: list[int]
    bytes_written: list[int]


class ReaderStarted(NamedTuple):
    """A reader began. ``host`` and ``version`` (tor's) are empty where it does not say."""

    host: str
    version: str


class ReaderGap(NamedTuple):
    """Events may be missing: from here on (``lost``), up to here (``back``), or ``entries`` here.

    ``lost_entries`` is how many these were, 0 with the other two.
    """

    kind: str
    lost_entries: int


class RelayNote(NamedTuple):
    """Where a relay is: each of ``endpoints`` is ``ADDRESS:PORT``, of IPv6 ``[ADDRESS]:PORT``."""

    fingerprint: str
    endpoints: list[str]


def stream(text: str) -> StreamEvent:
    """Read ``ID STATUS CIRCUIT TARGET KEY=VALUE…``."""
    words = _words(text)
    if len(words) < 4 or not _are_numbers(words[0], words[2]):
        raise RejectedError("STREAM is cut or garbled")
    if words[1] not in _STREAM_STATUSES:
        raise RejectedError("STREAM with a status that is not known")
    if not _TARGET.match(words[3]):
        raise RejectedError("STREAM with a target that is none")
    values = {
        key: value
        for key, value in _values(words[4:], "STREAM").items()
        if not key.startswith("SOCKS_")
    }
    return StreamEvent(int(words[0]), words[1], int(words[2]), words[3], values)


def circuit(text: str, name: str) -> CircuitEvent:
    """Read ``ID STATUS [PATH] KEY=VALUE…``, of the event ``name``."""
    words = _words(text)
    if len(words) < 2 or not _are_numbers(words[0]):
        raise RejectedError(f"{name} is cut or garbled")
    if words[1] not in _CIRCUIT_STATUSES[name]:
        raise RejectedError(f"{name} with a status that is not known")
    path = []
    # An old tor joins fingerprint and name of a named relay by "=", as in a key with its value.
    if len(words) > 2 and (words[2].startswith("$") or "=" not in words[2]):
        path = words[2].split(",")
        if not all(HOP.match(hop) for hop in path):
            raise RejectedError(f"{name} with a path that is none")
        if "=" in words[2]:
            path = [hop.replace("=", "~") for hop in path]
    values = _values(words[3 if path else 2 :], name)
    if "TIME_CREATED" in values and unix_ts(values["TIME_CREATED"]) is None:
        raise RejectedError(f"{name} with a TIME_CREATED that is none")
    return CircuitEvent(name, int(words[0]), words[1], path, values)


def guard(text: str) -> GuardEvent:
    """Read ``ENTRY $FINGERPRINT~NICKNAME STATUS``."""
    words = text.split(" ")
    if len(words) < 3 or words[2] not in _GUARD_STATUSES:
        raise RejectedError("GUARD is cut or garbled")
    match = HOP.match(words[1])
    if match is None:
        raise RejectedError("GUARD without a fingerprint")
    _values(words[3:], "GUARD")
    if not _NAME.match(words[0]):
        raise RejectedError("GUARD is cut or garbled")
    return GuardEvent(words[0], match[1].upper(), match[2] or "", words[2])


def connection(text: str) -> ConnectionEvent:
    """Read ``ENDPOINT STATUS [KEY=VALUE…]``."""
    words = text.split(" ")
    if len(words) < 2 or words[1] not in _CONNECTION_STATUSES or not words[0] or '"' in words[0]:
        raise RejectedError("ORCONN is cut or garbled")
    return ConnectionEvent(_values(words[2:], "ORCONN").get("ID", words[0]), words[0], words[1])


def relay_status(line: bytes) -> RelayStatus | None:
    """Read ``r NICKNAME IDENTITY [DIGEST] DATE TIME ADDRESS ORPORT DIRPORT``, None if it is not."""
    words = line.split(b" ")
    if words[0] != b"r" or len(words) not in {8, 9}:
        return None
    return RelayStatus(words[2].decode("ascii", "replace"), words[-3].decode("ascii", "replace"))


def bandwidth(text: str) -> tuple[int, int]:
    """Read ``READ WRITTEN``, bytes in the last second."""
    words = text.split(" ")
    if len(words) < 2 or not _are_numbers(words[0], words[1]):
        raise RejectedError("BW is cut or garbled")
    _values(words[2:], "BW")
    return int(words[0]), int(words[1])


def build_timeout(text: str) -> BuildTimeoutEvent:
    """Read ``KIND … TIMEOUT_MS=… CUTOFF_QUANTILE=…``."""
    kind, *words = text.split(" ")
    values = _values(words, "BUILDTIMEOUT_SET")
    if kind not in _BUILD_TIMEOUT_KINDS or not values.keys() >= {"TIMEOUT_MS", "CUTOFF_QUANTILE"}:
        raise RejectedError("BUILDTIMEOUT_SET is cut or garbled")
    timeout_ms, quantile = int(values["TIMEOUT_MS"]), float(values["CUTOFF_QUANTILE"])
    return BuildTimeoutEvent(kind, timeout_ms, quantile)


def reader_started(text: str) -> ReaderStarted:
    """Read ``Starting torctl program on host HOST using Tor version VERSION … status=…``."""
    match = _STARTED.fullmatch(text)
    if match is None:
        raise RejectedError("Starting line is cut or garbled")
    return ReaderStarted(match[1], match[2])


def reader_gap(text: str) -> ReaderGap:
    """Read ``[GAP] control connection lost: …`` or ``back after …``, or ``[LOST] N entries …``."""
    match = _GAP.fullmatch(text)
    if match is None:
        raise RejectedError("GAP or LOST is cut or garbled")
    if match["entries"]:
        return ReaderGap("entries", int(match["entries"]))
    return ReaderGap("lost" if match["lost"] else "back", 0)


def relay_note(text: str) -> RelayNote:
    """Read ``[RELAY] $FINGERPRINT~NICKNAME ADDRESS:PORT…``."""
    words = text.split(" ")
    match = HOP.match(words[1]) if len(words) > 2 else None
    if match is None or not all(_TARGET.match(word) for word in words[2:]):
        raise RejectedError("note of a relay is cut or garbled")
    return RelayNote(match[1].upper(), words[2:])


def unix_ts(time_created: str) -> float | None:
    """Return ``2026-11-22T00:57:46.289288``, which is UTC, as Unix time; None if it is no time."""
    try:
        return datetime.fromisoformat(time_created).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _words(text: str) -> list[str]:
    """Split at spaces outside quotes; a quote that is not closed spoils the line."""
    if '"' not in text:
        return text.split(" ")
    words = _WORD.findall(text)
    if " ".join(words) != text:
        raise RejectedError("a quote is not closed")
    return words


def _values(words: Iterable[str], name: str) -> dict[str, str]:
    """Return the keywords of the event ``name``, each of which is there once."""
    values: dict[str, str] = {}
    for word in words:
        key, is_pair, value = word.partition("=")
        shape = _SHAPES.get(key)
        if shape and not shape.match(value):
            raise RejectedError(f"{name} with a {key} that is none")
        is_whole = is_pair and _NAME.match(key) and ('"' not in value or _QUOTED.match(value))
        if not is_whole or key in values:
            raise RejectedError(f"{name} with a keyword that is cut or garbled")
        values[key] = value
    return values


def _are_numbers(*words: str) -> bool:
    return all(_NUMBER.match(word) for word in words)
