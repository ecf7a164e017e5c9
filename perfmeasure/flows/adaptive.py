"""The length of the windows after the load: short when tables fill up, long when there is little.

A window twice as long has at most twice the flows. So the length is halved when a table was more
than half full, or anything found no room, and doubled when all were so empty that even the double
would have left them three quarters empty. In between it stays. Packets that came late mean that the
drainer does not keep up: shorter windows would make that worse, so the length is doubled then, or
stays where there was no room either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfmeasure.flows.windows import Window

_SHORTEN_ABOVE = 1 / 2
_LENGTHEN_BELOW = 1 / 8


@dataclass(frozen=True)
class Bounds:
    """Between which lengths windows may change."""

    shortest_ns: int
    longest_ns: int

    def next_length_ns(self, windows: Sequence[Window], max_flows: int) -> int:
        """Return the length that windows should have after those, the last ones swept.

        Args:
            windows: one at least; the last of them has the present length.
            max_flows: how many flows a window has room for.
        """
        length_ns = windows[-1].length_ns
        fullest = max(len(window.flows) for window in windows) / max_flows
        is_full = any(window.terms.full.packets for window in windows)
        is_late = any(window.terms.late.packets for window in windows)
        wanted_ns = length_ns
        if is_late:
            wanted_ns = length_ns if is_full else length_ns * 2
        elif is_full or fullest > _SHORTEN_ABOVE:
            wanted_ns = length_ns // 2
        elif fullest < _LENGTHEN_BELOW:
            wanted_ns = length_ns * 2
        return wanted_ns if self.shortest_ns <= wanted_ns <= self.longest_ns else length_ns
