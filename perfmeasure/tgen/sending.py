"""The sending direction of a stream.

States as in TGen's log: SEND_NONE, SEND_COMMAND, SEND_RESPONSE, SEND_PAYLOAD, SEND_CHECKSUM,
SEND_FOOTER, SEND_FLUSH, SEND_SUCCESS, SEND_ERROR.
"""

from __future__ import annotations

import functools
import hashlib
import random
import socket
from typing import TYPE_CHECKING

from perfmeasure.tgen.logline import place
from perfmeasure.tgen.markov import PACKET_MODEL_NAME, MarkovModel, Walk
from perfmeasure.tgen.marks import next_mark
from perfmeasure.tgen.protocol import FOOTER, Command, checksum_line, response_line
from perfmeasure.tgen.reactor import Timer, cancel, monotonic_us

if TYPE_CHECKING:
    from perfmeasure.tgen.stream import Stream

_PLACE = place("write")

WRITE_BYTES = 256 * 1024
"""The most that one turn writes. TGen writes 32 KiB at once, which the peer cannot tell."""

_FIRST_WRITE_BYTES = 16 * 1024
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"


@functools.cache
def _block(letter: int) -> memoryview:
    return memoryview(bytes([letter]) * WRITE_BYTES)


class Sender:
    """What goes to the peer: a header, payload, checksum and footer.

    `size_bytes` is the payload to send, None until the model ends, 0 for none.
    """

    def __init__(self, stream: Stream, size_bytes: int | None) -> None:
        self._stream = stream
        self.state = "SEND_NONE"
        self.size_bytes = size_bytes
        self.payload_bytes = 0
        self.total_bytes = 0
        self.first_us = -1
        self.last_us = -1
        self.checksum_us = -1
        self._next_mark = 1
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._block = _block(random.choice(_LETTERS))  # noqa: S311 - any letter does
        self._own = "+" if stream.is_commander else "-"
        self._control = b""
        self._walk: Walk | None = None
        self._burst_bytes = 0
        self._pause_us = 0
        self._has_model_ended = False
        self._timer: Timer | None = None

    def set_command(self, model: MarkovModel, seed: int, *, sends_path: bool) -> None:
        """Prepare the commander's header, which `pump` sends."""
        stream = self._stream
        by_path = sends_path and (model.path is not None or model.name == PACKET_MODEL_NAME)
        command = Command(
            hostname=stream.context.hostname,
            transfer_id=stream.vertex_id,
            send_size_bytes=self.size_bytes,
            recv_size_bytes=stream.recv.size_bytes,
            model_name=model.name,
            model_seed=seed,
            model_path=str(model.path or model.name) if by_path else None,
            model_size=0 if by_path else len(model.text),
        )
        self._control = command.line() + (b"" if by_path else model.text)
        self._walk = model.walk(seed)

    def set_response(self, model: MarkovModel, seed: int) -> None:
        """Prepare the answer to a good command, which `pump` sends."""
        self._control = response_line(self._stream.context.hostname, "NONE")
        self._walk = model.walk(seed)
        self.state = "SEND_RESPONSE"

    def refuse(self, code: str) -> None:
        """Answer a command with an error; what the socket does not take at once is dropped."""
        self.state = "SEND_RESPONSE"
        self._control = response_line(self._stream.context.hostname, code)
        self._flush()
        if not self._control:
            self.state = "SEND_SUCCESS"

    def stop(self) -> None:
        """Send nothing any more."""
        cancel(self._timer)

    def pump_footer(self) -> None:
        """Go on if the footer only waited for the peer."""
        if self.state == "SEND_FOOTER":
            self.pump()

    def pump(self) -> None:
        """Send what can be sent in one turn, and ask for the next turn if there is more."""
        self.stop()  # a pause that is over, or not to be waited for
        while self._step():
            pass

    def _step(self) -> bool:
        """Do one step; return whether to go on in this turn."""
        if self.state in ("SEND_NONE", "SEND_SUCCESS", "SEND_ERROR"):
            return False
        if self._control:
            self._flush()
            if self._control or self.state == "SEND_ERROR":
                return False
        if self.state == "SEND_PAYLOAD":
            return self._step_payload()
        if self.state == "SEND_FOOTER":
            return self._step_footer()
        self._on_flushed()
        return True

    def _on_flushed(self) -> None:
        """Go to the next state, now that the header, checksum or footer is sent."""
        stream = self._stream
        if self.state == "SEND_COMMAND":
            stream.command_us = monotonic_us()
            stream.recv.state = "RECV_AUTHENTICATE"
            self.state = "SEND_PAYLOAD"
        elif self.state == "SEND_RESPONSE":
            stream.response_us = monotonic_us()
            self.state = "SEND_PAYLOAD"
        elif self.state == "SEND_CHECKSUM":
            if self.size_bytes:
                self.checksum_us = monotonic_us()
            self.state = "SEND_FOOTER"
        else:
            self.state = "SEND_SUCCESS"
            stream.transport.want_write(wanted=False)

    def _step_footer(self) -> bool:
        if not self._stream.recv.owes_only_footer:
            self._stream.transport.want_write(wanted=False)
            return False
        self._control = FOOTER
        self.state = "SEND_FLUSH"
        return True

    def _step_payload(self) -> bool:
        if self._is_payload_done():
            if self.size_bytes:
                self._control = checksum_line(self._md5.hexdigest())
            self.state = "SEND_CHECKSUM"
            return True
        if not self._burst_bytes:
            self._draw_burst()
        if self._burst_bytes:
            self._send_payload()
            if self.state != "SEND_PAYLOAD":
                return False
        if self._is_payload_done():
            return True
        pause_us = self._pause_us
        if pause_us and not self._burst_bytes:
            self._pause_us = 0
            self._stream.transport.want_write(wanted=False)
            self._timer = self._stream.context.reactor.callLater(
                pause_us / 1e6, self._stream.on_writable
            )
        else:
            self._stream.transport.want_write()
        return False

    def _is_payload_done(self) -> bool:
        if self.size_bytes is None:
            return self._has_model_ended and not self._burst_bytes
        return self.payload_bytes >= self.size_bytes

    @property
    def _is_payload_sure_to_follow(self) -> bool:
        return (
            self.state == "SEND_RESPONSE"
            and self.size_bytes != 0
            and self._walk is not None
            and self._walk.is_endless_and_undelayed
        )

    def _draw_burst(self) -> None:
        if self._walk is None:
            return
        size = self.size_bytes
        # The first write is small, for the first byte not to wait until a large one is copied.
        limit = WRITE_BYTES if self.payload_bytes else _FIRST_WRITE_BYTES
        if size is not None:
            limit = min(limit, size - self.payload_bytes)
        burst = self._walk.burst(limit, self._own, repeats=size is not None)
        self._burst_bytes = burst.size_bytes if size is None else min(limit, burst.size_bytes)
        self._pause_us = burst.pause_us
        self._has_model_ended = burst.is_end

    def _send_payload(self) -> None:
        wanted = min(self._burst_bytes, WRITE_BYTES)
        sent = self._put(self._block[:wanted])
        if not sent:
            return
        now_us = monotonic_us()
        if self.size_bytes is not None:
            # After the write: while we compute, the peer has something to compute too.
            self._md5.update(self._block[:sent])
        if self.payload_bytes == 0:
            self.first_us = now_us
        self.last_us = now_us
        self.payload_bytes += sent
        self._burst_bytes -= sent
        stream = self._stream
        if self.payload_bytes >= self._next_mark or stream.is_status_due(now_us):
            self._next_mark = next_mark(self.size_bytes, self.payload_bytes)
            stream.log_progress(now_us)

    def _flush(self) -> None:
        # An answer goes out together with the first payload where we know that there is some, so
        # that the peer need not wake up twice for its first byte.
        more = socket.MSG_MORE if self._is_payload_sure_to_follow else 0
        sent = self._put(self._control, more)
        self._control = self._control[sent:]
        if self._control and self.state != "SEND_ERROR":
            self._stream.transport.want_write()

    def _put(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Write once and return how much was taken; an error ends the stream."""
        stream, transport = self._stream, self._stream.transport
        if transport.socket is None:
            return 0
        try:
            sent = transport.socket.send(data, flags)
        except BlockingIOError:
            return 0
        except OSError as error:
            transport.state, transport.error = "ERROR", "WRITE"
            stream.context.log.critical(_PLACE, f"write(): stream {stream}: {error.strerror}")
            self.state = "SEND_ERROR"
            stream.fail("WRITE")
            return 0
        self.total_bytes += sent
        stream.context.statistics.bytes_written += sent
        transport.last_progress_us = monotonic_us()
        return sent
