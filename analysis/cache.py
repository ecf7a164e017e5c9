"""Scans that are kept, each in a folder named by the SHA-256 of the log as it is stored.

``FOLDER/v1/ab/abcd…/`` has ``facts.parquet`` (`factfile`) and ``scan.json``: what the scan said of
the log, and the SHA-256 of the facts. ``v1`` is `factfile.VERSION`: a later perfmeasure that finds
more in a log scans anew, and leaves what is there to the earlier ones.
An entry is made under another name and renamed: it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure import jsonio
from perfmeasure.analysis.factfile import VERSION
from perfmeasure.errors import InputError, PerfmeasureError

if TYPE_CHECKING:
    from collections.abc import Callable

_FACTS = "facts.parquet"
_SCAN = "scan.json"


class Cache:
    """The kept scans of a folder, which is made if it is missing.

    Args:
        folder: where they are.
        warn: is told of entries that are damaged.

    Raises:
        PerfmeasureError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._top = folder / f"v{VERSION}"
        self._warn = warn
        try:
            self._top.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._top).close()
        except OSError as error:
            raise _unwritable(folder, error) from error

    def _entry(self, sha256: str) -> Path:
        return self._top / sha256[:2] / sha256

    def facts(self, sha256: str) -> Path:
        """Return the file of the facts of a log that is there."""
        return self._entry(sha256) / _FACTS

    def find(self, sha256: str) -> dict[str, Any] | None:
        """Return what the scan of a log said of it; None if it is not there, or damaged."""
        entry = self._entry(sha256)
        try:
            scan = jsonio.loads((entry / _SCAN).read_bytes(), str(entry))
            facts = (entry / _FACTS).read_bytes()
        except FileNotFoundError:
            if not entry.exists():
                return None
            self._warn(f"{entry}: incomplete; the log is scanned anew")
            return None
        except (OSError, InputError) as error:
            self._warn(f"{entry}: cannot be read ({error}); the log is scanned anew")
            return None
        if not _is_of(scan, sha256, facts):
            self._warn(f"{entry}: damaged; the log is scanned anew")
            return None
        found: dict[str, Any] = scan["scan"]
        return found

    def put(self, sha256: str, scan: dict[str, Any], facts: bytes) -> None:
        """Keep a scan, in the place of one of that log which is there.

        Raises:
            PerfmeasureError: it cannot be written; nothing is left behind.
        """
        entry = self._entry(sha256)
        record = {"facts_sha256": hashlib.sha256(facts).hexdigest(), "scan": scan}
        record["sha256"] = hashlib.sha256(jsonio.canonical([sha256, record])).hexdigest()
        try:
            entry.parent.mkdir(exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=".", dir=entry.parent))
            try:
                (unfinished / _FACTS).write_bytes(facts)
                (unfinished / _SCAN).write_bytes(jsonio.canonical(record))
                _replace(unfinished, entry)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        except OSError as error:
            raise _unwritable(entry, error) from error


def _is_of(record: object, sha256: str, facts: bytes) -> bool:
    """Whether a record is whole, of that log and of those facts."""
    if not isinstance(record, dict):
        return False
    said = record.pop("sha256", None)
    if said != hashlib.sha256(jsonio.canonical([sha256, record])).hexdigest():
        return False
    return bool(record["facts_sha256"] == hashlib.sha256(facts).hexdigest())


def _replace(new: Path, entry: Path) -> None:
    """Put a folder in the place of another, which may be there."""
    with contextlib.suppress(FileNotFoundError):
        old = Path(tempfile.mkdtemp(prefix=".", dir=entry.parent))
        try:
            entry.rename(old / "old")
        finally:
            shutil.rmtree(old, ignore_errors=True)
    try:
        os.rename(new, entry)  # noqa: PTH104 - Path.replace would say that any target will do
    except OSError:
        # Another analysis was faster, with the same scan of the same log.
        if not entry.exists():
            raise


def _unwritable(where: Path, error: OSError) -> PerfmeasureError:
    return PerfmeasureError(
        str(where),
        f"cannot be written ({error.strerror})",
        next_step="free some space, or name another folder with --cache",
    )
