"""Reads logs of Tor's control port (torctl) into streams, circuits, guards and bandwidth.

Events that are used: STREAM, CIRC, CIRC_MINOR, BW, BUILDTIMEOUT_SET, GUARD, ORCONN. All others are
skipped by their name alone. Lines end in LF or CRLF, stamps have 2 or 6 decimals, multi-line
events continue without stamps.

Circuit and stream numbers begin again when tor is restarted. `TorctlParser` sees that by what the
numbers do, not by what the reader says, since a reader that comes back may find the same tor
(docs/formats.md, "When tor was restarted"). Records refer to one another as objects, so numbers
may come again; the database gives each its name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from perfmeasure.analysis import events, torlog
from perfmeasure.analysis.clocksteps import ClockSteps
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.guards import Guards
from perfmeasure.analysis.source import STAMP
from perfmeasure.analysis.torlog import Circuit, Connection, Gap, Stream, TorLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfmeasure.analysis.events import CircuitEvent, StreamEvent
    from perfmeasure.analysis.source import Counts, Input

_HIDDEN_SERVICE_PURPOSES = frozenset(
    {"HS_CLIENT_INTRO", "HS_CLIENT_REND", "HS_SERVICE_INTRO", "HS_SERVICE_REND"}
)
_ENDS = frozenset({"FAILED", "CLOSED"})
_INNER_STAMP = re.compile(rb"\d-\d\d \d\d:\d\d:\d\d \d{9,10}\.")
_EVENT = re.compile(r"650 [A-Z][A-Z_]*(?: |\Z)")

# Events of tor 0.2 to 0.4.9 whose name is all that we need of them.
_SKIPPED_EVENTS = frozenset(
    b"ADDRMAP AUTHDIR_NEWDESCS CELL_STATS CIRC_BW CLIENTS_SEEN CONF_CHANGED CONN_BW DEBUG "
    b"DESCCHANGED ERR HS_DESC HS_DESC_CONTENT INFO NETWORK_LIVENESS NEWCONSENSUS NEWDESC NOTICE "
    b"NS PT_LOG PT_STATUS SIGNAL STATUS_CLIENT STATUS_GENERAL STATUS_SERVER STREAM_BW TB_EMPTY "
    b"TRANSPORT_LAUNCHED WARN".split()
)


class TorctlParser:
    """Reads the logs of one tor in the order of time: `read` each, then take ``log``."""

    def __init__(self) -> None:
        self.log = TorLog()
        self._circuits: dict[int, Circuit] = {}  # of the tor that runs now, by number
        self._streams: dict[int, Stream] = {}
        self._guards = Guards(self.log.guards)
        self._connections: dict[str, Connection] = {}
        self._highest_circuit = -1
        # After a reader's start or a gap, until an event shows whether tor is still the same.
        self._is_tor_in_doubt = False
        self._build_timeout_ms: int | None = None
        self._build_quantile: float | None = None
        self._is_cbt_set = False
        self._is_in_data = False  # within a 650+EVENT, up to its lone dot
        self._is_in_status = False  # that of a 650+NEWCONSENSUS or 650+NS
        self._is_in_reply = False  # within a 650-EVENT or after the dot, up to "650 OK"
        self._last_ts = 0.0
        self._clock = ClockSteps()
        self.log.clock_steps = self._clock.found
        self._has_crlf = False  # whether events of this log end in CR LF: then one without is cut
        self._handlers: dict[bytes, Callable[[float, str], None] | None] = {
            **dict.fromkeys(_SKIPPED_EVENTS),
            b"STREAM": self._stream,
            b"CIRC": self._circuit,
            b"CIRC_MINOR": self._circuit_minor,
            b"BW": self._bandwidth,
            b"BUILDTIMEOUT_SET": self._build_timeout,
            b"GUARD": self._guard,
            b"ORCONN": self._connection,
        }

    def read(self, log: Input) -> None:
        """Read one log.

        Raises:
            InputError: the file cannot be read any more.
        """
        self._has_crlf = False
        for first, lines in log.batches():
            self._read_batch(first, lines, log.counts)
            for line in reversed(lines):
                if stamp := STAMP.match(line):
                    self._last_ts = float(stamp[1])
                    break
        log.last_unix_ts = max(log.first_unix_ts, self._last_ts)

    # ---- lines ---------------------------------------------------------------------------------

    def _read_batch(self, first: int, lines: list[bytes], counts: Counts) -> None:
        handlers = self._handlers
        used = skipped = 0
        for number, line in enumerate(lines, first):
            parts = line.split(b" ", 5)
            try:
                handler = handlers[parts[4].rstrip()]
                if handler is None and parts[3] == b"650":  # most lines, when CIRC_BW is logged
                    self._is_in_data = self._is_in_reply = False
                    skipped += 1
                    continue
                if parts[3] != b"650":
                    handler = None
            except (KeyError, IndexError):
                handler = None
            try:
                is_used = self._read_event(handler, line) if handler else self._read_other(line)
            except RejectedError as error:
                counts.reject(number, str(error))
                continue
            if is_used:
                used += 1
            else:
                skipped += 1
        counts.used += used
        counts.skipped += skipped

    def _read_event(self, handler: Callable[[float, str], None], line: bytes) -> bool:
        """Read a one-line event that is used.

        Raises:
            RejectedError: it cannot be.
        """
        stamp = STAMP.match(line)
        if stamp is None:
            raise RejectedError("no time stamp")
        name, _, values = line[stamp.end() + 4 :].partition(b" ")
        if not values.strip():
            raise RejectedError(f"{name.decode().rstrip()} without its values")
        if b" 650 " in values or _INNER_STAMP.search(values):
            raise RejectedError("two events on one line")
        if values.endswith(b"\r"):
            self._has_crlf = True
        elif self._has_crlf:
            self._has_crlf = False  # once; two in a row are another log, put behind this one
            raise RejectedError("event is cut: its line end is not like the others'")
        text = values.decode("ascii", "replace").rstrip("\r")
        if "\ufffd" in text or not text.isprintable():
            raise RejectedError("event with bytes that are no text")
        handler(float(stamp[1]), text)
        self._is_in_data = self._is_in_reply = False
        return True

    def _read_other(self, line: bytes) -> bool:
        """Read a line that is no one-line event of a name we know. Return whether it was used.

        Raises:
            RejectedError: it cannot be.
        """
        stamp = STAMP.match(line)
        if stamp is None:
            self._continuation(line.rstrip(b"\r"))
            return False
        text = line[stamp.end() :].decode("utf-8", "replace").rstrip("\r")
        if text[:4] in {"650+", "650-"}:
            self._is_in_data = text[3] == "+"
            self._is_in_status = text[4:] in {"NEWCONSENSUS", "NS"}
            self._is_in_reply = True
            return False
        self._is_in_data = self._is_in_reply = False
        if text.startswith("Starting torctl program on host "):
            self._reader_started(text.split())
            return True
        if text.startswith(("[GAP] ", "[LOST] ")):
            self._gap(float(stamp[1]), text)
            return True
        if text.startswith("[CLOCK] "):
            seconds = self._clock.read(text[8:])
            torlog.shift_open((*self._circuits.values(), *self._streams.values()), seconds)
            return True
        if text.startswith(("NOTICE BOOTSTRAP ", "[WARNING] ")):
            return False
        if _EVENT.match(text):
            raise RejectedError("event of a name that is not known")
        raise RejectedError("neither an event nor a note of the reader")

    def _continuation(self, line: bytes) -> None:
        if self._is_in_data:
            self._is_in_data = line != b"."
            if self._is_in_status:
                self._guards.status(line)
        elif self._is_in_reply and line.startswith((b"650+", b"650-")):
            self._is_in_data = line.startswith(b"650+")
        elif self._is_in_reply and line.startswith(b"650 "):
            self._is_in_reply = False  # the end of the event
        elif line.strip():
            self._is_in_reply = False
            raise RejectedError("no time stamp")

    def _reader_started(self, words: list[str]) -> None:
        if len(words) > 5:
            self.log.host = self.log.host or words[5]
        if "version" in words[:-1]:
            version = words[words.index("version") + 1]
            if version not in self.log.tor_versions:
                self.log.tor_versions.append(version)
        self._is_tor_in_doubt = True
        self._has_crlf = False

    def _gap(self, ts: float, text: str) -> None:
        gaps = self.log.gaps
        if text.startswith("[LOST] "):
            count = text.split()[1]
            if not count.isdecimal():
                raise RejectedError("a count of lost entries that is no number")
            gaps.append(Gap(ts, ts, int(count)))
            return
        if text.startswith("[GAP] control connection lost"):
            gaps.append(Gap(ts))
        elif gaps and gaps[-1].end is None:
            gaps[-1] = gaps[-1]._replace(end=ts)
        self._is_tor_in_doubt = True

    # ---- whose numbers these are ---------------------------------------------------------------

    def _tor_was_restarted(self) -> None:
        self._circuits.clear()
        self._streams.clear()
        self._connections.clear()
        self._highest_circuit = -1
        self._is_tor_in_doubt = False
        self._build_timeout_ms = self._build_quantile = None
        self._is_cbt_set = False

    def _same_stream(self, event: StreamEvent) -> Stream | None:
        """Return the stream of that number, unless it was another tor's."""
        stream = self._streams.get(event.number)
        if stream is None:
            return None
        is_new_again = event.status in {"NEW", "NEWRESOLVE"}  # which a stream is only once
        if is_new_again or (self._is_tor_in_doubt and _is_another(stream, event)):
            self._tor_was_restarted()
            return None
        self._is_tor_in_doubt = False  # it goes on
        return stream

    def _same_circuit(self, event: CircuitEvent) -> None:
        """See whether this event is of another tor than the ones before."""
        known = self._circuits.get(event.number)
        time_created = event.values.get("TIME_CREATED", "")
        if event.status == "LAUNCHED":
            # A number is launched once; a lower one than the highest only after a restart.
            if (known is not None and known.events) or (
                self._is_tor_in_doubt and event.number < self._highest_circuit
            ):
                self._tor_was_restarted()
        elif self._is_tor_in_doubt and known is not None and time_created and known.time_created:
            if time_created == known.time_created:
                self._is_tor_in_doubt = False
            elif event.status != "CANNIBALIZED":  # which alone may set another time
                self._tor_was_restarted()

    def _known_circuit(self, number: int, ts: float) -> Circuit:
        """Return the circuit of that number, made up if it was there before the log."""
        circuit = self._circuits.get(number)
        if circuit is None:
            circuit = self._circuits[number] = Circuit(number, ts, ts)
            self._highest_circuit = max(self._highest_circuit, number)
            self.log.circuits.append(circuit)
        return circuit

    # ---- events --------------------------------------------------------------------------------

    def _stream(self, ts: float, text: str) -> None:
        event = events.stream(text)
        stream = self._same_stream(event)
        if stream is None:
            stream = self._streams[event.number] = Stream(event.number, ts, ts)
            self.log.streams.append(stream)
        elif stream.ended is not None:
            return  # CLOSED after FAILED says nothing new
        stream.last_seen = ts
        stream.purpose = event.values.get("PURPOSE", stream.purpose)
        stream.target = event.target
        stream.events.append((f"{stream.purpose or 'UNKNOWN'}:{event.status}", ts))
        if event.status in {"NEW", "NEWRESOLVE"}:
            stream.started = ts
            stream.source = event.values.get("SOURCE_ADDR", "")
            if stream.purpose.startswith("DIR_"):
                self._guards.directory(stream.target)
        if event.circuit:
            stream.circuit = self._known_circuit(event.circuit, ts)
            if event.status == "SUCCEEDED":
                stream.succeeded_on = stream.circuit
            elif event.status in {"SENTCONNECT", "SENTRESOLVE"}:
                stream.sent_on = stream.circuit
        if event.status in _ENDS:
            stream.ended = ts
        if event.status == "FAILED":
            stream.failure_reason_local = event.values.get("REASON", "")
            stream.failure_reason_remote = event.values.get("REMOTE_REASON", "")

    def _circuit_of(self, ts: float, event: CircuitEvent) -> Circuit | None:
        """Return the circuit that the event is about, None if it ended before."""
        self._same_circuit(event)
        circuit = self._known_circuit(event.number, ts)
        if circuit.ended is not None:
            return None
        circuit.last_seen = ts
        circuit.conflux_id = event.values.get("CONFLUX_ID", circuit.conflux_id)
        circuit.time_created = event.values.get("TIME_CREATED", circuit.time_created)
        if circuit.created is None and circuit.time_created:
            circuit.created = events.unix_ts(circuit.time_created)
        # Of hops that were there before we were, only the names are known.
        circuit.path.extend((hop, None) for hop in event.path[len(circuit.path) :])
        return circuit

    def _circuit(self, ts: float, text: str) -> None:
        event = events.circuit(text, "CIRC")
        circuit = self._circuit_of(ts, event)
        if circuit is None:
            return
        circuit.events.append((f"{event.purpose}:{event.status}", ts))
        if event.status == "LAUNCHED":
            circuit.launched = ts
            circuit.build_timeout_ms = self._build_timeout_ms
            circuit.build_quantile = self._build_quantile
            circuit.is_cbt_set = self._is_cbt_set
            circuit.launch = self._guards.launch(ts)
            circuit.current_guards = self._guards.current(circuit.launch)
        elif event.status == "EXTENDED" and event.path:
            circuit.path[len(event.path) - 1 :] = [(event.path[-1], ts)]
        elif event.status == "BUILT":
            if circuit.built is None:
                circuit.built = ts
            if event.purpose in _HIDDEN_SERVICE_PURPOSES:
                circuit.events.append((event.hidden_service_state, ts))
        elif event.status == "FAILED":
            circuit.failure_reason_local = event.values.get("REASON", "")
            circuit.failure_reason_remote = event.values.get("REMOTE_REASON", "")
        if event.status in _ENDS:
            circuit.ended = ts
            if circuit.launch:
                circuit.current_guards = self._guards.current(circuit.launch)

    def _circuit_minor(self, ts: float, text: str) -> None:
        event = events.circuit(text, "CIRC_MINOR")
        circuit = self._circuit_of(ts, event)
        if circuit is None:
            return
        if event.status != "PURPOSE_CHANGED" or event.purpose != event.values.get("OLD_PURPOSE"):
            circuit.events.append((f"{event.status}:{event.purpose}", ts))
        if event.purpose in _HIDDEN_SERVICE_PURPOSES:
            circuit.events.append((event.hidden_service_state, ts))

    def _bandwidth(self, ts: float, text: str) -> None:
        read, written = events.bandwidth(text)
        second = int(ts)
        # Two in one second (tor was busy) are both true: their sum is what went through.
        self.log.bytes_read[second] = self.log.bytes_read.get(second, 0) + read
        self.log.bytes_written[second] = self.log.bytes_written.get(second, 0) + written

    def _build_timeout(self, _ts: float, text: str) -> None:
        event = events.build_timeout(text)
        self._build_timeout_ms, self._build_quantile = event.timeout_ms, event.quantile
        self._is_cbt_set = event.kind != "RESET"

    def _guard(self, ts: float, text: str) -> None:
        self._guards.event(ts, events.guard(text))

    def _connection(self, ts: float, text: str) -> None:
        event = events.connection(text)
        connection = self._connections.get(event.number)
        if connection is None or connection.ended is not None:
            connection = Connection(event.number, event.endpoint, ts)
            self._connections[event.number] = connection
            self.log.connections.append(connection)
        self._guards.connection(connection.endpoint, event.endpoint)
        connection.endpoint = event.endpoint
        connection.events.append((event.status, ts))
        if event.status in _ENDS:
            connection.ended = ts


def _is_another(stream: Stream, event: StreamEvent) -> bool:
    """Whether an event cannot be of this stream; REMAP changes a target's host, never its port."""
    if stream.ended is not None and event.status != "CLOSED":
        return True
    return stream.target.rpartition(":")[2] != event.target.rpartition(":")[2]


def read_logs(logs: Iterable[Input]) -> TorLog:
    """Read the logs of one tor, given in the order of time.

    Raises:
        InputError: a file cannot be read any more.
    """
    parser = TorctlParser()
    for log in logs:
        parser.read(log)
    return parser.log
