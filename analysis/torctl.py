"""Puts the facts of one tor's logs together: streams, circuits, guards, connections, bandwidth.

`torctlscan` finds the facts in each log by itself; here they are taken in the order of time.
Circuit and stream numbers begin again when tor is restarted. `TorctlAssembly` sees that by what the
numbers do, not by what the reader says, since a reader that comes back may find the same tor
(docs/formats.md, "When tor was restarted"). Records refer to one another as objects, so numbers
may come again; the database gives each its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfmeasure.analysis import events, scan, torlog
from perfmeasure.analysis.clocksteps import ClockPair, ClockSteps
from perfmeasure.analysis.events import (
    Bandwidth,
    BuildTimeoutEvent,
    CircuitEvent,
    ConnectionEvent,
    GuardEvent,
    ReaderGap,
    ReaderStarted,
    RelayNote,
    RelayStatus,
    StreamEvent,
)
from perfmeasure.analysis.guards import Guards
from perfmeasure.analysis.order import Order, WentBack
from perfmeasure.analysis.source import Counts
from perfmeasure.analysis.torlog import Circuit, Connection, Gap, Stream, TorLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfmeasure.analysis.scan import FactsOf
    from perfmeasure.analysis.source import Fact, Input

_HIDDEN_SERVICE_PURPOSES = frozenset(
    {"HS_CLIENT_INTRO", "HS_CLIENT_REND", "HS_SERVICE_INTRO", "HS_SERVICE_REND"}
)
_ENDS = frozenset({"FAILED", "CLOSED"})


class TorctlAssembly:
    """Takes the facts of one tor in the order of time; ``log`` is what they mean together."""

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
        self._clock = ClockSteps()
        self.log.clock_steps = self._clock.found

    def _takers(self) -> dict[type, Callable[[float, Any], None]]:
        # Made for each block, not kept: an object that holds its own methods is not freed at once.
        return {
            StreamEvent: self._stream,
            CircuitEvent: self._circuit,
            Bandwidth: self._bandwidth,
            BuildTimeoutEvent: self._build_timeout,
            GuardEvent: self._guard,
            RelayStatus: self._relay_status,
            ConnectionEvent: self._connection,
            ReaderStarted: self._reader_started,
            ReaderGap: self._reader_gap,
            RelayNote: self._relay,
            ClockPair: self._clock_pair,
            WentBack: self._went_back,
        }

    def take(self, facts: Iterable[Fact]) -> None:
        """Take the next facts."""
        takers = self._takers()
        for _, ts, fact in facts:
            takers[type(fact)](ts, fact)

    def _reader_started(self, _ts: float, fact: ReaderStarted) -> None:
        self.log.host = self.log.host or fact.host
        if fact.version and fact.version not in self.log.tor_versions:
            self.log.tor_versions.append(fact.version)
        self._is_tor_in_doubt = True

    def _reader_gap(self, ts: float, fact: ReaderGap) -> None:
        gaps = self.log.gaps
        if fact.kind == "entries":
            gaps.append(Gap(ts, ts, fact.lost_entries))
            return
        if fact.kind == "lost":
            gaps.append(Gap(ts))
        elif gaps and gaps[-1].end is None:
            gaps[-1] = gaps[-1]._replace(end=ts)
        self._is_tor_in_doubt = True

    def _relay(self, _ts: float, fact: RelayNote) -> None:
        known = self.log.relays.setdefault(fact.fingerprint, set())
        known.update(torlog.address_of(endpoint) for endpoint in fact.endpoints)
        self._guards.note(fact)

    def _clock_pair(self, _ts: float, fact: ClockPair) -> None:
        self._clock_was_set(self._clock.take(fact))

    def _went_back(self, ts: float, fact: WentBack) -> None:
        self._clock_was_set(self._clock.stamps_fell(ts, fact.seconds))

    def _clock_was_set(self, seconds: float) -> None:
        torlog.shift_open((*self._circuits.values(), *self._streams.values()), seconds)

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

    def _stream(self, ts: float, event: StreamEvent) -> None:
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

    def _circuit(self, ts: float, event: CircuitEvent) -> None:
        circuit = self._circuit_of(ts, event)
        if circuit is None:
            return
        change = self._circuit_minor if event.name == "CIRC_MINOR" else self._circuit_major
        change(ts, event, circuit)

    def _circuit_major(self, ts: float, event: CircuitEvent, circuit: Circuit) -> None:
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

    @staticmethod
    def _circuit_minor(ts: float, event: CircuitEvent, circuit: Circuit) -> None:
        if event.status != "PURPOSE_CHANGED" or event.purpose != event.values.get("OLD_PURPOSE"):
            circuit.events.append((f"{event.status}:{event.purpose}", ts))
        if event.purpose in _HIDDEN_SERVICE_PURPOSES:
            circuit.events.append((event.hidden_service_state, ts))

    def _bandwidth(self, _ts: float, event: Bandwidth) -> None:
        # Two in one second (tor was busy) are both true: their sum is what went through.
        for counts, added in (
            (self.log.bytes_read, event.bytes_read),
            (self.log.bytes_written, event.bytes_written),
        ):
            for second, count in zip(event.seconds, added, strict=True):
                counts[second] = counts.get(second, 0) + count

    def _build_timeout(self, _ts: float, event: BuildTimeoutEvent) -> None:
        self._build_timeout_ms, self._build_quantile = event.timeout_ms, event.quantile
        self._is_cbt_set = event.kind != "RESET"

    def _guard(self, ts: float, event: GuardEvent) -> None:
        self._guards.event(ts, event)

    def _relay_status(self, _ts: float, status: RelayStatus) -> None:
        self._guards.status(status)

    def _connection(self, ts: float, event: ConnectionEvent) -> None:
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


def read_logs(logs: Iterable[Input], facts_of: FactsOf = scan.facts) -> TorLog:
    """Read the logs of one tor, given in the order of time.

    Raises:
        InputError: a file cannot be read any more.
    """
    assembly, order = TorctlAssembly(), Order(ReaderStarted)
    counts = Counts()
    for log in logs:
        for facts in facts_of(log, is_whole=False):
            counts = log.counts
            for _, ordered in order.take(facts, counts):
                assembly.take(ordered)
    for _, ordered in order.end(counts):
        assembly.take(ordered)
    return assembly.log
