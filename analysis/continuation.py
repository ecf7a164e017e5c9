"""Makes of the scans of a generator's logs what one scan of them all would have given.

A scan does not know what the log before it said: a transfer that goes on there seems to begin, and
its progress is told anew. Here, where the logs come together, all that is left out that one scan
would have left out. So it does not matter where a log was cut in two (docs/adr/0007).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmeasure.analysis.tgenscan import Created, Ended, LastLine, Program, Progress, Seen
from perfmeasure.analysis.transfers import Begun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfmeasure.analysis.source import Fact
    from perfmeasure.analysis.tgenscan import Key


class NeedsWholeError(Exception):
    """The log ``number`` (from 0) has to be scanned with ``is_whole``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Continuation:
    """Takes the facts of one generator's logs: `begin` each log, `take` for its blocks, `end`."""

    def __init__(self) -> None:
        self._number = -1  # of the log that is being read
        self._is_whole = True
        self._open: dict[Key, Begun] = {}
        self._ended: dict[Key, tuple[float, int]] = {}  # when, and in which log
        self._facts: list[Fact] = []

    def begin(self, *, is_whole: bool) -> None:
        """Say that the facts of the next log follow, and how it was scanned."""
        self._number += 1
        self._is_whole = is_whole

    def take(self, facts: Iterable[Fact], withdraw: Callable[[int, str], None]) -> list[Fact]:
        """Return what is left of facts; ``withdraw`` is told the lines that cannot be used.

        Raises:
            NeedsWholeError: the log was scanned for less than is needed.
        """
        for number, ts, fact in facts:
            if isinstance(fact, Progress | Seen | Created):
                self._goes_on(number, ts, fact, withdraw)
            elif isinstance(fact, LastLine):
                self._open[fact[:2]].line = fact.line
            else:
                if isinstance(fact, Ended):
                    self._close(fact[:2])
                    last = self._ended.get(fact[:2], (0.0, 0))
                    self._ended[fact[:2]] = max(last, (ts, self._number))
                elif isinstance(fact, Program):
                    self._close_all()
                self._facts.append((number, ts, fact))
        return self._taken()

    def end(self) -> list[Fact]:
        """Return what is known only at the end."""
        self._close_all()
        return self._taken()

    def _taken(self) -> list[Fact]:
        facts, self._facts = self._facts, []
        return facts

    def _goes_on(
        self,
        number: int,
        ts: float,
        fact: Progress | Seen | Created,
        withdraw: Callable[[int, str], None],
    ) -> None:
        key = fact[:2]
        begun = self._open.get(key)
        if begun is not None and not isinstance(fact, Created):
            reached = fact.recv_bytes, fact.send_bytes, fact.recv_percent, fact.send_percent
            if isinstance(fact, Seen):
                begun.line = fact.line
            if begun.passes(*reached):
                begun.reach(ts, *reached)
                self._facts.append((number, ts, Progress(key[0], key[1], *reached)))
            return
        ended, ended_in = self._ended.get(key, (0.0, 0))
        if ts <= ended:
            if ended_in < self._number and not self._is_whole:
                raise NeedsWholeError(self._number)
            withdraw(number, "out of order: the transfer had ended")
            return
        if isinstance(fact, Created):
            self._close(key)
            self._open[key] = Begun(ts, fact.line)
        elif isinstance(fact, Seen):
            begun = self._open[key] = Begun(ts, fact.line)
            begun.reach(ts, *fact[2:6])
        self._facts.append((number, ts, fact))

    def _close(self, key: Key) -> None:
        """Give the last line of a transfer that is open, and forget it."""
        begun = self._open.pop(key, None)
        if begun is not None and begun.line is not begun.first_line:
            self._facts.append((0, begun.first_ts, LastLine(*key, begun.line)))

    def _close_all(self) -> None:
        for key in list(self._open):
            self._close(key)
        self._ended.clear()
