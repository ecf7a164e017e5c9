"""The driver: walks the action graph, keeps the heart beating, and knows when it is over."""

from __future__ import annotations

import collections
import random
import socket
from collections.abc import Callable

from perfmeasure.clock import ClockWatch, read_pair
from perfmeasure.tgen.actions import ActionGraph
from perfmeasure.tgen.generator import Generator
from perfmeasure.tgen.logline import Log, place
from perfmeasure.tgen.protocol import safe_name
from perfmeasure.tgen.reactor import Reactor, Timer, cancel, monotonic_us
from perfmeasure.tgen.server import Server
from perfmeasure.tgen.statistics import Statistics
from perfmeasure.tgen.stream import Context, accept_stream

_HEARTBEAT = place("on_heartbeat")
_WALK = place("continue_next_actions")
_END = place("check_end_conditions")
_START = place("start_client")

_CLOCK_EVERY_SECONDS = 1.0
_ACTIONS_AT_ONCE = 1000


class Driver:
    """Runs a graph: its server, its client, or both.

    Args:
        reactor: where it runs.
        graph: the checked graph.
        log: what happened goes there.
        on_end: called once when an end action's condition is met, or there is nothing to do.

    Raises:
        MeasurementError: the server's port cannot be had.
    """

    def __init__(
        self, reactor: Reactor, graph: ActionGraph, log: Log, on_end: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._graph = graph
        self._log = log
        self._on_end = on_end
        self.statistics = Statistics()
        self.context = Context(
            reactor, log, self.statistics, safe_name(socket.gethostname().partition(".")[0])
        )
        self._clock = ClockWatch()
        self._started_us = monotonic_us()
        self._waiting: collections.Counter[str] = collections.Counter()
        self._due: list[str] = []
        self._is_walking = False
        self._timers: dict[str, Timer] = {}
        self.has_ended = False
        self.server: Server | None = None

    def start(self) -> None:
        """Open the server, start the heartbeat, and begin with the client when it is time."""
        self._watch_clock()
        start = self._graph.start
        if start.heartbeat_seconds:
            self._again("heartbeat", start.heartbeat_seconds, self._beat)
        else:
            self._log.warning(_HEARTBEAT, "The heartbeat message is disabled by the graph")
        if start.server_port is not None:
            self.server = Server(self._reactor, self._log, start.server_port, self._accept)
        if self._graph.edge_count:
            self._again("start", start.delay_seconds, self._start_client)
        elif self.server is None:
            self._finish("the graph has neither a server nor actions")

    def stop(self) -> None:
        """End at once; streams that are under way get no outcome in the log, as with TGen."""
        self.has_ended = True
        for timer in self._timers.values():
            cancel(timer)
        if self.server is not None:
            self.server.stop()
            self.server = None
        for stream in tuple(self.context.streams):
            stream.abandon()

    # Timers.

    def _again(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        if not self.has_ended:
            self._timers[name] = self._reactor.callLater(seconds, call)

    def _watch_clock(self) -> None:
        pair = read_pair()
        if reason := self._clock.due(pair):
            self._log.clock_pair(pair, reason)
        self._again("clock", _CLOCK_EVERY_SECONDS, self._watch_clock)
        if self._log.is_broken:  # whoever read our log is gone, and with it the reason to run
            self._finish("nobody reads the log")

    def _beat(self) -> None:
        self._log.message(_HEARTBEAT, self.statistics.take_heartbeat())
        self._again("heartbeat", self._graph.start.heartbeat_seconds, self._beat)

    def _accept(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        accept_stream(self.context, self._graph.defaults, accepted, address)

    # The walk.

    def _start_client(self) -> None:
        self._started_us = monotonic_us()
        self._log.message(_START, f"starting client using action graph '{self._graph.name}'")
        self._continue_after(self._graph.start_id)

    def _continue_after(self, vertex: str) -> None:
        """Do the actions that follow ``vertex``, and those after them that need no waiting.

        Depth first, as TGen does: of two edges, all that follows the first comes first.
        """
        if self.has_ended:
            return
        self._log.info(_WALK, f"Continuing to action following action {vertex}")
        followed, weighted = self._graph.successors[vertex]
        targets = list(followed)
        if weighted:
            names, weights = zip(*weighted, strict=True)
            targets += random.choices(names, weights)  # noqa: S311 - no secret
        self._due += reversed(targets)
        self._walk()

    def _walk(self) -> None:
        if self._is_walking:
            return  # called from an action of ours; the loop below goes on with it
        self._is_walking = True
        done = 0
        while self._due and not self.has_ended and done < _ACTIONS_AT_ONCE:
            done += 1
            self._act(self._due.pop())
        self._is_walking = False
        if self._due and not self.has_ended:  # a circle without pause must not stop the streams
            self._again("walk", 0, self._walk)

    def _act(self, vertex: str) -> None:
        kind = self._graph.kinds[vertex]
        if kind == "pause":
            self._pause(vertex)
        elif kind == "end":
            self._check_end(vertex)
        elif kind == "start":
            self._continue_after(vertex)
        else:
            options = self._graph.streams[vertex]
            Generator(
                self.context, kind, vertex, options, lambda: self._continue_after(vertex)
            ).start()

    def _pause(self, vertex: str) -> None:
        times = self._graph.pauses[vertex]
        if not times:
            self._waiting[vertex] += 1
            if self._waiting[vertex] >= self._graph.incoming[vertex]:
                self._waiting[vertex] = 0
                self._continue_after(vertex)
            return
        seconds = random.choice(times)  # noqa: S311 - no secret
        if seconds == 0:
            self._continue_after(vertex)
            return
        self._log.info(_WALK, f"set pause timer for {round(seconds * 1e6)} microseconds")
        self._reactor.callLater(seconds, self._continue_after, vertex)

    def _check_end(self, vertex: str) -> None:
        end = self._graph.ends[vertex]
        elapsed_ns = max(0, monotonic_us() - self._started_us) * 1000
        time_ns = None if end.time_seconds is None else round(end.time_seconds * 1e9)
        for limit, reached, what, unit in (
            (end.send_size_bytes, self.statistics.bytes_written, "we sent", "bytes"),
            (end.recv_size_bytes, self.statistics.bytes_read, "we received", "bytes"),
            (end.count, self.statistics.streams_completed, "we completed", "streams"),
            (time_ns, elapsed_ns, "at least", "nanoseconds"),
        ):
            if limit is not None and reached >= limit:
                self._finish(
                    f"{what} {reached} {unit} and we met or exceeded"
                    f" the configured limit of {limit} {unit}"
                )
                return
        self._continue_after(vertex)

    def _finish(self, reason: str) -> None:
        if not self.has_ended:
            self._log.message(_END, f"TGen will end because {reason}")
            self.stop()
            self._on_end()
