"""Finds the facts in one log of TGen (any version, and perfmeasure-tgen's), line by line.

What is read, all on one line each (docs/formats.md has them whole)::

    Initializing TGen v1.1.2 … on host HOST …      a process began: what was open has been cut
    Created new stream [id=…] on transport [fd=…]  a transfer began
    [stream-status] transport [] stream [] bytes []            how far it is
    [stream-success] | [stream-error] … bytes [] times []      how it ended

and the lines of programs before 1.0, which `oldlines` takes apart: ``[transfer-status]``,
``[transfer-complete]``, ``[transfer-error]``. One log may hold both kinds.

Nearly all lines are ``status``. Of a transfer's run of them in this log the first is a fact, those
that pass a decile or a mark, and the last. What the facts mean over all logs, `tgen` finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from perfmeasure.analysis import clocksteps, oldlines
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.source import STAMP, last_stamp
from perfmeasure.analysis.transfers import (
    LONGEST_SIZE,
    Begun,
    check_numbers,
    ended_transfer,
    garbled,
    percent_of,
    sections_of,
    size_of,
)

if TYPE_CHECKING:
    from perfmeasure.analysis.source import Counts, Fact


class Program(NamedTuple):
    """A process began."""

    host: str
    name: str


class Created(NamedTuple):
    """A transfer began.

    ``transport`` and ``stream`` are what identifies a transfer within its process, here and below:
    the line's text from ``fd=`` to the state, and from ``id=`` to the name; of a program before
    1.0 nothing, and vertex and count. ``line`` is the whole line.
    """

    transport: bytes
    stream: bytes
    line: bytes


class Seen(NamedTuple):
    """How far a transfer is, told by a line that may be the first about it.

    ``line`` is empty if the line does not do for that: some of what only a first one needs is
    garbled. Percent is -1 where it is not known.
    """

    transport: bytes
    stream: bytes
    recv_bytes: int
    send_bytes: int
    recv_percent: float
    send_percent: float
    line: bytes


class Progress(NamedTuple):
    """How far a transfer is that was `Created` or `Seen` in this log, where that says something."""

    transport: bytes
    stream: bytes
    recv_bytes: int
    send_bytes: int
    recv_percent: float
    send_percent: float


class LastLine(NamedTuple):
    """The last ``status`` line about a transfer before its end, its process's, or the log's."""

    transport: bytes
    stream: bytes
    line: bytes


class Ended(NamedTuple):
    """A transfer ended, as ``line`` says."""

    transport: bytes
    stream: bytes
    recv_bytes: int
    send_bytes: int
    recv_percent: float
    send_percent: float
    is_error: bool
    line: bytes


Key = tuple[bytes, bytes]
Reached = tuple[int, int, float, float]


class TgenScan:
    """The scan of one log: `batch` for its lines in their order, then `end`.

    With ``is_whole`` each ``status`` line is a fact. That is needed if one of this log turns out
    to come after the end of its transfer in an earlier log: then all that follow must be looked at.
    """

    def __init__(self, *, is_whole: bool = False) -> None:
        self.last_ts = 0.0
        self._is_whole = is_whole
        self._open: dict[Key, Begun] = {}  # those that a fact of this log begins or goes on with
        self._ended: dict[Key, float] = {}
        self._facts: list[Fact] = []

    def batch(self, first: int, lines: list[bytes], counts: Counts) -> list[Fact]:
        """Return the facts in consecutive lines, of which the first has the number ``first``."""
        used = skipped = 0
        for number, line in enumerate(lines, first):
            reason = self._line(number, line)
            if reason is None:
                skipped += 1
            elif reason == "":
                used += 1
            else:
                counts.reject(number, reason)
        counts.used += used
        counts.skipped += skipped
        self.last_ts = last_stamp(lines, self.last_ts)
        return self._taken()

    def end(self) -> list[Fact]:
        """Return what is known only at the end of the log."""
        self._close()
        return self._taken()

    def _taken(self) -> list[Fact]:
        facts, self._facts = self._facts, []
        return facts

    def _line(self, number: int, line: bytes) -> str | None:
        """Read a line; return "" when used, None when of no use, else why it was rejected."""
        at = line.find(b"] [stream-status] transport [", 38, 200)
        if at < 0 and line.find(b"] [transfer-status] transport ", 38, 200) < 0:
            return self._other(number, line)
        try:
            if at >= 0:
                self._status(number, line, at + 29)
            else:
                self._old_status(number, line)
        except (ValueError, IndexError):
            return f"{'stream' if at >= 0 else 'transfer'}-status is cut or garbled"
        return ""

    def _status(self, number: int, line: bytes, at: int) -> None:
        """Read the most frequent line by far: cut out what is needed, nothing else.

        Raises:
            ValueError, IndexError: it is not as it should be.
        """
        if line.find(b"] [stream-", at) >= 0:  # another line was written into this one
            garbled()
        after = line.index(b",state=", at)
        stream = line.index(b"] stream [id=", after)
        key = (line[at:after], line[stream + 10 : line.index(b",name=", stream)])
        fields = line[line.index(b"] bytes [", stream) + 9 :].rstrip().split(b",")
        _, _, recv, send, recv_percent, send_percent = fields
        if recv[:19] != b"payload-bytes-recv=" or send_percent[-1:] != b"]":
            garbled()
        if not (line[20:30] + line[31:37] + recv[19:] + send[19:]).isdigit():
            garbled()  # what float and int would take for a number all the same, such as 1_0
        if len(recv) > 19 + LONGEST_SIZE or len(send) > 19 + LONGEST_SIZE:
            garbled()
        self._reached(
            number, line, key,
            (
                int(recv[19:]), int(send[19:]),
                percent_of(recv_percent[22:]), percent_of(send_percent[22:-1]),
            ),
        )  # fmt: skip

    def _old_status(self, number: int, line: bytes) -> None:
        """Read a transfer-status line, the most frequent one of old programs.

        Raises:
            ValueError: it is not as it should be.
        """
        key = (b"", oldlines.key_of(line))
        reached = oldlines.reached(line)
        if not (line[20:30] + line[31:37]).isdigit():
            garbled()
        self._reached(number, line, key, reached)

    def _reached(self, number: int, line: bytes, key: Key, reached: Reached) -> None:
        begun = self._open.get(key)
        if begun is not None:
            if begun.passes(*reached):
                ts = float(line[20:37])
                begun.reach(ts, *reached)
                self._facts.append((number, ts, Progress(key[0], key[1], *reached)))
            begun.line = line
            return
        ts = float(line[20:37])
        if not key[1].decode().isprintable() or not key[0].decode().isprintable():
            garbled()  # no line that begins a transfer has such a key
        can_begin = _can_begin(line, is_old=not key[0])
        self._facts.append((number, ts, Seen(key[0], key[1], *reached, line if can_begin else b"")))
        if can_begin and not self._is_whole and ts > self._ended.get(key, 0.0):
            begun = self._open[key] = Begun(ts, line)
            begun.reach(ts, *reached)

    def _other(self, number: int, line: bytes) -> str | None:
        """Read a line that is not of the frequent kind.

        Return "" when it was used, None when it is of no use, else why it was rejected.
        """
        stamp = STAMP.match(line)
        if stamp is None:
            return "no time stamp" if line.strip() else None
        ts = float(stamp[1])
        at = line.find(b"] [stream-", stamp.end())
        if at >= 0:
            return self._end(number, ts, line, at + 3)
        at = line.find(b" Created new stream [id=", stamp.end())
        if at >= 0:
            return self._created(number, ts, line, at + 21)
        at = line.find(b"Initializing ", stamp.end())
        if at >= 0:
            return self._initializing(number, ts, line[at:])
        at = line.find(b"] [transfer-", stamp.end())
        if at >= 0:
            return self._old_end(number, ts, line, line[at + 3 : line.find(b"]", at + 3)])
        at = line.find(b"] [clock_pair] [clock] ", stamp.end())
        return self._clock_pair(number, ts, line[at + 23 :]) if at >= 0 else None

    def _clock_pair(self, number: int, ts: float, text: bytes) -> str:
        try:
            pair = clocksteps.pair(text.decode("ascii", "replace").rstrip())
        except RejectedError as error:
            return str(error)
        self._facts.append((number, ts, pair))
        return ""

    def _initializing(self, number: int, ts: float, text: bytes) -> str:
        words = text.decode("utf-8", "replace").split()
        if "host" not in words[:-1]:
            return "Initializing line without a host"
        # The old form does not say which version: "Initializing traffic generator on host …".
        is_old = words[1:3] == ["traffic", "generator"]
        name = "TGen before v1.0" if is_old else " ".join(words[1:3])
        self._close()
        self._facts.append((number, ts, Program(words[words.index("host") + 1], name)))
        return ""

    def _created(self, number: int, ts: float, line: bytes, at: int) -> str:
        try:
            middle = line.index(b"] on transport [fd=", at)
            key = (
                line[middle + 16 : line.index(b",state=", middle)],
                line[at : line.index(b",name=", at)],
            )
        except ValueError:
            return "Created new stream is cut or garbled"
        if b"vertexid=passive-stream" in key[1]:
            return ""  # whose name is not known yet
        if not _can_begin(line, is_old=False):
            return "Created new stream is cut or garbled"
        self._close_one(key)
        self._facts.append((number, ts, Created(*key, line)))
        if not self._is_whole and ts > self._ended.get(key, 0.0):
            self._open[key] = Begun(ts, line)
        return ""

    def _end(self, number: int, ts: float, line: bytes, at: int) -> str:
        """Read a stream-success or stream-error line; ``at`` is behind its opening bracket."""
        word = line[at : line.find(b"]", at)]
        if word not in (b"stream-success", b"stream-error"):
            return "stream line is cut or of an unknown kind"
        sections = sections_of(line)
        if sections is None or set(sections) != {"transport", "stream", "bytes", "times"}:
            return f"{word.decode()} is cut or garbled"
        is_error = word == b"stream-error"
        try:
            key = (
                line[line.index(b"[fd=", at) + 1 : line.index(b",state=", at)],
                line[line.index(b" [id=", at) + 2 : line.index(b",name=", at)],
            )
            size = sections["bytes"]
            reached = (
                size_of(size["payload-bytes-recv"]),
                size_of(size["payload-bytes-send"]),
                percent_of(size["payload-progress-recv"]),
                percent_of(size["payload-progress-send"]),
            )
            ended_transfer(sections, Begun(ts, line), ts, is_error=is_error)
        except ValueError:
            return f"{word.decode()} has a number that is none"
        self._has_ended(number, ts, Ended(key[0], key[1], *reached, is_error, line))
        return ""

    def _old_end(self, number: int, ts: float, line: bytes, word: bytes) -> str:
        """Read a line of an old program that tells of an end."""
        if word not in (b"transfer-complete", b"transfer-error"):
            return "transfer line is cut or of an unknown kind"
        is_error = word == b"transfer-error"
        try:
            key = (b"", oldlines.key_of(line))
            reached = oldlines.reached(line)
            oldlines.transfer_of(
                oldlines.parse(line), Begun(ts, line), ts, is_complete=True, is_error=is_error
            )
        except ValueError:
            return f"{word.decode()} is cut or garbled"
        self._has_ended(number, ts, Ended(key[0], key[1], *reached, is_error, line))
        return ""

    def _has_ended(self, number: int, ts: float, fact: Ended) -> None:
        key = (fact.transport, fact.stream)
        self._close_one(key)
        self._facts.append((number, ts, fact))
        # Whether it is the same end again only the assembly knows; then it is no later than this.
        self._ended[key] = max(ts, self._ended.get(key, 0.0))

    def _close(self) -> None:
        """Give the last lines of the transfers that are open, and forget them all."""
        for key in list(self._open):
            self._close_one(key)
        self._ended.clear()

    def _close_one(self, key: Key) -> None:
        begun = self._open.pop(key, None)
        if begun is not None and begun.line is not begun.first_line:
            self._facts.append((0, begun.first_ts, LastLine(*key, _if_text(begun.line))))


def _can_begin(line: bytes, *, is_old: bool) -> bool:
    """Whether all is there that the first line about a transfer has to tell."""
    try:
        if is_old:
            oldlines.parse(line)
        else:
            sections = sections_of(line)
            if sections is None:
                return False
            check_numbers(sections)
    except ValueError:
        return False
    return STAMP.match(line) is not None


def _if_text(line: bytes) -> bytes:
    """Return the line, or nothing if it is no text, which tells nothing."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return b""
    return line
