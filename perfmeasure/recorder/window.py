"""A file seen through a buffer that moves over it, with every byte's offset in the file."""

from __future__ import annotations

from typing import BinaryIO

_BUFFER_BYTES = 1 << 20


class Window:
    """Reads a file from front to back; what is not used yet stays in the buffer.

    Args:
        file: unbuffered, or else everything is copied twice.

    Attributes:
        buffer: what was read; use the part below ``end``.
        at: where in the buffer the caller is; it moves this on.
        end: where in the buffer what was read ends.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._base = 0
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self.at = 0
        self.end = 0

    @property
    def data(self) -> memoryview:
        """What was read and is in the buffer; offsets count from its beginning."""
        return self.buffer[: self.end]

    @property
    def left(self) -> int:
        """The bytes between ``at`` and ``end``."""
        return self.end - self.at

    def offset(self, at: int) -> int:
        """Return the place in the file of a place in the buffer."""
        return self._base + at

    def fill(self, wanted: int) -> bool:
        """Read until ``wanted`` bytes follow ``at``, and more where that is cheap.

        Moves what is left to the front, so that places in the buffer are no longer true.

        Returns:
            Whether they are there; else the file ends before.
        """
        rest = bytes(self.buffer[self.at : self.end])
        if wanted > len(self.buffer):
            self.buffer = memoryview(bytearray(wanted))
        self._base += self.at
        self.buffer[: len(rest)] = rest
        self.at, self.end = 0, len(rest)
        while self.end < wanted:
            count = self._file.readinto(self.buffer[self.end :])  # type: ignore[attr-defined]
            if not count:
                return False
            self.end += count
        return True

    def skip(self, count: int) -> bool:
        """Move on by ``count`` bytes, without keeping them; false if the file ends before."""
        while count > self.left:
            count -= self.left
            self.at = self.end
            if not self.fill(1):
                return False
        self.at += count
        return True
