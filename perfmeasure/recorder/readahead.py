"""Records scattered over a file: have the kernel read them from disk at once, not in turn."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from perfmeasure.recorder.records import Array

_SAMPLES = 8
_JOINED_BYTES = 64 << 10
"""Places that are nearer than this are read in one go, with what is between them."""
_STEP_BYTES = 128 << 10
"""What the kernel reads ahead at least when it is asked to; of more it may leave out the rest."""


def read_ahead(path: Path, places: Array, length: int) -> None:
    """Have the kernel begin to read what it does not hold in memory yet.

    A page of a mapped file that is not in memory costs a wait for the disk, one after the other;
    this way the disk has all of them to do at once. Nothing is done where the pages that are looked
    at are in memory, which costs some ten microseconds.

    Args:
        path: the file. If it has been removed, nothing is done.
        places: offsets, ascending.
        length: how many bytes are wanted at each.
    """
    if len(places) < _SAMPLES:
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if _is_in_memory(fd, places):
            return
        begins = places.astype("i8")
        first = np.flatnonzero(np.diff(begins, prepend=-_JOINED_BYTES) >= _JOINED_BYTES)
        last = np.append(first[1:], len(begins)) - 1
        for begin, end in zip(begins[first].tolist(), begins[last].tolist(), strict=True):
            for at in range(begin, end + length, _STEP_BYTES):
                size = min(_STEP_BYTES, end + length - at)
                os.posix_fadvise(fd, at, size, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(fd)


def _is_in_memory(fd: int, places: Array) -> bool:
    """Return whether a sample of the pages is in memory, or the file system cannot tell."""
    sample = places[np.linspace(0, len(places) - 1, _SAMPLES).astype("i8")]
    byte = bytearray(1)
    try:
        for place in sample.tolist():
            os.preadv(fd, [byte], place, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
