"""Counts the transfers that end, from the tgen client's own lines, while they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_ENDED = re.compile(rb"\[stream-(success|error)\] .*?\bvertexid=stream_([a-z]+)[,\]]")


class Tally:
    """Transfers that ended, by kind of destination.

    Args:
        kinds: the kinds in the order in which the model alternates them.
        wanted: transfers wanted of each kind; 0 is for ever.
        on_transfer: called after each, with one line for people.
        on_complete: called once, when every kind has as many as are wanted.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        wanted: int,
        *,
        on_transfer: Callable[[str], None],
        on_complete: Callable[[], None],
    ) -> None:
        self.succeeded = dict.fromkeys(kinds, 0)
        self.failed = dict.fromkeys(kinds, 0)
        self._wanted = wanted
        self._on_transfer = on_transfer
        self._on_complete = on_complete

    @property
    def ended(self) -> int:
        """How many have ended, well or not."""
        return sum(self.succeeded.values()) + sum(self.failed.values())

    @property
    def remaining(self) -> dict[str, int]:
        """How many are still wanted of each kind, the kind that is next first; 0s for ever."""
        left = {
            kind: max(0, self._wanted - self.succeeded[kind] - self.failed[kind])
            for kind in self.succeeded
        }
        return dict(sorted(left.items(), key=lambda item: -item[1]))

    @property
    def is_complete(self) -> bool:
        """Whether all that were wanted have ended."""
        return self._wanted > 0 and not any(self.remaining.values())

    def take(self, line: bytes) -> bool:
        """Take a line of the tgen client's log; tell whether it ended one of our transfers."""
        match = _ENDED.search(line)
        if match is None:
            return False
        kind = match[2].decode("ascii")
        outcome = self.succeeded if match[1] == b"success" else self.failed
        if kind not in outcome or self.is_complete:
            return False
        outcome[kind] += 1
        self._on_transfer(str(self))
        if self.is_complete:
            self._on_complete()
        return True

    @property
    def fraction(self) -> float | None:
        """The part that is done, 0 to 1; None when there is no end."""
        return self.ended / (self._wanted * len(self.succeeded)) if self._wanted else None

    def __str__(self) -> str:
        parts = []
        for kind in self.succeeded:
            ended = self.succeeded[kind] + self.failed[kind]
            of = f" of {self._wanted}" if self._wanted else ""
            failed = f", {self.failed[kind]} failed" if self.failed[kind] else ""
            parts.append(f"{ended}{of} by {kind}{failed}")
        return "; ".join(parts)
