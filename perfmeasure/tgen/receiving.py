"""The receiving direction of a stream.

States as in TGen's log: RECV_NONE, RECV_AUTHENTICATE, RECV_HEADER, RECV_MODEL, RECV_PAYLOAD,
RECV_CHECKSUM, RECV_FOOTER, RECV_SUCCESS, RECV_ERROR.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from perfmeasure.errors import ModelError
from perfmeasure.tgen.logline import place
from perfmeasure.tgen.markov import (
    PACKET_MODEL_NAME,
    MarkovModel,
    builtin_packet_model,
    load_model,
    parse_model,
)
from perfmeasure.tgen.marks import next_mark
from perfmeasure.tgen.protocol import (
    FOOTER,
    MAX_LINE_BYTES,
    TOKEN,
    Command,
    HeaderError,
    parse_command,
    parse_response,
)
from perfmeasure.tgen.reactor import monotonic_us

if TYPE_CHECKING:
    from perfmeasure.tgen.stream import Stream

_PLACE = place("read")

READ_BYTES = 256 * 1024
"""The most that one turn reads: well below a millisecond of MD5, so that others have theirs."""

# What is read is used up before the next read, so all streams of the process share one buffer.
_BUFFER = memoryview(bytearray(READ_BYTES))
_BEGINNING = TOKEN + b" "


class Receiver:
    """What comes from the peer: its header, payload, checksum and footer.

    `size_bytes` is the payload to come, None until the model ends, 0 for none.
    """

    def __init__(self, stream: Stream, size_bytes: int | None) -> None:
        self._stream = stream
        self.state = "RECV_NONE"
        self.size_bytes = size_bytes
        self.payload_bytes = 0
        self.total_bytes = 0
        self.first_us = -1
        self.last_us = -1
        self.checksum_us = -1
        self._next_mark = 1
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._pending = bytearray()
        self._command: Command | None = None

    @property
    def owes_only_footer(self) -> bool:
        """Whether nothing is to come but the footer, or what is to come cannot be known."""
        return self.state in ("RECV_FOOTER", "RECV_SUCCESS") or (
            self.state == "RECV_PAYLOAD" and self.size_bytes is None
        )

    def read(self) -> None:
        """Read once and use what came."""
        stream, transport = self._stream, self._stream.transport
        if self.state == "RECV_SUCCESS":
            transport.want_read(wanted=False)
        if transport.socket is None or self.state == "RECV_SUCCESS":
            return
        try:
            count = transport.socket.recv_into(_BUFFER)
        except BlockingIOError:
            return
        except OSError as error:
            transport.state, transport.error = "ERROR", "READ"
            stream.context.log.critical(_PLACE, f"read(): stream {stream}: {error.strerror}")
            self._fail("READ")
            return
        if count == 0:
            self._on_eof()
            return
        now_us = transport.last_progress_us = monotonic_us()
        self.total_bytes += count
        stream.context.statistics.bytes_read += count
        offset = 0
        while offset < count and self.state != "RECV_SUCCESS" and not stream.has_ended:
            if self.state == "RECV_PAYLOAD":
                offset += self._take_payload(_BUFFER[offset:count], now_us)
            else:
                offset += self._take_control(bytes(_BUFFER[offset:count]))

    def _take_payload(self, data: memoryview, now_us: int) -> int:
        """Use up payload, and return how much of ``data`` it was."""
        size = self.size_bytes
        if size is None:
            # Payload is lower-case letters, so the peer's footer can be told from it; nothing
            # follows a footer, so it can only be at the end.
            taken = len(data)
            while taken and not 97 <= data[taken - 1] <= 122:
                taken -= 1
        else:
            taken = min(len(data), size - self.payload_bytes)
            self._md5.update(data[:taken])
        if taken:
            if self.payload_bytes == 0:
                self.first_us = now_us
            self.last_us = now_us
            self.payload_bytes += taken
            stream = self._stream
            if self.payload_bytes >= self._next_mark or stream.is_status_due(now_us):
                self._next_mark = next_mark(size, self.payload_bytes)
                stream.log_progress(now_us)
        if size is None:
            if taken < len(data):
                self.state = "RECV_FOOTER"
        elif self.payload_bytes >= size:
            self.state = "RECV_CHECKSUM"
        return taken

    def _take_control(self, data: bytes) -> int:
        """Use up what is no payload, and return how much of ``data`` it was."""
        before = len(self._pending)
        self._pending += data
        if self.state == "RECV_AUTHENTICATE":
            used = self._take_token()
        elif self.state == "RECV_MODEL":
            used = self._take_model()
        else:
            used = self._take_line()
        if used < 0:  # more has to come
            return len(data)
        self._pending.clear()
        return used - before

    def _take_token(self) -> int:
        have = bytes(self._pending[: len(_BEGINNING)])
        if not _BEGINNING.startswith(have):
            self._stream.context.log.info(_PLACE, "stream authentication error: not a generator")
            self._fail("AUTH")
            return len(self._pending)
        if len(have) < len(_BEGINNING):
            return -1
        self.state = "RECV_HEADER"
        return len(_BEGINNING)

    def _take_line(self) -> int:
        end = self._pending.find(b"\n")
        if end < 0 and len(self._pending) < MAX_LINE_BYTES:
            return -1
        line = bytes(self._pending[:end]) if 0 <= end < MAX_LINE_BYTES else b""
        if self.state == "RECV_HEADER":
            self._on_header(line)
        elif self.state == "RECV_CHECKSUM":
            self._on_checksum(line)
        else:
            self._on_footer(line)
        return end + 1 if end >= 0 else len(self._pending)

    def _take_model(self) -> int:
        size = self._command.model_size if self._command else 0
        if len(self._pending) < size:
            return -1
        text, name = bytes(self._pending[:size]), self._command.model_name if self._command else ""
        try:
            self._on_model(parse_model(text, name, f"model {name} of a peer"))
        except (ModelError, RecursionError) as error:
            self._refuse("MODEL", str(error))
        return size

    def _on_header(self, line: bytes) -> None:
        stream = self._stream
        try:
            if stream.is_commander:
                stream.peer_name = parse_response(line)
                stream.response_us = stream.transport.last_progress_us
                self._expect_payload()
                return
            command = self._command = parse_command(line)
        except HeaderError as error:
            self._refuse(error.code, str(error))
            return
        stream.peer_name = command.hostname
        stream.vertex_id = f"{stream.vertex_id}:{command.transfer_id}"
        self.size_bytes = command.send_size_bytes
        stream.send.size_bytes = command.recv_size_bytes
        self.state = "RECV_MODEL"
        if command.model_path is None:
            return
        try:
            if command.model_path.lower() == PACKET_MODEL_NAME:
                self._on_model(builtin_packet_model())
            else:
                self._on_model(load_model(Path(command.model_path)))
        except ModelError as error:
            self._refuse("HEADER_MODELPATH", str(error))

    def _on_model(self, model: MarkovModel) -> None:
        stream = self._stream
        stream.command_us = monotonic_us()
        self._expect_payload()
        if self._command is not None:
            stream.send.set_response(model, self._command.model_seed)
        stream.send.pump()

    def _expect_payload(self) -> None:
        self.state = "RECV_FOOTER" if self.size_bytes == 0 else "RECV_PAYLOAD"
        self._stream.send.pump_footer()

    def _on_checksum(self, line: bytes) -> None:
        self.checksum_us = monotonic_us()
        computed = self._md5.hexdigest()
        received = line.split(b" ")[1:2]
        if received != [computed.encode()]:
            text = received[0][:40].decode("ascii", "replace") if received else "nothing"
            self._stream.context.log.message(
                _PLACE, f"MD5 checksums failed: computed={computed} received={text}"
            )
            self._fail("CHECKSUM")
            return
        self.state = "RECV_FOOTER"
        self._stream.send.pump_footer()

    def _on_footer(self, line: bytes) -> None:
        if line + b"\n" != FOOTER:
            self._fail("FOOTER")
            return
        self.state = "RECV_SUCCESS"
        self._stream.transport.want_read(wanted=False)
        self._stream.send.pump_footer()

    def _on_eof(self) -> None:
        self._stream.transport.state = "SUCCESS_EOF"
        if self.state == "RECV_PAYLOAD" and self.size_bytes is None:
            self.state = "RECV_SUCCESS"
            self._stream.transport.want_read(wanted=False)
            return
        self._stream.context.log.critical(
            _PLACE, f"read(): transport {self._stream.transport} stream {self._stream}"
            " closed unexpectedly"
        )  # fmt: skip
        self._fail("READEOF")

    def _refuse(self, code: str, reason: str) -> None:
        """Tell the commander what is wrong with its header, and end."""
        self._stream.context.log.warning(_PLACE, f"refused the peer's header: {reason}")
        if not self._stream.is_commander:
            self._stream.send.refuse(code)
        self._fail(code)

    def _fail(self, code: str) -> None:
        self.state = "RECV_ERROR"
        self._stream.fail(code)
