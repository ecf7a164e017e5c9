"""Puts the facts of one generator's logs together: its transfers, whole and cut.

`tgenscan` finds the facts in each log by itself; here they are taken in the order of time. Only
here it shows that a line comes after the end of its transfer, or that an end is told twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfmeasure.analysis import oldlines, scan
from perfmeasure.analysis.clocksteps import ClockPair, ClockSteps
from perfmeasure.analysis.continuation import Continuation, NeedsWholeError
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.order import Order, WentBack
from perfmeasure.analysis.sections import sections_of
from perfmeasure.analysis.source import Counts
from perfmeasure.analysis.tgenscan import Created, Ended, LastLine, Program, Progress, Seen
from perfmeasure.analysis.transfers import (
    Begun,
    TgenLog,
    cut_transfer,
    ended_transfer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perfmeasure.analysis.scan import FactsOf
    from perfmeasure.analysis.source import Fact, Input
    from perfmeasure.analysis.tgenscan import Key
    from perfmeasure.analysis.transfers import Transfer


class TgenAssembly:
    """Takes the facts of one generator in the order of time; `finish` gives what they mean."""

    def __init__(self) -> None:
        self.log = TgenLog()
        self._open: dict[Key, Begun] = {}
        self._ended: dict[Key, float] = {}
        self._ends: set[tuple[bytes, bytes, str, str]] = set()
        self._clock = ClockSteps()
        self.log.clock_steps = self._clock.found

    def _takers(self) -> dict[type, Callable[[float, Any], None]]:
        # Made for each block, not kept: an object that holds its own methods is not freed at once.
        return {
            Program: self._program,
            Created: self._created,
            Seen: self._seen,
            Progress: self._progress,
            LastLine: self._last_line,
            Ended: self._has_ended,
            ClockPair: self._clock_pair,
            WentBack: self._went_back,
        }

    def take(self, facts: Iterable[Fact], withdraw: Callable[[int, str], None]) -> None:
        """Take the next facts; ``withdraw`` is told the lines that cannot be used after all."""
        takers = self._takers()
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
        self._clock_was_set(self._clock.take(pair))

    def _went_back(self, ts: float, fact: WentBack) -> None:
        self._clock_was_set(self._clock.stamps_fell(ts, fact.seconds))

    def _clock_was_set(self, seconds: float) -> None:
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
            self._check_order(key, ts)
            begun = self._open[key] = Begun(ts, fact.line)
        begun.reach(ts, *fact[2:6])
        begun.line = fact.line

    def _progress(self, ts: float, fact: Progress) -> None:
        begun = self._open.get((fact.transport, fact.stream))
        if begun is None:
            raise RejectedError("out of order: the line that begins the transfer comes later")
        begun.reach(ts, *fact[2:6])

    def _last_line(self, _ts: float, fact: LastLine) -> None:
        begun = self._open.get((fact.transport, fact.stream))
        if begun is not None:  # else the line that begins it was rejected
            begun.line = fact.line

    def _check_order(self, key: Key, ts: float) -> None:
        """Raise RejectedError if a line that seems to begin a transfer comes after its end."""
        if ts <= self._ended.get(key, 0.0):
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
        self._ended[key] = ts
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
            self._keep(cut(begun.line, begun, ts))
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
        try:
            return _read_logs(logs, facts_of, whole)
        except NeedsWholeError as error:
            whole.add(error.number)


def _read_logs(logs: Sequence[Input], facts_of: FactsOf, whole: set[int]) -> TgenLog:
    assembly, order, continuation = TgenAssembly(), Order(Program), Continuation()
    last_ts = 0.0
    counts = Counts()
    for number, log in enumerate(logs):
        continuation.begin(is_whole=number in whole or log.path is None)
        for facts in facts_of(log, is_whole=number in whole):
            counts = log.counts
            goes_on = continuation.take(facts, counts.withdraw)
            for of_log, ordered in order.take(goes_on, counts):
                assembly.take(ordered, of_log.withdraw)
        last_ts = log.last_unix_ts
    rest = [*order.take(continuation.end(), counts), *order.end(counts)]
    for of_log, ordered in rest:
        assembly.take(ordered, of_log.withdraw)
    return assembly.finish(last_ts)
