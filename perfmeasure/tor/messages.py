"""The messages of Tor's control protocol, cut out of the byte stream and taken apart.

Source: Tor's control-spec, "Message format" (lines, multi-line replies, quoted strings).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from perfmeasure.errors import ControlError

NOT_TOR_NEXT_STEP = "name tor's ControlPort with --port or --control, not its SocksPort"

_LONGEST_LINE_BYTES = 1 << 20
_LONGEST_MESSAGE_BYTES = 64 << 20  # a full consensus is 2 to 4 MB, in 10,000s of lines
_MOST_LINES = 1_000_000


class MessageSplitter:
    """Cuts the byte stream of a control port into whole messages, however it arrives.

    A message is one line (``250 OK``), or several that end with one whose fourth character is a
    space; a line with ``+`` there opens data that a line ``.`` ends. Messages are returned byte
    for byte as they came, line ends included.
    """

    def __init__(self, where: str = "control port") -> None:
        self._where = where
        self._rest = b""
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self._is_in_data = False

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of a message whose end has not come yet."""
        return self._lines_bytes + len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream and return the messages that they complete.

        Raises:
            ControlError: what came is not the control protocol.
        """
        if self._rest:
            data = self._rest + data
        *lines, self._rest = data.split(b"\n")
        messages = []
        for line in lines:
            if line[:4] == b"650 " and not self._lines:  # nearly all lines are such events
                messages.append(line + b"\n")
            elif self._takes_last_line(line + b"\n"):
                messages.append(b"".join(self._lines))
                self._lines = []
                self._lines_bytes = 0
        if len(self._rest) > _LONGEST_LINE_BYTES:
            raise self._malformed(self._rest, "a line without an end")
        return messages

    def _takes_last_line(self, line: bytes) -> bool:
        """Add a line to the current message and return whether that ends it."""
        self._lines.append(line)
        self._lines_bytes += len(line)
        if self._lines_bytes > _LONGEST_MESSAGE_BYTES or len(self._lines) > _MOST_LINES:
            raise self._malformed(self._lines[0], "a message without an end")
        if self._is_in_data:
            self._is_in_data = line not in (b".\r\n", b".\n")
            return False
        separator = line[3:4]
        if not line[:3].isdigit() or separator not in (b" ", b"+", b"-"):
            raise self._malformed(line, "a line")
        self._is_in_data = separator == b"+"
        return separator == b" "

    def _malformed(self, line: bytes, what: str) -> ControlError:
        return ControlError(
            self._where,
            f"{what} that is not the control protocol: {line[:60]!r}",
            "lines that start with three digits",
            NOT_TOR_NEXT_STEP,
        )


@dataclass(frozen=True)
class Reply:
    """Tor's whole answer to one command."""

    message: bytes

    @property
    def status(self) -> int:
        """The status code of the last line, such as 250."""
        return int(self.message[self.message.rstrip().rfind(b"\n") + 1 :][:3])

    @property
    def lines(self) -> list[str]:
        """The lines without status code; a data block follows its line after a newline."""
        lines: list[str] = []
        data: list[str] | None = None
        for line in self.message.decode("utf-8", "replace").splitlines():
            if data is None:
                lines.append(line[4:])
                data = [] if line[3:4] == "+" else None
            elif line == ".":
                lines[-1] += "".join(f"\n{part}" for part in data)
                data = None
            else:
                data.append(line.removeprefix("."))  # a leading dot was doubled on the wire
        return lines

    def __str__(self) -> str:
        return self.message.decode("utf-8", "replace").strip()


_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_ESCAPED_BYTES = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def unquote(text: str) -> bytes:
    """Return the bytes that a quoted string of the control protocol stands for."""

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 255]) if code.isdigit() else _ESCAPED_BYTES.get(code, code)

    return _ESCAPE.sub(plain, text[1:-1].encode("utf-8", "surrogateescape"))
