"""The largest flows of a run in bounded memory, and one bucket for the rest.

The kernel's table bounds the memory of a window, and what finds no room there has its bucket per
protocol and direction. This does the same for the whole run: it has room for a fixed number of
flows, and each window is merged into it by the rule of Misra and Gries (Agarwal et al., "Mergeable
Summaries", 2012). Each flow has a credit in bytes. When there are more flows than room, the largest
credit that cannot stay is taken from all of them, and those without any left are evicted into the
bucket of their protocol and direction. What was taken in all is the error: at most the bytes of
the run divided by (room + 1). A flow with more bytes than that is never missing.

Packets and bytes themselves are never estimated: those in the table are what was counted since the
flow was last admitted, the buckets have the others, and both together are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from perfmeasure.flows import keys
from perfmeasure.flows.keys import Array, Total


class TopFlows:
    """The largest flows of all windows that were added.

    Args:
        room: how many flows are kept, 1 at least.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.error_bytes = 0
        """No flow that is missing has more bytes, no flow in the table has missed more."""
        self.total = Total()
        self._table = np.zeros(0, keys.TABLE)
        # The error when the flow was admitted: as much of it may have been missed before. Its
        # credit is its bytes since, less what the error has grown by.
        self._admitted = np.zeros(0, np.uint64)
        self._rest = np.zeros((2, keys.PROTOCOLS), keys.TOTALS)

    def add(self, flows: Array) -> None:
        """Take in the table of one window (rows of `keys.TABLE`, one a flow)."""
        self.total = self.total.plus(keys.total(flows))
        flows = self._without_hopeless(flows)
        new = np.full(len(flows), self.error_bytes, np.uint64)
        rows = np.concatenate([self._table, flows])
        table = keys.merge([rows])
        # In the same order as `merge`; of a flow that was there already, the first row is the old.
        first, _ = keys.group(keys.key_of(rows))
        admitted = np.concatenate([self._admitted, new])[first]
        if len(table) > self.room:
            credit = table["bytes"] + admitted - np.uint64(self.error_bytes)
            at = len(table) - self.room - 1
            taken = np.partition(credit, at)[at]
            is_kept = credit > taken
            self._evict(table[~is_kept])
            table, admitted = table[is_kept], admitted[is_kept]
            self.error_bytes += int(taken)
        self._table, self._admitted = table, admitted

    @property
    def bound_bytes(self) -> int:
        """What the error can be at most with this room and these bytes."""
        return self.total.bytes // (self.room + 1)

    def flows(self) -> tuple[Array, Array]:
        """Return the table, most bytes first, and for each row how many bytes it may have missed.

        The first are rows of `keys.TABLE`.
        """
        order = np.argsort(self._table["bytes"], kind="stable")[::-1]
        return self._table[order], self._admitted[order]

    def rest(self) -> dict[tuple[int, int], Total]:
        """Return what is not in the table, by direction and protocol."""
        return {
            (int(direction), int(protocol)): Total(*self._rest[direction, protocol].tolist())
            for direction, protocol in np.argwhere(self._rest["packets"])
        }

    def against(self, exact: Array) -> dict[str, Any]:
        """Return how far the table is from the exact one of the same windows.

        Args:
            exact: all flows, rows of `keys.TABLE`.

        Returns:
            In bytes: what the flows kept have missed, worst and mean; the largest flow that is not
            kept.
        """
        rows = np.concatenate([self._table, exact])
        first, groups = keys.group(keys.key_of(rows))
        # The first row of a flow is the table's, if it has one.
        is_kept = first < len(self._table)
        true = np.zeros(len(first), np.uint64)
        true[groups[len(self._table) :]] = exact["bytes"]
        missed = true[is_kept] - self._table["bytes"][first[is_kept]]
        return {
            "worst_error_bytes": int(missed.max(initial=0)),
            "mean_error_bytes": float(missed.mean()) if len(missed) else 0.0,
            "largest_missing_bytes": int(true[~is_kept].max(initial=0)),
        }

    def _without_hopeless(self, flows: Array) -> Array:
        """Evict flows that are not here and that (room + 1) others of the window exceed.

        They could not stay; to merge them first would take most of the time.
        """
        if len(flows) <= self.room + 1:
            return flows
        _, groups = keys.group(keys.key_of(np.concatenate([self._table, flows])))
        count = len(self._table)
        is_here = np.zeros(len(groups), bool)
        is_here[groups[:count]] = True
        at = len(flows) - self.room - 1
        is_hopeful = flows["bytes"] >= np.partition(flows["bytes"], at)[at]
        is_hopeful |= is_here[groups[count:]]
        self._evict(flows[~is_hopeful])
        hopeful: Array = flows[is_hopeful]
        return hopeful

    def _evict(self, rows: Array) -> None:
        at = (rows["direction"], rows["protocol"])
        for unit in ("packets", "bytes"):
            np.add.at(self._rest[unit], at, rows[unit])
