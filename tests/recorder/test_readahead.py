from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.recorder.readahead import read_ahead

PAGE = 4096


def is_in_memory(fd: int, place: int) -> bool:
    try:
        os.preadv(fd, [bytearray(1)], place, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("step_pages", [3, 1000])
def test_places_that_are_not_in_memory_are_fetched_together(
    step_pages: int, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    places = np.arange(0, 16 << 20, step_pages * PAGE, dtype="u4")[:200]
    with path.open("w+b") as file:
        file.truncate(int(places[-1]) + PAGE)
        for place in places.tolist():
            os.pwrite(file.fileno(), b"x" * PAGE, place)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            is_here = [is_in_memory(file.fileno(), place) for place in places.tolist()]
        except OSError as error:
            pytest.skip(f"the file system does not tell what is in memory: {error}")
        if all(is_here):
            pytest.skip("the file system keeps everything in memory")
        read_ahead(path, places, 16)
        until = time.monotonic() + 60
        while not all(is_in_memory(file.fileno(), place) for place in places.tolist()):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_file_that_is_gone_is_not_read(tmp_path: Path) -> None:
    read_ahead(tmp_path / "file", np.arange(100, dtype="u4"), 16)
