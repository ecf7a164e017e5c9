"""Where the packets of a measurement are, and why there are none, which a file there says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from perfmeasure import jsonio
from perfmeasure.errors import InputError
from perfmeasure.tor.onion import make_private

PACKETS = "packets"
"""The store of a measurement, in its data directory."""
_NAME = "absent.json"


def make_store(folder: Path) -> None:
    """Make the folder of a store, for nobody but whom the data directory belongs to.

    Raises:
        UsageError: it cannot be made.
    """
    if not folder.exists():
        make_private(folder)
        if os.geteuid() == 0:
            owner = folder.parent.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)


def note(folder: Path, reason: str) -> None:
    """Note why nothing is recorded from now on.

    Raises:
        UsageError: the folder cannot be made.
    """
    make_store(folder)
    line = {"unix_ts": round(time.time(), 6), "reason": reason}
    (folder / _NAME).write_bytes(f"{jsonio.compact(line)}\n".encode())


def clear(folder: Path) -> None:
    """Note that packets are recorded."""
    (folder / _NAME).unlink(missing_ok=True)


def reason(folder: Path) -> str | None:
    """Return why nothing is recorded; None if that was not noted.

    Raises:
        InputError: what was noted cannot be read.
    """
    path = folder / _NAME
    try:
        noted = jsonio.loads(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})") from error
    if not isinstance(noted, dict) or not isinstance(noted.get("reason"), str):
        raise InputError(str(path), "no reason in it", "what measure wrote")
    return str(noted["reason"])
