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

import re
from typing import TYPE_CHECKING, NamedTuple

from perfmeasure.analysis import clocksteps, oldlines
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.sections import Sections, is_framed, percent_of, sections_of
from perfmeasure.analysis.source import STAMP, last_stamp
from perfmeasure.analysis.transfers import Begun, ended_transfer, garbled

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

    Percent is -1 where it is not known.
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


_PROGRESS = re.compile(
    rb"\] bytes \[total-bytes-recv=\d{1,15},total-bytes-send=\d{1,15},"
    rb"payload-bytes-recv=(\d{1,15}),payload-bytes-send=(\d{1,15}),"
    rb"payload-progress-recv=(?:(\d{1,9}\.\d\d)%|\?%?),"
    rb"payload-progress-send=(?:(\d{1,9}\.\d\d)%|\?%?)\]\s*"
)
_INITIALIZING = re.compile(
    r"Initializing (traffic generator|\S+ v\S+) (?:[^\[\]:]* )?"
    r"on host (\S+) (?:with )?process id \d+\s*"
)
_MOST_REMEMBERED = 4096

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
        # What tells of no progress is alike in most lines of a transfer; it is checked once.
        self._keys: dict[bytes, Key] = {}
        self._last_alike, self._last_key = b"\n", (b"", b"")  # of the last one

    def batch(self, first: int, lines: list[bytes], counts: Counts) -> list[Fact]:
        """Return the facts in consecutive lines, of which the first has the number ``first``."""
        used = skipped = 0
        if not any(lines):  # a disk's hole, or a file of nothing else: not line by line
            counts.skipped += len(lines)
            return self._taken()
        is_known = self._is_known
        for number, line in enumerate(lines, first):
            if is_known(line):
                used += 1
                continue
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

    def end(self, _counts: Counts) -> list[Fact]:
        """Return what is known only at the end of the log."""
        self._close()
        return self._taken()

    def _taken(self) -> list[Fact]:
        facts, self._facts = self._facts, []
        return facts

    def _is_known(self, line: bytes) -> bool:
        """Whether a line says of an open transfer what the last one did, and nothing new: most do.

        What both have in common was held against the grammar then, the rest of it is here.
        """
        stamp = STAMP.match(line)
        if stamp is None or not line.startswith(self._last_alike, stamp.end()):
            return False
        begun = self._open.get(self._last_key)
        if begun is None:
            return False
        end = stamp.end() + len(self._last_alike)
        try:
            reached = (_reached if self._last_key[0] else oldlines.reached)(line, end)
        except ValueError:
            return False  # `_line` says why
        if begun.passes(*reached):
            return False
        begun.line = line
        return True

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
        except RejectedError as error:
            return str(error)
        return ""

    def _status(self, number: int, line: bytes, at: int) -> None:
        """Read the most frequent line by far.

        Raises:
            ValueError: it is not as it should be.
        """
        end = line.index(b"] bytes [", at)
        stamp, reached = STAMP.match(line), _reached(line, end)
        if stamp is None:
            garbled()
        alike = line[stamp.end() : end]
        key = self._keys.get(alike) or self._remember(alike, _whole(line, "bytes")[0])
        self._last_alike, self._last_key = alike, key
        self._has_reached(number, float(stamp[1]), line, key, reached)

    def _old_status(self, number: int, line: bytes) -> None:
        """Read a transfer-status line, the most frequent one of old programs.

        Raises:
            ValueError: it is not as it should be.
        """
        end = line.rindex(b" total-bytes-read=")
        stamp, reached = STAMP.match(line), oldlines.reached(line, end)
        if stamp is None:
            garbled()
        alike = line[stamp.end() : end]
        key = self._keys.get(alike) or self._remember(alike, (b"", oldlines.parse(line).key))
        self._last_alike, self._last_key = alike, key
        self._has_reached(number, float(stamp[1]), line, key, reached)

    def _remember(self, alike: bytes, key: Key) -> Key:
        if len(self._keys) >= _MOST_REMEMBERED:
            self._keys.clear()
        self._keys[alike] = key
        return key

    def _has_reached(self, number: int, ts: float, line: bytes, key: Key, reached: Reached) -> None:
        begun = self._open.get(key)
        if begun is not None:
            if begun.passes(*reached):
                begun.reach(ts, *reached)
                self._facts.append((number, ts, Progress(key[0], key[1], *reached)))
            begun.line = line
            return
        self._check_order(key, ts)
        self._facts.append((number, ts, Seen(key[0], key[1], *reached, line)))
        if not self._is_whole:
            begun = self._open[key] = Begun(ts, line)
            begun.reach(ts, *reached)

    def _check_order(self, key: Key, ts: float) -> None:
        """Raise RejectedError for a line after its transfer's end, where that is known."""
        if not self._is_whole and ts <= self._ended.get(key, 0.0):
            raise RejectedError("out of order: the transfer had ended")

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
            return self._created(number, ts, line)
        at = line.find(b"Initializing ", stamp.end())
        if at >= 0:
            return self._initializing(number, ts, line, at)
        at = line.find(b"] [transfer-", stamp.end())
        if at >= 0:
            return self._old_end(number, ts, line, line[at + 3 : line.find(b"]", at + 3)])
        at = line.find(b"] [clock_pair] [clock] ", stamp.end())
        return self._clock_pair(number, ts, line, at) if at >= 0 else None

    def _clock_pair(self, number: int, ts: float, line: bytes, at: int) -> str:
        text = line.decode("utf-8", "replace").rstrip()
        try:
            pair = clocksteps.pair(text[at + 23 :])
        except RejectedError as error:
            return str(error)
        if not is_framed(text, at + 2):
            return "clock pair is cut or garbled"
        self._facts.append((number, ts, pair))
        return ""

    def _initializing(self, number: int, ts: float, line: bytes, at: int) -> str:
        text = line.decode("utf-8", "replace").rstrip()
        match = _INITIALIZING.fullmatch(text, at)
        if match is None or not is_framed(text, at) or not text.isprintable() or "\ufffd" in text:
            return "Initializing line is cut or garbled"
        # The old form does not say which version: "Initializing traffic generator on host …".
        name = "TGen before v1.0" if match[1] == "traffic generator" else match[1]
        self._close()
        self._facts.append((number, ts, Program(match[2], name)))
        return ""

    def _created(self, number: int, ts: float, line: bytes) -> str:
        try:
            key, _ = _whole(line)
        except ValueError:
            return "Created new stream is cut or garbled"
        if b"vertexid=passive-stream" in key[1]:
            return ""  # whose name is not known yet
        try:
            self._check_order(key, ts)
        except RejectedError as error:
            return str(error)
        self._close_one(key)
        self._facts.append((number, ts, Created(*key, line)))
        if not self._is_whole:
            self._open[key] = Begun(ts, line)
        return ""

    def _end(self, number: int, ts: float, line: bytes, at: int) -> str:
        """Read a stream-success or stream-error line; ``at`` is behind its opening bracket."""
        word = line[at : line.find(b"]", at)]
        if word not in (b"stream-success", b"stream-error"):
            return "stream line is cut or of an unknown kind"
        is_error = word == b"stream-error"
        try:
            key, sections = _whole(line, "bytes", "times")
            ended_transfer(sections, Begun(ts, line), ts, is_error=is_error)
        except ValueError:
            return f"{word.decode()} is cut or garbled"
        size = sections["bytes"]
        reached: Reached = (
            int(size["payload-bytes-recv"]),
            int(size["payload-bytes-send"]),
            percent_of(size["payload-progress-recv"]),
            percent_of(size["payload-progress-send"]),
        )
        self._has_ended(number, ts, Ended(key[0], key[1], *reached, is_error, line))
        return ""

    def _old_end(self, number: int, ts: float, line: bytes, word: bytes) -> str:
        """Read a line of an old program that tells of an end."""
        if word not in (b"transfer-complete", b"transfer-error"):
            return "transfer line is cut or of an unknown kind"
        is_error = word == b"transfer-error"
        try:
            old = oldlines.parse(line)
            oldlines.transfer_of(old, Begun(ts, line), ts, is_complete=True, is_error=is_error)
        except ValueError:
            return f"{word.decode()} is cut or garbled"
        self._has_ended(number, ts, Ended(b"", old.key, *old.reached, is_error, line))
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
            self._facts.append((0, begun.first_ts, LastLine(*key, begun.line)))


def _reached(line: bytes, at: int) -> Reached:
    """Return how far a transfer is, from ``] bytes [`` on.

    Raises:
        ValueError: it is cut or garbled.
    """
    match = _PROGRESS.fullmatch(line, at)
    if match is None:
        garbled()
    recv, send, recv_percent, send_percent = match.groups(b"-1")
    return int(recv), int(send), float(recv_percent), float(send_percent)


def _whole(line: bytes, *names: str) -> tuple[Key, Sections]:
    """Return what identifies the transfer of a line, and its sections: the first two and ``names``.

    Raises:
        ValueError: it is not as it should be.
    """
    sections = sections_of(line)
    if sections is None or sections.keys() != {"transport", "stream", *names}:
        garbled()
    transport, stream = line.index(b"[fd=") + 1, line.index(b"[id=") + 1
    key = (
        line[transport : line.index(b",state=", transport)],
        line[stream : line.index(b",name=", stream)],
    )
    return key, sections
