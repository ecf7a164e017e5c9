"""Summaries of 1 s, 1 min and 1 h, each the sum of those of the level below, exactly.

A window belongs to the second that it begins in, a second to its minute, a minute to its hour;
all are cut in monotonic time, as windows are. Flows and all terms of the conservation law are
summed, so that the law holds on each level as it does in each window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from perfmeasure.flows import keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.windows import Overflow, Window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfmeasure.flows.keys import Array

LEVELS = {"1s": 10**9, "1min": 60 * 10**9, "1h": 3600 * 10**9}
"""Names and lengths in nanoseconds, each a multiple of the one before."""


def summed(windows: Iterable[Window], number: int, length_ns: int) -> Window:
    """Return one window of ``length_ns`` that is the sum of those, one at least."""
    terms = Terms()
    overflow: list[Overflow] = []
    tables: list[Array] = []
    for window in windows:
        terms = terms.plus(window.terms)
        overflow += window.overflow
        tables.append(window.flows)
        clock = window.clock
    by_kind: dict[tuple[int, int], Overflow] = {}
    for part in overflow:
        at = (part.direction, part.protocol)
        before = by_kind.get(at)
        by_kind[at] = part if before is None else replace(part, total=before.total.plus(part.total))
    return Window(number, length_ns, keys.merge(tables), terms, tuple(by_kind.values()), clock)


class Level:
    """One level: takes what is below it in the order of time, gives what is complete.

    What it keeps of a period that goes on is one table, into which all is summed.
    """

    def __init__(self, length_ns: int) -> None:
        self.length_ns = length_ns
        self._number = -1
        self._waiting: list[Window] = []
        self._waiting_rows = 0

    def add(self, window: Window) -> list[Window]:
        """Take one in; return the period before, if this one is the first of another."""
        number = window.begin_ns // self.length_ns
        finished = []
        if self._waiting and number != self._number:
            finished = self.finish()
        self._number = number
        self._waiting.append(window)
        self._waiting_rows += len(window.flows)
        if self._waiting_rows > 2 * len(self._waiting[0].flows) + 65536:
            self._waiting = [summed(self._waiting, number, self.length_ns)]
            self._waiting_rows = len(self._waiting[0].flows)
        return finished

    def finish(self) -> list[Window]:
        """Return the period that is not complete, if there is one."""
        if not self._waiting:
            return []
        found = summed(self._waiting, self._number, self.length_ns)
        self._waiting, self._waiting_rows = [], 0
        return [found]


class Levels:
    """All levels on top of one another."""

    def __init__(self) -> None:
        self._levels = {name: Level(length_ns) for name, length_ns in LEVELS.items()}

    def add(self, window: Window) -> list[tuple[str, Window]]:
        """Take in a swept window, in the order of time; return the periods that it completes."""
        return self._pass_up([window], is_end=False)

    def finish(self) -> list[tuple[str, Window]]:
        """Return the periods that are not complete, as far as they are."""
        return self._pass_up([], is_end=True)

    def _pass_up(self, windows: list[Window], *, is_end: bool) -> list[tuple[str, Window]]:
        found: list[tuple[str, Window]] = []
        for name, level in self._levels.items():
            windows = [done for window in windows for done in level.add(window)]
            if is_end:
                windows += level.finish()
            found += [(name, window) for window in windows]
        return found
