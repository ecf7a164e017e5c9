"""Reads TGen's logs (any 1.x, and perfmeasure-tgen's, which are alike) into transfers.

What is read, all on one line each (docs/formats.md has them whole)::

    Initializing TGen v1.1.2 … on host HOST …      a process began: what was open has been cut
    Created new stream [id=…] on transport [fd=…]  a transfer began
    [stream-status] transport [] stream [] bytes []            how far it is
    [stream-success] | [stream-error] … bytes [] times []      how it ended

and the lines of programs before 1.0, which `oldlines` takes apart: ``[transfer-status]``,
``[transfer-complete]``, ``[transfer-error]``. One log may hold both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmeasure.analysis import oldlines
from perfmeasure.analysis.clocksteps import ClockSteps
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.source import STAMP
from perfmeasure.analysis.transfers import (
    Begun,
    TgenLog,
    check_numbers,
    cut_transfer,
    ended_transfer,
    garbled,
    percent_of,
    sections_of,
    size_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfmeasure.analysis.source import Counts, Input
    from perfmeasure.analysis.transfers import Transfer


class TgenParser:
    """Reads the logs of one generator in the order of time: `read` each, then `finish`."""

    def __init__(self) -> None:
        self.log = TgenLog()
        # Key: the line's text from ``fd=`` to the state, and from ``id=`` to the name; of an old
        # line nothing, and vertex and count.
        self._open: dict[tuple[bytes, bytes], Begun] = {}
        self._ended: dict[tuple[bytes, bytes], float] = {}
        self._ends: set[tuple[bytes, bytes, str, str]] = set()
        self._last_ts = 0.0
        self._clock = ClockSteps()
        self.log.clock_steps = self._clock.found

    def read(self, log: Input) -> None:
        """Read one log.

        Raises:
            InputError: the file cannot be read any more.
        """
        counts = log.counts
        for first, lines in log.batches():
            self._read_batch(first, lines, counts)
            self._note_last_stamp(lines)
        log.last_unix_ts = max(log.first_unix_ts, self._last_ts)

    def finish(self) -> TgenLog:
        """Return what was read; transfers that have not ended are kept, not complete."""
        self._cut_open(self._last_ts)
        return self.log

    def _read_batch(self, first: int, lines: list[bytes], counts: Counts) -> None:
        used = skipped = 0
        for number, line in enumerate(lines, first):
            reason = self._read_line(line)
            if reason is None:
                skipped += 1
            elif reason == "":
                used += 1
            else:
                counts.reject(number, reason)
        counts.used += used
        counts.skipped += skipped

    def _read_line(self, line: bytes) -> str | None:
        """Read a line; return "" when used, None when of no use, else why it was rejected."""
        at = line.find(b"] [stream-status] transport [", 38, 200)
        if at < 0 and line.find(b"] [transfer-status] transport ", 38, 200) < 0:
            return self._read_other(line)
        try:
            if at >= 0:
                self._status(line, at + 29)
            else:
                self._old_status(line)
        except (ValueError, IndexError):
            return f"{'stream' if at >= 0 else 'transfer'}-status is cut or garbled"
        except RejectedError as error:
            return str(error)
        return ""

    def _status(self, line: bytes, at: int) -> None:
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
        reached = (
            float(line[20:37]), int(recv[19:]), int(send[19:]),
            percent_of(recv_percent[22:]), percent_of(send_percent[22:-1]),
        )  # fmt: skip
        begun = self._open.get(key) or self._begin(line, key)
        begun.reach(*reached)
        begun.line = line

    def _old_status(self, line: bytes) -> None:
        """Read a transfer-status line, the most frequent one of old programs.

        Raises:
            ValueError: it is not as it should be.
        """
        key = (b"", oldlines.key_of(line))
        reached = oldlines.reached(line)
        if not (line[20:30] + line[31:37]).isdigit():
            garbled()
        ts = float(line[20:37])
        begun = self._open.get(key)
        if begun is None:
            self._check_order(key, ts)
            oldlines.parse(line)  # so that it can be relied upon when nothing else comes
            begun = self._open[key] = Begun(ts, line)
        begun.reach(ts, *reached)
        begun.line = line

    def _read_other(self, line: bytes) -> str | None:
        """Read a line that is not of the frequent kind.

        Return "" when it was used, None when it is of no use, else why it was rejected.
        """
        stamp = STAMP.match(line)
        if stamp is None:
            return "no time stamp" if line.strip() else None
        ts = float(stamp[1])
        at = line.find(b"] [stream-", stamp.end())
        if at >= 0:
            return self._end(ts, line, at + 3)
        at = line.find(b" Created new stream [id=", stamp.end())
        if at >= 0:
            return self._created(line, at + 21)
        at = line.find(b"Initializing ", stamp.end())
        if at >= 0:
            return self._initializing(ts, line[at:])
        at = line.find(b"] [transfer-", stamp.end())
        if at >= 0:
            return self._old_end(ts, line, line[at + 3 : line.find(b"]", at + 3)])
        at = line.find(b"] [clock_pair] [clock] ", stamp.end())
        return self._clock_pair(line[at + 23 :]) if at >= 0 else None

    def _clock_pair(self, text: bytes) -> str:
        try:
            seconds = self._clock.read(text.decode("ascii", "replace").rstrip())
        except RejectedError as error:
            return str(error)
        for begun in self._open.values() if seconds else ():
            begun.shift(seconds)
        return ""

    def _initializing(self, ts: float, text: bytes) -> str:
        words = text.decode("utf-8", "replace").split()
        if "host" not in words[:-1]:
            return "Initializing line without a host"
        self._cut_open(ts)
        self.log.host = self.log.host or words[words.index("host") + 1]
        # The old form does not say which version: "Initializing traffic generator on host …".
        is_old = words[1:3] == ["traffic", "generator"]
        self.log.program = "TGen before v1.0" if is_old else " ".join(words[1:3])
        return ""

    def _created(self, line: bytes, at: int) -> str:
        try:
            middle = line.index(b"] on transport [fd=", at)
            key = (
                line[middle + 16 : line.index(b",state=", middle)],
                line[at : line.index(b",name=", at)],
            )
            if b"vertexid=passive-stream" not in key[1]:  # whose name is not known yet
                self._begin(line, key)
        except ValueError:
            return "Created new stream is cut or garbled"
        except RejectedError as error:
            return str(error)
        return ""

    def _check_order(self, key: tuple[bytes, bytes], ts: float) -> None:
        """Raise RejectedError if a line that seems to begin a transfer comes after its end."""
        if ts <= self._ended.get(key, 0.0):
            raise RejectedError("out of order: the transfer had ended")

    def _begin(self, line: bytes, key: tuple[bytes, bytes]) -> Begun:
        """Note a transfer by the first line about it.

        Raises:
            ValueError: the line is not as it should be.
        """
        sections = sections_of(line)
        if sections is None:
            garbled()
        check_numbers(sections)
        stamp = STAMP.match(line)
        if stamp is None:
            garbled()
        self._check_order(key, float(stamp[1]))
        self._open[key] = begun = Begun(float(stamp[1]), line)
        return begun

    def _end(self, ts: float, line: bytes, at: int) -> str:
        """Read a stream-success or stream-error line; ``at`` is behind its opening bracket."""
        word = line[at : line.find(b"]", at)]
        if word not in (b"stream-success", b"stream-error"):
            return "stream line is cut or of an unknown kind"
        sections = sections_of(line)
        if sections is None or set(sections) != {"transport", "stream", "bytes", "times"}:
            return f"{word.decode()} is cut or garbled"
        try:
            key = (
                line[line.index(b"[fd=", at) + 1 : line.index(b",state=", at)],
                line[line.index(b" [id=", at) + 2 : line.index(b",name=", at)],
            )
            end = (*key, sections["times"]["created-ts"], sections["times"]["now-ts"])
            if end in self._ends:
                return "the same end of a transfer again"
            begun = self._open.get(key) or Begun(ts, line)
            size = sections["bytes"]
            begun.reach(
                ts,
                size_of(size["payload-bytes-recv"]),
                size_of(size["payload-bytes-send"]),
                percent_of(size["payload-progress-recv"]),
                percent_of(size["payload-progress-send"]),
            )
            is_error = word == b"stream-error"
            self._keep(ended_transfer(sections, begun, ts, is_error=is_error))
            self._open.pop(key, None)
            self._ended[key] = ts
            self._ends.add(end)
        except ValueError:
            return f"{word.decode()} has a number that is none"
        return ""

    def _old_end(self, ts: float, line: bytes, word: bytes) -> str:
        """Read a line of an old program that tells of an end."""
        if word not in (b"transfer-complete", b"transfer-error"):
            return "transfer line is cut or of an unknown kind"
        try:
            key = (b"", oldlines.key_of(line))
            end = (*key, str(ts), "")
            if end in self._ends:
                return "the same end of a transfer again"
            old = oldlines.parse(line)
            begun = self._open.get(key) or Begun(ts, line)
            begun.reach(ts, *oldlines.reached(line))
            is_error = word == b"transfer-error"
            self._keep(oldlines.transfer_of(old, begun, ts, is_complete=True, is_error=is_error))
            self._open.pop(key, None)
            self._ended[key] = ts
            self._ends.add(end)
        except ValueError:
            return f"{word.decode()} is cut or garbled"
        return ""

    def _keep(self, transfer: Transfer) -> None:
        if transfer.record["is_commander"]:
            self.log.transfers.append(transfer)
            return
        self.log.passive_count += 1
        if transfer.record["is_complete"]:
            self.log.answered.append(transfer)

    def _cut_open(self, ts: float) -> None:
        """Keep the transfers that are open as cut at ``ts``."""
        for (kind, _), begun in self._open.items():
            cut = cut_transfer if kind else _cut_old_transfer
            try:
                transfer = cut(begun.line, begun, ts)
            except ValueError:
                transfer = cut(begun.first_line, begun, ts)
            self._keep(transfer)
        self._open.clear()
        self._ended.clear()

    def _note_last_stamp(self, lines: list[bytes]) -> None:
        for line in reversed(lines):
            if stamp := STAMP.match(line):
                self._last_ts = max(self._last_ts, float(stamp[1]))
                return


def _cut_old_transfer(line: bytes, begun: Begun, ts: float) -> Transfer:
    return oldlines.transfer_of(oldlines.parse(line), begun, ts, is_complete=False)


def read_logs(logs: Iterable[Input]) -> TgenLog:
    """Read the logs of one generator, given in the order of time.

    Raises:
        InputError: a file cannot be read any more.
    """
    parser = TgenParser()
    for log in logs:
        parser.read(log)
    return parser.finish()
