"""The extension with arguments that fit, nearly fit and do not: fuzz_native.py CALLS SEED.

To be run with an extension that was built with a sanitizer, as the module ``_native``; a call may
raise what Python raises for arguments, and nothing else may happen. Tables of hashes are the
extension's own state, so they are always as `perfmeasure.recorder.core.make_table` makes them.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import _native  # type: ignore[import-not-found]
import numpy as np

from perfmeasure.recorder.records import CONNECTION, FRAME, INDEX_ROW, PACKET, Array

REFUSED = (ValueError, TypeError, OverflowError, BufferError)


class Arguments:
    """Draws arguments."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.count = 0

    def number(self, most: int = 2**64) -> int:
        """Return a number that may be out of every range."""
        small = self.rng.randrange(40)
        wild = [0, 1, -1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), self.rng.randrange(most)]
        return small if self.rng.random() < 0.7 else self.rng.choice(wild)

    def items(self) -> int:
        """Return how many items an array has: mostly as many as there should be."""
        return max(0, self.count + (self.rng.choice([-1, 1, 7]) if self.rng.random() < 0.2 else 0))

    def wanted(self) -> int:
        """Return how many items a call is to work on: mostly as many as there should be."""
        return self.count if self.rng.random() < 0.9 else self.number()

    def octets(self, size: int | None = None) -> Any:
        """Return a buffer, sometimes one that cannot be written, or none."""
        content = self.rng.randbytes(self.rng.randrange(600) if size is None else size)
        if self.rng.random() < 0.02:
            return self.rng.choice([None, "text", 7, content])
        return np.frombuffer(content, "u1").copy() if self.rng.random() < 0.7 else content

    def array(self, dtype: Any) -> Any:
        """Return an array of random content."""
        kind = np.dtype(dtype)
        found = self.octets(self.items() * kind.itemsize)
        if not isinstance(found, np.ndarray):
            return found
        return np.frombuffer(bytearray(found.tobytes()), kind) if len(found) else np.zeros(0, kind)

    def below(self, limit: int) -> Any:
        """Return numbers (uint32) of which nearly all are below a limit."""
        found = self.array("u4")
        if isinstance(found, np.ndarray) and limit and self.rng.random() < 0.95:
            found %= limit
        return found

    def frames(self, size: int) -> Any:
        """Return frames most of which are within a buffer of this size."""
        found = self.array(FRAME)
        if isinstance(found, np.ndarray) and self.rng.random() < 0.9:
            for frame in found:
                frame["at"] = self.rng.randrange(size + 1)
                frame["captured"] = self.rng.randrange(size + 1 - int(frame["at"]))
                frame["link"] = self.rng.choice([0, 1, 12, 101, 108, 113, 228, 229, 276, 9])
        return found

    def table(self, dtype: np.dtype[Any]) -> tuple[Array, Array, int]:
        """Return a table, rows of this dtype, and how many are used: none."""
        rows = np.zeros(self.rng.choice([0, 1, 5, 32]), dtype)
        entries = 1 << (2 * len(rows)).bit_length() + self.rng.randrange(2)
        return np.zeros(max(1, entries - (self.rng.random() < 0.05)), "u8"), rows, 0


def walk_ring(draw: Arguments) -> tuple[Any, ...]:
    data = draw.octets()
    if isinstance(data, np.ndarray) and len(data) >= 192:
        below = draw.rng.randrange
        at = 48 + 4 * below(24)
        data[12:20].view("u4")[:] = below(3), at  # frames, and where the first is
        data[at : at + 16].view("u4")[[0, 3]] = below(300), below(200)  # the next, the length
        data[at + 24 : at + 26].view("u2")[0] = below(200)
    return data, draw.number(), draw.array(FRAME)


def fill(draw: Arguments) -> tuple[Any, ...]:
    table, rows, _ = draw.table(INDEX_ROW)
    draw.count = min(draw.count, len(rows))
    return table, draw.array("u8"), draw.array("u4"), draw.count


def index_packets(draw: Arguments) -> tuple[Any, ...]:
    begin = draw.array(PACKET), draw.frames(600), draw.wanted()
    return (*begin, *draw.table(INDEX_ROW), draw.array("u4"))


def follow(draw: Arguments) -> tuple[Any, ...]:
    begin = draw.array(PACKET), draw.frames(600), draw.wanted()
    rules = draw.number(2**63), True, draw.number()
    return (*begin, *draw.table(CONNECTION), *rules, draw.array("u4"))


def account(draw: Arguments) -> tuple[Any, ...]:
    rows = draw.table(CONNECTION)[1]
    used = len(rows) if draw.rng.random() < 0.9 else draw.number()
    slots = draw.below(len(rows))
    return draw.frames(600), slots, draw.wanted(), rows, used, draw.array("u1")


def pack(draw: Arguments) -> tuple[Any, ...]:
    data = draw.octets()
    frames = draw.frames(size_of(data))
    return data, frames, draw.wanted(), draw.number(), draw.octets(), draw.array("u4")


def decode(draw: Arguments) -> tuple[Any, ...]:
    data = draw.octets()
    return data, draw.frames(size_of(data)), draw.wanted(), 7, draw.array(PACKET)


def sort(draw: Arguments) -> tuple[Any, ...]:
    groups = draw.rng.randrange(1, 40)
    ranks = np.array(draw.rng.sample(range(groups), groups), "u4")
    number = groups if draw.rng.random() < 0.9 else draw.number()
    begin = draw.below(groups), draw.array("u4"), draw.wanted(), ranks, number
    return (*begin, np.zeros(groups, "u4"), draw.array("u4"))


def size_of(data: Any) -> int:
    return len(data) if isinstance(data, bytes | np.ndarray) else 0


ARGUMENTS: dict[str, Callable[[Arguments], tuple[Any, ...]]] = {
    "account": account,
    "decode": decode,
    "fill": fill,
    "follow": follow,
    "headers": lambda d: (d.octets(), d.array("u4") % 600, d.wanted(), 1, d.array(FRAME)),
    "index_packets": index_packets,
    "pack": pack,
    "sort": sort,
    "walk_pcap": lambda d: (d.octets(), d.number(), 1, d.number(), 1, d.array(FRAME)),
    "walk_pcapng": lambda d: (d.octets(), d.number(), 0, d.number(), d.array(FRAME)),
    "walk_ring": walk_ring,
}


def main() -> None:
    """Make the calls; print how many of each function were carried out."""
    draw = Arguments(int(sys.argv[2]))
    names = [name for name in dir(_native) if not name.startswith("_")]
    carried_out = Counter(dict.fromkeys(names, 0))
    for number in range(int(sys.argv[1])):
        name = names[number % len(names)]
        draw.count = draw.rng.choice([0, 1, 3, 30])
        try:
            getattr(_native, name)(*ARGUMENTS[name](draw))
        except REFUSED:
            continue
        carried_out[name] += 1
    for name in names:
        sys.stdout.write(f"{name} {carried_out[name]}\n")


if __name__ == "__main__":
    main()
