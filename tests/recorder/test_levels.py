from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.recorder.arrays import save
from perfmeasure.recorder.levels import Levels
from perfmeasure.recorder.records import MAPPED

COUNT = 600


def address4(number: int) -> bytes:
    return MAPPED + number.to_bytes(4, "big")


def address6(number: int) -> bytes:
    return b"\x20\x01" + bytes(10) + number.to_bytes(4, "big")


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Levels, dict[int, set[int]]]:
    """A tree over 600 segments, and the addresses in each."""
    rng = random.Random(1)
    held = {
        n: {rng.randrange(300) ** 2 for _ in range(rng.randrange(1, 8))} for n in range(1, COUNT)
    }
    for number, addresses in held.items():
        arrays = {
            "addresses4": np.array(sorted(a for a in addresses if a % 2), "u4"),
            "addresses6": np.array([address6(a) for a in sorted(addresses) if not a % 2], "S16"),
        }
        save(tmp_path / f"{number}.npz", arrays, {})

    def index_path(number: int) -> Path | None:
        path = tmp_path / f"{number}.npz"
        return path if path.exists() else None

    return Levels(tmp_path, index_path), held


def test_it_names_the_segments_that_hold_an_address(
    tree: tuple[Levels, dict[int, set[int]]],
) -> None:
    levels, held = tree
    everything = set(held)
    assert levels.holding(address4(1), address4(1), everything) == everything
    # 37 files of 16 segments, 2 of 256, none of 4096: segments 592 to 599 wait for theirs.
    assert levels.merge(everything, COUNT) == 37 + 2
    assert levels.merge(everything, COUNT) == 0
    assert levels.covered() == 592
    for value in [0, 1, 4, 9, 2, 299**2, 298**2]:
        end = (address4 if value % 2 else address6)(value)
        wanted = {n for n, addresses in held.items() if value in addresses or n >= 592}
        assert levels.holding(end, end, everything) == wanted
    low, high = address4(0), address4(10_000)
    wanted = {n for n, a in held.items() if n >= 592 or any(v % 2 and v <= 10_000 for v in a)}
    assert levels.holding(low, high, everything) == wanted
    assert levels.holding(low, high, {5, 300}) == wanted & {5, 300}
    assert levels.size_bytes() > 0


def test_files_go_with_the_last_segment_that_they_cover(
    tree: tuple[Levels, dict[int, set[int]]],
) -> None:
    levels, held = tree
    levels.merge(set(held), COUNT)
    kept = {n for n in held if n >= 300}
    levels.drop(kept)
    assert not levels.path(1, 17).exists()
    assert levels.path(1, 18).exists()
    assert not levels.path(2, 0).exists()
    assert levels.path(2, 1).exists()
    end = address4(9)
    wanted = {n for n in kept if 9 in held[n] or n >= 592}
    assert levels.holding(end, end, kept) == wanted


def test_a_damaged_file_only_costs_time(tree: tuple[Levels, dict[int, set[int]]]) -> None:
    levels, held = tree
    levels.merge(set(held), COUNT)
    levels.path(1, 3).write_bytes(b"damage")
    levels.path(2, 1).unlink()
    end = address4(9)
    found = levels.holding(end, end, set(held))
    wanted = {n for n in held if 9 in held[n] or n >= 592}
    assert wanted <= found <= wanted | set(range(48, 64))


def test_what_is_open_keeps_its_group_waiting(tree: tuple[Levels, dict[int, set[int]]]) -> None:
    levels, held = tree
    assert levels.merge(set(held) - {20}, 20) == 1
    assert levels.covered() == 16
