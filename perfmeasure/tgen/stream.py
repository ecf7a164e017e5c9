"""A stream: one exchange of payload with a peer, at either end.

The commander (a client) says what both sides send; the other side learns it from the commander's
header. A stream ends with one line in the log, ``[stream-success]`` or ``[stream-error]``, unless
the program ends first. On the way, ``[stream-status]`` lines say when payload passed a mark:
they are what the analysis takes the time to each tenth and to given sizes from. TGen writes one
for each read; we write one for each mark, which says the same in a hundredth of the lines.

`perfmeasure.tgen.receiving` and `perfmeasure.tgen.sending` have the two directions.
"""

from __future__ import annotations

import dataclasses
import itertools
import socket
from collections.abc import Callable
from typing import NamedTuple

from perfmeasure.tgen.actions import StreamOptions
from perfmeasure.tgen.logline import Log, place
from perfmeasure.tgen.markov import builtin_packet_model
from perfmeasure.tgen.peer import Peer
from perfmeasure.tgen.protocol import safe_name
from perfmeasure.tgen.reactor import Reactor, Timer, cancel, monotonic_us
from perfmeasure.tgen.receiving import Receiver
from perfmeasure.tgen.sending import Sender
from perfmeasure.tgen.statistics import Statistics
from perfmeasure.tgen.transport import Transport

_PLACE = place("log")
_CREATED = place("new")

_STATUS_EVERY_US = 1_000_000


@dataclasses.dataclass
class Context:
    """What all streams of a process share."""

    reactor: Reactor
    log: Log
    statistics: Statistics
    hostname: str
    ids: itertools.count[int] = dataclasses.field(default_factory=itertools.count)
    streams: set[Stream] = dataclasses.field(default_factory=set)
    """Those that have not ended."""


class Route(NamedTuple):
    """The other end of a stream, and the SOCKS proxy to it, if any, with what it asks for."""

    peer: Peer
    proxy: Peer | None = None
    username: str | None = None
    password: str | None = None


class Stream:
    """One stream; make it with `open_stream` or `accept_stream`.

    Args:
        context: what it shares with others.
        vertex_id: the vertex it comes from; the commander's is added when it is known.
        options: the sizes (of a commander only), the timeout and the stallout.
        on_end: called once with the stream when it has ended.
    """

    def __init__(
        self,
        context: Context,
        vertex_id: str,
        options: StreamOptions,
        on_end: Callable[[Stream], None],
        *,
        is_commander: bool,
    ) -> None:
        self.context = context
        self.id = next(context.ids)
        self.vertex_id = safe_name(vertex_id)
        self.is_commander = is_commander
        self.peer_name = "(null)"
        self.error = "NONE"
        self.command_us = -1
        self.response_us = -1
        self._on_end = on_end
        self._timeout_us = round(options.timeout_seconds * 1e6)
        self._stallout_us = round(options.stallout_seconds * 1e6)
        self._timer: Timer | None = None
        self.has_ended = False
        self._next_status_us = 0
        self.transport = Transport(context.reactor, self, context.statistics)
        self.recv = Receiver(self, options.recv_size_bytes if is_commander else 0)
        self.send = Sender(self, options.send_size_bytes if is_commander else 0)
        if is_commander:
            self.send.state = "SEND_COMMAND"
        else:
            self.recv.state = "RECV_AUTHENTICATE"
        context.streams.add(self)
        context.statistics.created("stream")

    @property
    def is_success(self) -> bool:
        """Whether no error came up, so far or at all."""
        return self.error == "NONE"

    def begin(self) -> None:
        """Watch the time from now on. Not sooner: the peer waits for our first bytes."""
        if self.has_ended:
            return
        self.context.log.info(_CREATED, f"Created new stream {self} on transport {self.transport}")
        self._arm_timer()

    # What the transport calls.

    def transport_opened(self) -> None:
        """Send the command."""
        self.send.pump()
        self.check_end()

    def transport_failed(self, reason: str) -> None:
        """End: the stream could not begin."""
        self.context.log.warning(_PLACE, reason)
        self.context.log.critical(
            _PLACE, "transport connection or proxy handshake failed, stream cannot begin"
        )
        self.fail("PROXY")

    def on_readable(self) -> None:
        """Read once, so that other streams have their turn."""
        if not self.has_ended:
            self.recv.read()
            self.check_end()

    def on_writable(self) -> None:
        """Write once, so that other streams have their turn."""
        if not self.has_ended:
            self.send.pump()
            self.check_end()

    def on_hangup(self) -> None:
        """End: the connection broke with nothing left to read."""
        if not self.has_ended:
            self.recv.read()  # to learn of an error, or of an end that is none
            self.check_end()
        if not self.has_ended:
            self.fail("MISC")

    # What the two directions call.

    def fail(self, code: str) -> None:
        """Note the error and end; ``code`` is TGen's name of it."""
        if not self.has_ended:
            self.error = code
            self._end()

    def abandon(self) -> None:
        """Close without an outcome in the log: the program ends."""
        self.has_ended = True
        self._release()

    def check_end(self) -> None:
        """End when both directions are done."""
        if (
            self.recv.state == "RECV_SUCCESS"
            and self.send.state == "SEND_SUCCESS"
            and not self.has_ended
        ):
            self._end()

    def log_progress(self, now_us: int) -> None:
        """Write a status line if a mark was passed or the last line is a second old.

        Both directions call this after payload came or went, and only once their next mark is
        reached or `is_status_due`.
        """
        self._next_status_us = now_us + _STATUS_EVERY_US
        log = self.context.log
        if log.shows_info:
            log.info(_PLACE, f"[stream-status] {self._described()} bytes {self._bytes()}")

    def is_status_due(self, now_us: int) -> bool:
        """Return whether the last status line is a second old."""
        return now_us >= self._next_status_us

    # Time.

    def _arm_timer(self) -> None:
        deadlines = []
        if self._timeout_us:
            deadlines.append(self.transport.started_us + self._timeout_us)
        if self._stallout_us:
            deadlines.append(self.transport.last_progress_us + self._stallout_us)
        if deadlines and not self.has_ended:
            wait_seconds = max(0.001, (min(deadlines) - monotonic_us()) / 1e6)
            self._timer = self.context.reactor.callLater(wait_seconds, self._check_time)

    def _check_time(self) -> None:
        now_us = monotonic_us()
        last_us = self.transport.last_progress_us
        if self._stallout_us and now_us >= last_us + self._stallout_us:
            code = "STALLOUT"
        elif self._timeout_us and now_us >= self.transport.started_us + self._timeout_us:
            code = "TIMEOUT"
        else:
            self._arm_timer()
            return
        if self.transport.state == "CONNECT":  # as TGen has it: the transport's error, not ours
            self.transport.error = code
            code = "PROXY"
        self.fail(code)

    def _end(self) -> None:
        self.has_ended = True
        kind = "stream-success" if self.is_success else "stream-error"
        self.context.log.message(
            _PLACE, f"[{kind}] {self._described()} bytes {self._bytes()} times {self._times()}"
        )
        self._release()
        self._on_end(self)

    def _release(self) -> None:
        cancel(self._timer)
        self.send.stop()
        self.transport.close()
        self.context.streams.discard(self)

    # The text of the log.

    def __str__(self) -> str:
        return (
            f"[id={self.id},vertexid={self.vertex_id},name={self.context.hostname},"
            f"peername={self.peer_name},sendsize={self.send.size_bytes or 0},"
            f"recvsize={self.recv.size_bytes or 0},sendstate={self.send.state},"
            f"recvstate={self.recv.state},error={self.error}]"
        )

    def _described(self) -> str:
        return f"transport {self.transport} stream {self}"

    def _bytes(self) -> str:
        recv, send = self.recv, self.send
        recv_progress = _progress(
            recv.size_bytes, recv.payload_bytes, is_done=recv.state == "RECV_SUCCESS"
        )
        send_progress = _progress(
            send.size_bytes, send.payload_bytes, is_done=send.state == "SEND_SUCCESS"
        )
        return (
            f"[total-bytes-recv={recv.total_bytes},total-bytes-send={send.total_bytes},"
            f"payload-bytes-recv={recv.payload_bytes},payload-bytes-send={send.payload_bytes},"
            f"payload-progress-recv={recv_progress},payload-progress-send={send_progress}]"
        )

    def _times(self) -> str:
        transport, recv, send = self.transport, self.recv, self.send
        steps = {
            "socket-create": transport.created_us,
            "socket-connect": transport.connected_us,
            "proxy-init": transport.proxy_init_us,
            "proxy-choice": transport.proxy_choice_us,
            "proxy-request": transport.proxy_request_us,
            "proxy-response": transport.proxy_response_us,
            "command": self.command_us,
            "response": self.response_us,
            "first-byte-recv": recv.first_us,
            "last-byte-recv": recv.last_us,
            "checksum-recv": recv.checksum_us,
            "first-byte-send": send.first_us,
            "last-byte-send": send.last_us,
            "checksum-send": send.checksum_us,
        }
        begin = transport.started_us
        fields = [
            f"usecs-to-{name}={when - begin if when >= 0 else -1}" for name, when in steps.items()
        ]
        return f"[created-ts={begin},{','.join(fields)},now-ts={monotonic_us()}]"


def open_stream(
    context: Context,
    vertex_id: str,
    options: StreamOptions,
    route: Route,
    on_end: Callable[[Stream], None],
) -> Stream:
    """Begin a stream as its commander.

    Args:
        context: what it shares with others.
        vertex_id: the vertex it comes from.
        options: its sizes, times and packet model; the model's seed is drawn from it.
        route: the other end and the way to it.
        on_end: called once with the stream when it has ended, perhaps before this returns.
    """
    stream = Stream(context, vertex_id, options, on_end, is_commander=True)
    model = options.packet_model or builtin_packet_model()
    seed = options.seeds.getrandbits(32)
    stream.send.set_command(model, seed, sends_path=options.sends_model_path)
    stream.transport.connect(*route)
    stream.begin()
    return stream


def accept_stream(
    context: Context,
    options: StreamOptions,
    accepted: socket.socket,
    address: tuple[str, int],
) -> Stream:
    """Serve a peer that connected; ``options`` has the timeout and the stallout."""
    stream = Stream(context, "passive-stream", options, _count_end, is_commander=False)
    stream.transport.accept(accepted, address)
    stream.begin()
    return stream


def _count_end(stream: Stream) -> None:
    stream.context.statistics.ended("stream", is_success=stream.is_success)


def _progress(size_bytes: int | None, payload_bytes: int, *, is_done: bool) -> str:
    if size_bytes:
        return f"{payload_bytes / size_bytes * 100:.2f}%"
    return "100.00%" if is_done or size_bytes == 0 else "?"
