"""Which window a moment is in, when windows do not all have the same length.

Windows are numbered through. From the beginning of an epoch on they have its length, until the next
epoch begins; each epoch begins at a multiple of its length. The kernel has the last two epochs
(``bpf/flows.bpf.c``, ADAPTIVE).
"""

from __future__ import annotations

import struct
from typing import NamedTuple


class Epoch(NamedTuple):
    """Windows of one length, from number ``first`` on, which begins at ``begin_ns``."""

    begin_ns: int
    first: int
    length_ns: int

    def packed(self) -> bytes:
        """Return ``struct epoch``."""
        return struct.pack("=QQQ", *self)


class Timeline:
    """All epochs that windows not yet swept are of.

    Args:
        length_ns: length of the windows of the first epoch, which begins with the clock.
    """

    def __init__(self, length_ns: int) -> None:
        self._epochs = [Epoch(0, 0, length_ns)]

    @property
    def last(self) -> Epoch:
        """The epoch that began, or will begin, last."""
        return self._epochs[-1]

    def number_at(self, monotonic_ns: int) -> int:
        """Return the number of the window that a moment is in."""
        epoch = next(e for e in reversed(self._epochs) if e.begin_ns <= monotonic_ns)
        return epoch.first + (monotonic_ns - epoch.begin_ns) // epoch.length_ns

    def begin_ns(self, number: int) -> int:
        """Return when a window begins."""
        epoch = self._epoch_of(number)
        return epoch.begin_ns + (number - epoch.first) * epoch.length_ns

    def length_ns(self, number: int) -> int:
        """Return how long a window is."""
        return self._epoch_of(number).length_ns

    def change(self, number: int, length_ns: int) -> Epoch:
        """Give windows a new length from the first number on that is not below the one given.

        Args:
            number: of the last epoch.
            length_ns: the last length times or through a power of two.

        Returns:
            The new epoch, which begins at a multiple of its length.
        """
        begin_ns = self.begin_ns(number)
        while begin_ns % length_ns:
            number += 1
            begin_ns += self.last.length_ns
        self._epochs.append(Epoch(begin_ns, number, length_ns))
        return self.last

    def forget_before(self, number: int) -> None:
        """Drop the epochs that ended before a window."""
        while len(self._epochs) > 1 and self._epochs[1].first <= number:
            del self._epochs[0]

    def _epoch_of(self, number: int) -> Epoch:
        return next((e for e in reversed(self._epochs) if e.first <= number), self._epochs[0])
