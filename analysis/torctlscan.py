"""Finds the facts in one log of Tor's control port (torctl), line by line.

Events that are used: STREAM, CIRC, CIRC_MINOR, BW, BUILDTIMEOUT_SET, GUARD, ORCONN. All others are
skipped by their name alone. Lines end in LF or CRLF, stamps have 2 or 6 decimals, multi-line
events continue without stamps.

Whatever can be said of a line by itself and its neighbours is said here: which lines are used,
skipped or rejected. What the facts mean together, over all the logs of one tor, `torctl` finds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from perfmeasure.analysis import clocksteps, events
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.source import STAMP, last_stamp

if TYPE_CHECKING:
    from perfmeasure.analysis.source import Counts, Fact

_INNER_STAMP = re.compile(rb"\d-\d\d \d\d:\d\d:\d\d \d{9,10}\.")
_EVENT = re.compile(r"650 [A-Z][A-Z_]*(?: |\Z)")

# Events of tor 0.2 to 0.4.9 whose name is all that we need of them.
_SKIPPED_EVENTS = frozenset(
    b"ADDRMAP AUTHDIR_NEWDESCS CELL_STATS CIRC_BW CLIENTS_SEEN CONF_CHANGED CONN_BW DEBUG "
    b"DESCCHANGED ERR HS_DESC HS_DESC_CONTENT INFO NETWORK_LIVENESS NEWCONSENSUS NEWDESC NOTICE "
    b"NS PT_LOG PT_STATUS SIGNAL STATUS_CLIENT STATUS_GENERAL STATUS_SERVER STREAM_BW TB_EMPTY "
    b"TRANSPORT_LAUNCHED WARN".split()
)


_Reader = Callable[[str], Any]  # of an event's values; gives its NamedTuple
# Number of a line, who reads it if it is an event of one line, and the line.
_Event = tuple[int, _Reader | None, bytes]
_MOST_CUT = 2  # events in a row; more that end in LF alone are another log's, put behind this one
_CUT = "event is cut: its line end is not like the others'"


_NOTES: dict[str, Callable[[str], NamedTuple]] = {
    "Starting torctl program on host ": events.reader_started,
    "[GAP] ": events.reader_gap,
    "[LOST] ": events.reader_gap,
    "[CLOCK] ": lambda text: clocksteps.pair(text[8:]),
    "[RELAY] ": events.relay_note,
}


class TorctlScan:
    """The scan of one log: `batch` for its lines in their order, then `end`."""

    def __init__(self) -> None:
        self.last_ts = 0.0
        self._is_in_data = False  # within a 650+EVENT, up to its lone dot
        self._is_in_status = False  # that of a 650+NEWCONSENSUS or 650+NS
        self._is_in_reply = False  # within a 650-EVENT or after the dot, up to "650 OK"
        self._reply_ts = 0.0
        self._has_crlf = False  # whether events of this log end in CR LF: then one without is cut
        self._held: list[_Event] = []  # such events, until those that follow tell
        self._second_ts = 0.0  # of the last BW, which comes each second
        self._bytes_read: dict[int, int] = {}
        self._bytes_written: dict[int, int] = {}
        self._readers: dict[bytes, _Reader | None] = {
            **dict.fromkeys(_SKIPPED_EVENTS),
            b"STREAM": events.stream,
            b"CIRC": functools.partial(events.circuit, name="CIRC"),
            b"CIRC_MINOR": functools.partial(events.circuit, name="CIRC_MINOR"),
            b"BW": events.bandwidth,
            b"BUILDTIMEOUT_SET": events.build_timeout,
            b"GUARD": events.guard,
            b"ORCONN": events.connection,
        }

    def batch(self, first: int, lines: list[bytes], counts: Counts) -> list[Fact]:
        """Return the facts in consecutive lines, of which the first has the number ``first``."""
        readers = self._readers
        facts: list[Fact] = []
        skipped = 0
        if not any(lines):  # a disk's hole, or a file of nothing else: not line by line
            counts.skipped += len(lines)
            return facts
        if first == 1:
            skipped = _rest_of_event(lines)
        for number, line in enumerate(lines[skipped:], first + skipped):
            parts = line.split(b" ", 5)
            try:
                reader = readers[parts[4].rstrip()]
                if reader is None and parts[3] == b"650":  # most lines, when CIRC_BW is logged
                    self._is_in_data = self._is_in_reply = False
                    skipped += 1
                    continue
                if parts[3] != b"650":
                    reader = None
            except (KeyError, IndexError):
                reader = None
            facts += self._line(number, reader, line, counts)
        counts.skipped += skipped
        self.last_ts = last_stamp(lines, self.last_ts)
        return facts

    def end(self, counts: Counts) -> list[Fact]:
        """Return what is known only at the end of the log."""
        self._reject_held(counts)
        if not self._bytes_read:
            return []
        return [
            (
                0,
                self.last_ts,
                events.Bandwidth(
                    list(self._bytes_read),
                    list(self._bytes_read.values()),
                    list(self._bytes_written.values()),
                ),
            )
        ]

    def _line(
        self, number: int, reader: _Reader | None, line: bytes, counts: Counts
    ) -> Iterator[Fact]:
        """Yield the facts that can be told now that this line is there, and count it."""
        if reader:
            self._is_in_data = self._is_in_reply = False
            events_now = self._whole((number, reader, line), counts)
        else:
            events_now = [(number, None, line)]
        for at, how, text in events_now:
            try:
                ts, fact = self._event(how, text) if how else self._other(text)
            except RejectedError as error:
                counts.reject(at, str(error))
                continue
            if fact is not None:
                yield at, ts, fact
            if how or fact is not None:
                counts.used += 1
            else:
                counts.skipped += 1

    def _whole(self, event: _Event, counts: Counts) -> list[_Event]:
        """Return the events that can be read now that this one is there, in their order."""
        if event[2].endswith(b"\r"):
            self._has_crlf = True
            self._reject_held(counts)
        elif self._has_crlf:
            self._held.append(event)
            if len(self._held) <= _MOST_CUT:
                return []
            self._has_crlf = False
            held, self._held = self._held, []
            return held
        return [event]

    def _reject_held(self, counts: Counts) -> None:
        for number, _, _ in self._held:
            counts.reject(number, _CUT)
        self._held.clear()

    def _event(self, reader: _Reader, line: bytes) -> tuple[float, NamedTuple | None]:
        """Read a one-line event that is used; no fact if it is summed up.

        Raises:
            RejectedError: it cannot be.
        """
        stamp = STAMP.match(line)
        if stamp is None:
            raise RejectedError("no time stamp")
        name, _, values = line[stamp.end() + 4 :].partition(b" ")
        if not values.strip() or name != name.rstrip():
            raise RejectedError(f"{name.decode().rstrip()} without its values")
        if b" 650 " in values or _INNER_STAMP.search(values):
            raise RejectedError("two events on one line")
        text = values.decode("ascii", "replace").rstrip("\r")
        if "\ufffd" in text or not text.isprintable():
            raise RejectedError("event with bytes that are no text")
        ts = float(stamp[1])
        fact = reader(text)
        if reader is events.bandwidth:
            self._add_bandwidth(int(ts), *fact)
            return ts, None
        return ts, fact

    def _add_bandwidth(self, second: int, read: int, written: int) -> None:
        # Two counts in one second are all that went through.
        self._bytes_read[second] = self._bytes_read.get(second, 0) + read
        self._bytes_written[second] = self._bytes_written.get(second, 0) + written

    def _other(self, line: bytes) -> tuple[float, NamedTuple | None]:
        """Read a line that is no one-line event of a name we know; no fact if it is of no use.

        Raises:
            RejectedError: it cannot be used.
        """
        stamp = STAMP.match(line)
        if stamp is None:
            return self._reply_ts, self._continuation(line.rstrip(b"\r"))
        ts = float(stamp[1])
        text = line[stamp.end() :].decode("utf-8", "replace").rstrip("\r")
        if text[:4] in {"650+", "650-"}:
            self._is_in_data = text[3] == "+"
            self._is_in_status = text[4:] in {"NEWCONSENSUS", "NS"}
            self._is_in_reply = True
            self._reply_ts = ts
            return ts, None
        self._is_in_data = self._is_in_reply = False
        if not text.isprintable() or "\ufffd" in text:
            raise RejectedError("line with bytes that are no text")
        if _INNER_STAMP.search(line, stamp.end()):
            raise RejectedError("two events on one line")
        if text.startswith("Starting torctl program on host "):
            self._has_crlf = False
        for start, reader in _NOTES.items():
            if text.startswith(start):
                return ts, reader(text)
        if text.startswith(("NOTICE BOOTSTRAP ", "[WARNING] ")):
            return ts, None
        if _EVENT.match(text):
            raise RejectedError("event of a name that is not known")
        raise RejectedError("neither an event nor a note of the reader")

    def _continuation(self, line: bytes) -> NamedTuple | None:
        if self._is_in_data:
            self._is_in_data = line != b"."
            return events.relay_status(line) if self._is_in_status else None
        if self._is_in_reply and line.startswith((b"650+", b"650-")):
            self._is_in_data = line.startswith(b"650+")
        elif self._is_in_reply and line.startswith(b"650 "):
            self._is_in_reply = False  # the end of the event
        elif line.strip():
            self._is_in_reply = False
            raise RejectedError("no time stamp")
        return None


def _rest_of_event(lines: list[bytes]) -> int:
    """Return how many lines at the head of a log are the rest of an event of several lines.

    Who rotates a log by copying it cuts it anywhere.
    """
    for count, line in enumerate(lines, 1):
        if STAMP.match(line):
            break
        if line.rstrip(b"\r") == b"650 OK":
            return count
    return 0
