"""Puts the facts of one log in the order of time, or says why that cannot be.

One program writes a log, so its lines are in the order in which things happened, and their stamps
rise. Where they fall, either a few lines are out of place, or the clock was set back
(docs/formats.md, "Out of order"). Which of the two it was, the stamps of the lines around tell.
"""

from __future__ import annotations

import bisect
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfmeasure.analysis.source import Fact

    Withdraw = Callable[[int, str], None]

_FEW = 3  # lines at most that are taken for out of place
_AROUND = 16  # lines that are looked at before and after
_REMEMBERED = 4096  # facts at least, to know a line that comes again


class WentBack(NamedTuple):
    """The stamps fall by ``seconds`` here, and stay so: the clock was set."""

    seconds: float


class Order:
    """Takes the facts of one log: `take` for each block of them, then `end`.

    ``withdraw`` is told (number of the line, reason) of those that cannot be used. ``start`` is the
    kind of fact that says that a process began, before which the clock is another matter. Facts
    with the number 0 are about the log as a whole; they stay with the one that follows.
    """

    def __init__(self, start: type) -> None:
        self._rejected: list[tuple[int, str]] = []
        self._start = start
        self._items: list[tuple[float, list[Fact]]] = []
        self._loose: list[Fact] = []  # of number 0, that wait for the fact to go with
        self._out: list[Fact] = []
        self._given: list[tuple[float, NamedTuple]] = []  # the last of them, by stamp
        self._is_begin = True  # nothing has been handed on since the log's begin, or a step

    def take(self, facts: Iterable[Fact], withdraw: Withdraw) -> list[Fact]:
        """Return facts in order, but for the last few, on which later ones may bear."""
        for fact in facts:
            self._loose.append(fact)
            if fact[0]:
                self._items.append((fact[1], self._loose))
                self._loose = []
        self._settle(is_end=False)
        self._give(len(self._items) - 2 * _AROUND)
        return self._taken(withdraw)

    def end(self, withdraw: Withdraw) -> list[Fact]:
        """Return the rest."""
        self._settle(is_end=True)
        self._give(len(self._items))
        self._out += self._loose
        self._loose = []
        return self._taken(withdraw)

    def _taken(self, withdraw: Withdraw) -> list[Fact]:
        for number, reason in self._rejected:
            withdraw(number, reason)
        self._rejected.clear()
        out, self._out = self._out, []
        return out

    def _give(self, count: int) -> None:
        """Hand on the first ``count`` items."""
        for ts, facts in self._items[: max(0, count)]:
            self._out += facts
            self._is_begin = False
            self._given.append((ts, facts[-1][2]))
        del self._items[: max(0, count)]
        if len(self._given) > 2 * _REMEMBERED:
            del self._given[:-_REMEMBERED]

    def _settle(self, *, is_end: bool) -> None:
        """Bring all items in order that have enough of others behind them."""
        items = self._items
        at = 1
        while at < len(items):
            if items[at][0] >= items[at - 1][0]:
                at += 1
                continue
            if not is_end and len(items) - at < _AROUND:
                return
            at = self._resolve(at)

    def _resolve(self, at: int) -> int:
        """Settle that the item ``at`` is earlier than the one before; return where to go on.

        An item only ever passes such as belong on its other side, so this comes to an end.
        """
        items = self._items
        ts, highest = items[at][0], items[at - 1][0]
        if self._is_again(items[at], at):
            # Up to the last that was there before, whose stamp is the highest itself.
            while at < len(items) and items[at][0] <= highest and self._is_again(items[at], at):
                self._reject(items.pop(at), "out of order: the same line again")
            return at
        ahead = at
        while ahead and at - ahead <= _FEW and items[ahead - 1][0] > ts:
            ahead -= 1
        # At the log's begin nothing before tells; then it must be plain where these belong.
        after = items[at : at + _AROUND]
        is_known = ahead > 0 or (self._is_begin and any(item[0] >= highest for item in after))
        if is_known and at - ahead <= _FEW:  # a few came too early
            moved = items[ahead:at]
            del items[ahead:at]
            for item in reversed(moved):
                self._move_later(item, ahead)
            return max(1, ahead)
        behind = at + 1
        while behind < len(items) and behind - at <= _FEW and items[behind][0] < highest:
            behind += 1
        if behind < len(items) and behind - at <= _FEW:  # a few came too late
            moved = items[at:behind]
            del items[at:behind]
            for item in moved:
                self._move_earlier(item, at)
            return max(1, at - _AROUND)
        is_start = any(isinstance(fact[2], self._start) for fact in items[at][1])
        self._give(at)
        if not is_start:
            self._out.append((0, ts, WentBack(highest - ts)))
        self._is_begin = True
        self._given.clear()
        return 1

    def _is_again(self, item: tuple[float, list[Fact]], at: int) -> bool:
        """Whether the same was there before; the items before ``at`` are in order."""
        ts, facts = item
        for known in (self._given, self._items[:at]):
            for index in range(bisect.bisect_left(known, ts, key=itemgetter(0)), len(known)):
                if known[index][0] != ts:
                    break
                other = known[index][1]
                if facts[-1][2] == (other[-1][2] if isinstance(other, list) else other):
                    return True
        return False

    def _move_later(self, item: tuple[float, list[Fact]], begin: int) -> None:
        items = self._items
        end = min(len(items), begin + _AROUND)
        at = next((n for n in range(begin, end) if items[n][0] >= item[0]), end)
        if at == begin + _AROUND:
            self._reject(item, "out of order: stamped later than the lines after it")
        else:
            items.insert(at, item)

    def _move_earlier(self, item: tuple[float, list[Fact]], at: int) -> None:
        items = self._items
        end = max(0, at - _AROUND)
        at = next((n for n in range(at, end, -1) if items[n - 1][0] <= item[0]), end)
        if at == end and not (at == 0 and self._is_begin):
            self._reject(item, "out of order: stamped earlier than the lines before it")
        else:
            items.insert(at, item)

    def _reject(self, item: tuple[float, list[Fact]], reason: str) -> None:
        for number, _, _ in item[1]:
            if number:
                self._rejected.append((number, reason))
