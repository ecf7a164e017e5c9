"""Puts the facts of one instance's logs in the order of time, or says why that cannot be.

One program writes its logs, so their lines are in the order in which things happened, and their
stamps rise. Where they fall, either a few lines are out of place, or the clock was set back
(docs/formats.md, "Out of order"). Which of the two it was, the clock pairs tell, where there are
some, else the stamps of the lines around. Where a log ends and the next one begins is of no matter,
nor is how the facts are divided into blocks: what is looked at before and after a fall is bounded.
"""

from __future__ import annotations

import bisect
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from perfmeasure.analysis import clocksteps
from perfmeasure.analysis.clocksteps import ClockPair

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfmeasure.analysis.source import Counts, Fact

_FEW = 3  # lines at most that are taken for out of place
_AROUND = 16  # lines that are looked at before and after
_UNTIL_PAIR = 1024  # facts within which a clock pair is waited for; one is written each minute
_REMEMBERED = 4096  # facts, to know a line that comes again
_NEAR_SECONDS = 0.02  # by which stamps may differ from a pair, being rounded
_NOTICED_SECONDS = 2.0  # within which a program that looks each second notices a step

Item = tuple[float, "list[Fact]", "Counts"]
"""A fact of a line and the ones of number 0 before it, by stamp, and the counts of their log."""


class WentBack(NamedTuple):
    """The stamps fall by ``seconds`` here, and stay so: the clock was set."""

    seconds: float


class Order:
    """Takes the facts of an instance's logs: `take` for each block of them, then `end`.

    Both return facts in order, each group of them with the ``Counts`` of the log that they are of;
    there those are withdrawn that cannot be used. ``start`` is the kind of fact that says that a
    process began, before which the clock is another matter. Facts with the number 0 are about a log
    as a whole, or sum lines up; they stay with the one that follows.
    """

    def __init__(self, start: type) -> None:
        self._start = start
        self._items: list[Item] = []
        self._at = 1  # the items before this one are in order
        self._floor = 0  # the items before this one are where they stay
        self._loose: list[Fact] = []  # of number 0, that wait for the fact to go with
        self._out: list[tuple[Counts, list[Fact]]] = []
        self._given: list[tuple[float, NamedTuple]] = []  # the last of them, by stamp
        self._is_begin = True  # nothing has been handed on since the begin, or a step
        self._was_again = False  # the item before `_at` in the log was there before
        self._pair: ClockPair | None = None  # the last one
        self._looked_at = 0  # the items before this one have been searched for it

    def take(self, facts: Iterable[Fact], counts: Counts) -> list[tuple[Counts, list[Fact]]]:
        """Return facts in order, but for the last ones, on which later ones may bear."""
        for fact in facts:
            self._loose.append(fact)
            if fact[0]:
                self._items.append((fact[1], self._loose, counts))
                self._loose = []
        self._settle(is_end=False)
        self._give(self._at - 2 * _AROUND)
        return self._taken()

    def end(self, counts: Counts) -> list[tuple[Counts, list[Fact]]]:
        """Return the rest; ``counts`` are those of the last log."""
        self._settle(is_end=True)
        self._give(len(self._items))
        if self._loose:
            self._out.append((counts, self._loose))
            self._loose = []
        return self._taken()

    def _taken(self) -> list[tuple[Counts, list[Fact]]]:
        out, self._out = self._out, []
        return out

    def _give(self, count: int) -> None:
        """Hand on the first ``count`` items."""
        if count <= 0:
            return
        self._look_for_pair(count)
        group: list[Fact] = []
        of_log: Counts | None = None
        for ts, facts, counts in self._items[:count]:
            if counts is not of_log:
                group, of_log = [], counts
                self._out.append((counts, group))
            group += facts
            self._given.append((ts, facts[-1][2]))
        del self._items[:count]
        if len(self._given) > 2 * _REMEMBERED:
            del self._given[:-_REMEMBERED]
        self._is_begin = False
        self._at -= count
        self._floor = max(0, self._floor - count)
        self._looked_at -= count

    def _begin_anew(self, at: int) -> None:
        """Say that the clock is another one from the item ``at`` on."""
        self._give(at)
        self._given.clear()
        self._is_begin = True
        self._at = 1
        self._floor = self._looked_at = 0

    def _settle(self, *, is_end: bool) -> None:
        """Bring all items in order that have enough of others behind them."""
        items = self._items
        while self._at < len(items):
            at = self._at
            ts, before = items[at][0], items[at - 1][0]
            if self._was_again and ts <= before and self._is_again(items[at], at):
                self._reject(items.pop(at), at, "the same line again")
                continue
            self._was_again = False
            if ts >= before:
                self._at = at + 1
            elif not self._resolve(at, is_end=is_end):
                return

    def _resolve(self, at: int, *, is_end: bool) -> bool:
        """Settle that the item ``at`` is earlier than the one before; False if that must wait.

        An item only ever passes such as belong on its other side, so this comes to an end.
        """
        items = self._items
        if not is_end and len(items) - at < _AROUND:
            return False
        self._floor = max(self._floor, at - 2 * _AROUND)
        self._look_for_pair(at)
        if self._is_again(items[at], at):
            self._reject(items.pop(at), at, "the same line again")
            self._was_again = True
            return True
        pair_at = self._told_at(at)
        if pair_at is not None:
            self._put_pair(pair_at, at)
            self._begin_anew(at)
            return True
        return self._put_few(at) or self._settle_fall(at, is_end=is_end)

    def _put_few(self, at: int) -> bool:
        """Put a few items where they belong, or reject them; False if it is more than a few."""
        items = self._items
        ts, highest = items[at][0], items[at - 1][0]
        ahead = at
        while ahead > self._floor and at - ahead <= _FEW and items[ahead - 1][0] > ts:
            ahead -= 1
        # At the begin nothing before tells; then it must be plain where these belong.
        is_begin = self._is_begin and self._floor == 0
        after = items[at : at + _AROUND]
        is_known = ahead > self._floor or (is_begin and any(item[0] >= highest for item in after))
        if is_known and at - ahead <= _FEW:  # a few came too early
            moved = items[ahead:at]
            del items[ahead:at]
            for item in reversed(moved):
                self._move_later(item, ahead)
            self._at = max(1, ahead)
            return True
        behind = at + 1
        while behind < len(items) and behind - at <= _FEW and items[behind][0] < highest:
            behind += 1
        if behind < len(items) and behind - at <= _FEW:  # a few came too late
            moved = items[at:behind]
            del items[at:behind]
            for item in moved:
                self._move_earlier(item, at)
            self._at = max(1, at - _AROUND)
            return True
        return False

    def _move_later(self, item: Item, begin: int) -> None:
        items = self._items
        end = min(len(items), begin + _AROUND)
        at = next((n for n in range(begin, end) if items[n][0] >= item[0]), end)
        if at == begin + _AROUND:
            self._reject(item, begin, "stamped later than the lines after it")
        else:
            items.insert(at, item)

    def _move_earlier(self, item: Item, at: int) -> None:
        items = self._items
        end = max(self._floor, at - _AROUND)
        to = next((n for n in range(at, end, -1) if items[n - 1][0] <= item[0]), end)
        if to == end and not (to == 0 and self._is_begin):
            self._reject(item, at, "stamped earlier than the lines before it")
        else:
            items.insert(to, item)

    def _reject(self, item: Item, at: int, reason: str) -> None:
        """Withdraw the line of an item, which was at ``at``; what is not of the line stays."""
        _, (*loose, (number, _, _)), counts = item
        counts.withdraw(number, f"out of order: {reason}")
        after = self._items[at][1] if at < len(self._items) else self._loose
        after[:0] = loose

    def _is_again(self, item: Item, at: int) -> bool:
        """Whether the same was there before; the items before ``at`` are in order."""
        ts, fact = item[0], item[1][-1][2]
        of_given = max(0, len(self._given) + min(0, at - _REMEMBERED))
        begin = bisect.bisect_left(self._given, ts, of_given, key=itemgetter(0))
        for index in range(begin, len(self._given)):
            known_ts, known = self._given[index]
            if known_ts != ts:
                break
            if known == fact:
                return True
        begin = bisect.bisect_left(self._items, ts, max(0, at - _REMEMBERED), at, key=itemgetter(0))
        for index in range(begin, at):
            known_ts, facts, _ = self._items[index]
            if known_ts != ts:
                break
            if facts[-1][2] == fact:
                return True
        return False

    # ---- steps of the clock --------------------------------------------------------------------

    def _look_for_pair(self, end: int) -> None:
        """Note the last clock pair before the item ``end``."""
        for index in range(self._looked_at, end):
            self._pair = _pair_of(self._items[index]) or self._pair
        self._looked_at = max(self._looked_at, end)

    def _pair_after(self, at: int, count: int) -> int | None:
        """Return where the first clock pair is among ``count`` items."""
        end = min(len(self._items), at + count)
        return next((n for n in range(at, end) if _pair_of(self._items[n])), None)

    def _told_step(self, pair_at: int) -> float | None:
        """Return the step that the clock pair there tells, None if it cannot tell."""
        pair = _pair_of(self._items[pair_at])
        if pair is None or self._pair is None:
            return None
        return clocksteps.between(self._pair, pair)

    def _told_at(self, at: int) -> int | None:
        """Return where a clock pair close behind tells of a step back, of which this fall is.

        Until the program notices a step, it stamps by the new clock.
        """
        items = self._items
        if self._pair is None or (pair_at := self._pair_after(at, _AROUND)) is None:
            return None
        step = self._told_step(pair_at)
        latest = items[pair_at][0] + _NEAR_SECONDS
        first = items[pair_at][0] - _NOTICED_SECONDS
        if step is None or -step < items[at - 1][0] - items[at][0] - _NEAR_SECONDS:
            return None
        return pair_at if all(first <= items[n][0] <= latest for n in range(at, pair_at)) else None

    def _settle_fall(self, at: int, *, is_end: bool) -> bool:
        """Settle a fall that is not of a few items; False if that must wait for a clock pair."""
        items = self._items
        if isinstance(items[at][1][-1][2], self._start):
            self._begin_anew(at)
            return True
        if any(self._is_again(item, at) for item in items[at + 1 : at + 1 + _FEW]):
            # Of a block that is there twice the first lines were damaged where it is first.
            self._move_earlier(items.pop(at), at)
            self._at = max(1, at)
            return True
        step = None
        if self._pair is not None:
            pair_at = self._pair_after(at, _UNTIL_PAIR)
            if pair_at is None and not is_end and len(items) - at < _UNTIL_PAIR:
                return False
            if pair_at is not None:
                step = self._told_step(pair_at)
                if step is not None and step >= 0:
                    self._put_in_place(at, pair_at)
                    return True
                if step is not None:
                    self._put_pair(pair_at, at)
        ts, _, counts = items[at]
        fell = items[at - 1][0] - ts
        self._begin_anew(at)
        if step is None:
            self._out.append((counts, [(0, ts, WentBack(fell))]))
        return True

    def _put_pair(self, pair_at: int, at: int) -> None:
        """Put a clock pair where the clock was set: before what the new clock stamped."""
        _, facts, counts = self._items.pop(pair_at)
        ts = min((item[0] for item in self._items[at:pair_at]), default=facts[-1][1])
        self._items.insert(at, (min(ts, facts[-1][1]), facts, counts))

    def _put_in_place(self, at: int, pair_at: int) -> None:
        """Put items where they belong, or reject them, of which a clock pair says: no step."""
        items = self._items
        if items[pair_at][0] < items[at - 1][0] - _NEAR_SECONDS:  # those before are wrong
            self._move_later(items.pop(at - 1), at - 1)
            self._at = max(1, at - 1)
            return
        highest = items[at - 1][0]
        while at <= pair_at and items[at][0] < highest:
            count = len(items)
            self._move_earlier(items.pop(at), at)
            pair_at -= count - len(items)
            at += 1 - (count - len(items))
        self._at = max(1, at)


def _pair_of(item: Item) -> ClockPair | None:
    fact = item[1][-1][2]
    return fact if isinstance(fact, ClockPair) else None
