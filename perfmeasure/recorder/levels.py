"""Which segments an address is in: a tree over the segments' own tables of addresses.

A file of level 1 covers 16 segments in a row, one of level n covers 16 files of level n - 1. It
holds each address in them with 16 bits that say in which. So an address costs a look into a file a
level, not one into every segment. The files are derived: one that is missing only makes queries
slower, and the writer makes it again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from perfmeasure.errors import InputError
from perfmeasure.recorder.arrays import Arrays, save
from perfmeasure.recorder.index import address_range
from perfmeasure.recorder.records import Array

_BITS = 4
_FAN = 1 << _BITS
_MAX_LEVEL = 7


class Levels:
    """The tree of the store in ``folder``.

    Args:
        index_path: returns where the index of a segment is, by its number; None if it is gone.
    """

    def __init__(self, folder: Path, index_path: Callable[[int], Path | None]) -> None:
        self._folder = folder / "levels"
        self._index_path = index_path
        self._cache: dict[tuple[int, int], Arrays | None] = {}

    def path(self, level: int, number: int) -> Path:
        """Return where a file of the tree is."""
        return self._folder / f"{level}-{number:08d}.npz"

    def _file(self, level: int, number: int) -> Arrays | None:
        key = (level, number)
        if self._cache.get(key) is None:
            path = self.path(level, number)
            try:
                self._cache[key] = Arrays(path) if path.exists() else None
            except InputError:
                self._cache[key] = None  # a damaged one is as good as none
        return self._cache[key]

    def holding(self, low: bytes, high: bytes, candidates: Iterable[int]) -> set[int]:
        """Return which of the segments may hold an address of the range (inclusive).

        Those that no file of the tree covers yet are all among them.
        """
        found = set(candidates)
        for level in sorted({int(path.name[0]) for path in self._files()}, reverse=True):
            by_file: dict[int, set[int]] = defaultdict(set)
            for number in found:
                by_file[number >> level * _BITS].add(number)
            for number, segments in by_file.items():
                arrays = self._file(level, number)
                if arrays is not None:
                    bits = _bits(arrays, low, high)
                    shift = (level - 1) * _BITS
                    found -= {s for s in segments if not bits >> (s >> shift) % _FAN & 1}
        return found

    def _files(self) -> list[Path]:
        return list(self._folder.glob("[1-9]-*.npz"))

    def covered(self) -> int:
        """Return the number above all segments that a file of the tree covers."""
        ends = [int(path.stem[2:]) + 1 << int(path.name[0]) * _BITS for path in self._files()]
        return max(ends, default=0)

    def merge(self, closed: set[int], first_open: int) -> int:
        """Make the files that can be made and are not there; return how many.

        Args:
            closed: the numbers of the segments that are complete.
            first_open: every segment below this number is complete or gone for good.
        """
        made = 0
        below = {number: self._index_path(number) for number in sorted(closed)}
        groups = {number: path for number, path in below.items() if path is not None}
        for level in range(1, _MAX_LEVEL + 1):
            parents: dict[int, dict[int, Path]] = defaultdict(dict)
            for number, path in groups.items():
                if ((number >> _BITS) + 1) << level * _BITS <= first_open:
                    parents[number >> _BITS][number % _FAN] = path
            groups = {}
            for number, children in parents.items():
                path = self.path(level, number)
                if not path.exists():
                    self._make(path, children)
                    made += 1
                groups[number] = path
        return made

    def _make(self, path: Path, children: dict[int, Path]) -> None:
        path.parent.mkdir(exist_ok=True)
        merged: dict[str, Array] = {}
        files = {child: Arrays(place) for child, place in children.items()}
        for family in ("4", "6"):
            lists = [arrays[f"addresses{family}"] for arrays in files.values()]
            bits = [
                np.full(len(a), 1 << child, "u2") for child, a in zip(files, lists, strict=True)
            ]
            addresses, which = np.unique(np.concatenate(lists), return_inverse=True)
            merged[f"addresses{family}"] = addresses
            merged[f"bits{family}"] = np.zeros(len(addresses), "u2")
            np.bitwise_or.at(merged[f"bits{family}"], which, np.concatenate(bits))
        save(path, merged, {"version": 1})

    def drop(self, kept: set[int]) -> None:
        """Remove the files that cover none of the segments that are kept."""
        covering = {(level, n >> level * _BITS) for n in kept for level in range(1, _MAX_LEVEL + 1)}
        for path in self._files():
            level, number = int(path.name[0]), int(path.stem[2:])
            if (level, number) not in covering:
                path.unlink()
                self._cache.pop((level, number), None)

    def size_bytes(self) -> int:
        """Return what the files take on disk."""
        return sum(path.stat().st_size for path in self._files())


def _bits(arrays: Arrays, low: bytes, high: bytes) -> int:
    first, below = address_range(arrays, low, high)
    base = len(arrays["bits4"])
    bits4, bits6 = (
        arrays["bits4"][first:below],
        arrays["bits6"][max(0, first - base) : below - base],
    )
    bits = bits4 if first < base else bits6
    return int(np.bitwise_or.reduce(bits)) if len(bits) else 0
