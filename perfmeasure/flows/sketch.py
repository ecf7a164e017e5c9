"""The kernel's count-min sketch (``bpf/sketch.h``), read and asked.

Cormode and Muthukrishnan, "An improved data stream summary: the count-min sketch and its
applications" (2005): with d rows of w counters and N packets in all, an estimate is never too
small, and with a probability of 1 - e^-d it is too large by at most e N / w. So with bytes.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

import numpy as np

from perfmeasure.flows import bpfcall, keys
from perfmeasure.flows.keys import Array
from perfmeasure.flows.loader import Program

ROWS = 4
WIDTH = 65536
_WORD = np.uint64
_ENTRIES_A_CALL = 65536


def new_seed() -> int:
    """Return a seed of the hash, for the definition ``SKETCH_SEED``."""
    return secrets.randbits(63)


def hashes(flows: Array, seed: int) -> Array:
    """Return the 64-bit hash of each flow's key, as ``sketch_hash`` makes it."""
    words = (
        np.ascontiguousarray(keys.key_of(flows))
        .view(_WORD)
        .reshape(len(flows), keys.KEY.itemsize // 8)
    )
    value = np.full(len(flows), seed, _WORD)
    for column in range(words.shape[1]):
        value = (value ^ words[:, column]) * _WORD(0x9E3779B97F4A7C15)
        value ^= value >> _WORD(32)
    value *= _WORD(0xD6E8FEB86659FD93)
    return value ^ (value >> _WORD(32))


class Sketch:
    """One reading of the sketch.

    Args:
        counters: (ROWS, WIDTH) of `keys.TOTALS`.
        seed: what the program was compiled with.
    """

    def __init__(self, counters: Array, seed: int) -> None:
        self._counters = counters
        self._seed = seed

    @classmethod
    def read(cls, program: Program, seed: int) -> Sketch:
        """Read it from the kernel, all processors summed.

        Raises:
            OSError: the kernel refused.
        """
        reader = bpfcall.BatchReader(
            np.dtype("u4"), keys.TOTALS, bpfcall.possible_processors(), _ENTRIES_A_CALL
        )
        places, values = reader.peek(program.map_fd("sketch"))
        counters = np.zeros(ROWS * WIDTH, keys.TOTALS)
        for unit in ("packets", "bytes"):
            counters[unit][places] = values[unit].sum(axis=1)
        return cls(counters.reshape(ROWS, WIDTH), seed)

    def row_totals(self, unit: str) -> list[int]:
        """Return the sum of each row; all are the same: what was counted in all."""
        return [int(total) for total in self._counters[unit].sum(axis=1)]

    def estimates(self, flows: Array, unit: str) -> Array:
        """Return the estimate for each flow, in ``packets`` or ``bytes``."""
        found = hashes(flows, self._seed)
        rows = [
            self._counters[unit][row][(found >> _WORD(16 * row)) & _WORD(WIDTH - 1)]
            for row in range(ROWS)
        ]
        smallest: Array = np.min(rows, axis=0)
        return smallest

    def against(self, exact: Array) -> dict[str, Any]:
        """Return how far the estimates are from the exact table of the same packets.

        Args:
            exact: all flows, rows of `keys.TABLE`.

        Returns:
            The shape, and for packets and bytes the bound, the worst and the mean error, and how
            many flows are above the bound or (never, if ``exact`` is complete) underestimated.
        """
        found: dict[str, Any] = {
            "rows": ROWS,
            "width": WIDTH,
            "flows": len(exact),
            "probability_above_bound": math.exp(-ROWS),
        }
        for unit in ("packets", "bytes"):
            bound = math.e * self.row_totals(unit)[0] / WIDTH
            errors = self.estimates(exact, unit).astype(np.int64) - exact[unit].astype(np.int64)
            found |= {
                f"bound_{unit}": bound,
                f"worst_error_{unit}": int(errors.max(initial=0)),
                f"mean_error_{unit}": float(errors.mean()) if len(errors) else 0.0,
                f"flows_above_bound_{unit}": int(np.count_nonzero(errors > bound)),
                f"flows_underestimated_{unit}": int(np.count_nonzero(errors < 0)),
            }
        return found
