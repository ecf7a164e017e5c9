"""One measurement to a data directory: a lock that names who holds it and ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from perfmeasure.errors import MeasurementError


@contextlib.contextmanager
def prefix_lock(
    prefix: Path, what: str = "measurement", option: str = "--prefix"
) -> Iterator[None]:
    """Hold the lock of the data directory ``prefix``, which is made if need be.

    Args:
        prefix: the directory.
        what: what runs in it, for the message to the one who finds it locked.
        option: how another directory is given.

    The lock is the kernel's (flock(2)), so a process that was killed leaves none behind.

    Raises:
        MeasurementError: another process holds it, or the folder cannot be written.
    """
    path = prefix / "perfmeasure.lock"
    try:
        prefix.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise MeasurementError(
            str(path),
            f"cannot be written ({error.strerror})",
            "a data directory of your own",
            f"give another with {option}",
        ) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            raise MeasurementError(
                str(prefix),
                f"another {what} runs here, pid {holder}",
                "one at a time",
                f"stop it (kill {holder}) or give another folder with {option}",
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)
