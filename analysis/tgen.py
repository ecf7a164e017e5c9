"""Puts the facts of one generator's logs together: its transfers, whole and cut.

`tgenscan` finds the facts in each log by itself; here they are taken in the order of time. Only
here it shows that a line comes after the end of its transfer, or that an end is told twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfmeasure.analysis import oldlines, scan
from perfmeasure.analysis.clocksteps import ClockPair, ClockSteps
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.tgenscan import Created, Ended, LastLine, Program, Progress, Seen
from perfmeasure.analysis.transfers import (
    Begun,
    TgenLog,
    cut_transfer,
    ended_transfer,
    sections_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perfmeasure.analysis.scan import FactsOf
    from perfmeasure.analysis.source import Fact, Input
    from perfmeasure.analysis.tgenscan import Key
    from perfmeasure.analysis.transfers import Transfer


class NeedsWholeError(Exception):
    """The log of which facts are taken has to be scanned with ``is_whole``."""


class TgenAssembly:
    """Takes the facts of one generator in the order of time: `begin` each log, `take`, `finish`."""

    def __init__(self) -> None:
        self.log = TgenLog()
        self._open: dict[Key, Begun] = {}
        # When it ended, and whether in an earlier log than the one that is being read.
        self._ended: dict[Key, tuple[float, int]] = {}
        self._ends: set[tuple[bytes, bytes, str, str]] = set()
        self._clock = ClockSteps()
        self.log.clock_steps = self._clock.found
        self._number = 0  # of the log that is being read
        self._is_whole = True
        self._takers: dict[type, Callable[[float, Any], None]] = {
            Program: self._program,
            Created: self._created,
            Seen: self._seen,
            Progress: self._progress,
            LastLine: self._last_line,
            Ended: self._has_ended,
            ClockPair: self._clock_pair,
        }

    def begin(self, *, is_whole: bool) -> None:
        """Say that the facts of the next log follow, and how it was scanned."""
        self._number += 1
        self._is_whole = is_whole

    def take(self, facts: Iterable[Fact], withdraw: Callable[[int, str], None]) -> None:
        """Take the next facts; ``withdraw`` is told the lines that cannot be used after all.

        Raises:
            NeedsWholeError: the log was scanned for less than is needed.
        """
        takers = self._takers
        for number, ts, fact in facts:
            try:
                takers[type(fact)](ts, fact)
            except RejectedError as error:
                withdraw(number, str(error))

    def finish(self, last_ts: float) -> TgenLog:
        """Return what was read; transfers that have not ended by ``last_ts`` are not complete."""
        self._cut_open(last_ts)
        return self.log

    def _program(self, ts: float, fact: Program) -> None:
        self._cut_open(ts)
        self.log.host = self.log.host or fact.host
        self.log.program = fact.name

    def _clock_pair(self, _ts: float, pair: ClockPair) -> None:
        seconds = self._clock.take(pair)
        for begun in self._open.values() if seconds else ():
            begun.shift(seconds)

    def _created(self, ts: float, fact: Created) -> None:
        key = (fact.transport, fact.stream)
        self._check_order(key, ts)
        self._open[key] = Begun(ts, fact.line)

    def _seen(self, ts: float, fact: Seen) -> None:
        key = (fact.transport, fact.stream)
        begun = self._open.get(key)
        if begun is None:
            if not fact.line:
                word = "stream" if fact.transport else "transfer"
                raise RejectedError(f"{word}-status is cut or garbled")
            self._check_order(key, ts)
            begun = self._open[key] = Begun(ts, fact.line)
        begun.reach(ts, *fact[2:6])
        begun.line = fact.line

    def _progress(self, ts: float, fact: Progress) -> None:
        self._open[fact.transport, fact.stream].reach(ts, *fact[2:6])

    def _last_line(self, _ts: float, fact: LastLine) -> None:
        self._open[fact.transport, fact.stream].line = fact.line

    def _check_order(self, key: Key, ts: float) -> None:
        """Raise RejectedError if a line that seems to begin a transfer comes after its end."""
        ended, number = self._ended.get(key, (0.0, self._number))
        if ts <= ended:
            if number < self._number and not self._is_whole:
                raise NeedsWholeError
            raise RejectedError("out of order: the transfer had ended")

    def _has_ended(self, ts: float, fact: Ended) -> None:
        key = (fact.transport, fact.stream)
        begun = self._open.get(key) or Begun(ts, fact.line)
        sections = sections_of(fact.line) if fact.transport else None
        if sections is None:
            end = (*key, str(ts), "")
        else:
            end = (*key, sections["times"]["created-ts"], sections["times"]["now-ts"])
        if end in self._ends:
            raise RejectedError("the same end of a transfer again")
        begun.reach(ts, *fact[2:6])
        if sections is None:
            old = oldlines.parse(fact.line)
            transfer = oldlines.transfer_of(
                old, begun, ts, is_complete=True, is_error=fact.is_error
            )
        else:
            transfer = ended_transfer(sections, begun, ts, is_error=fact.is_error)
        self._keep(transfer)
        self._open.pop(key, None)
        self._ended[key] = (ts, self._number)
        self._ends.add(end)

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


def _cut_old_transfer(line: bytes, begun: Begun, ts: float) -> Transfer:
    return oldlines.transfer_of(oldlines.parse(line), begun, ts, is_complete=False)


def read_logs(logs: Sequence[Input], facts_of: FactsOf = scan.facts) -> TgenLog:
    """Read the logs of one generator, given in the order of time.

    Raises:
        InputError: a file cannot be read any more.
    """
    whole: set[int] = set()
    while True:  # ends: with each round one log more is whole
        assembly = TgenAssembly()
        last_ts = 0.0
        for index, log in enumerate(logs):
            assembly.begin(is_whole=index in whole or log.path is None)
            try:
                for facts in facts_of(log, is_whole=index in whole):
                    assembly.take(facts, log.counts.withdraw)
            except NeedsWholeError:
                whole.add(index)
                break
            last_ts = log.last_unix_ts
        else:
            return assembly.finish(last_ts)
