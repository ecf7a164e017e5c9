"""Writes files into a docroot so that each appears whole or not at all.

Everything is written first, into a hidden folder of the docroot, and only when all of it is on the
disk is each file renamed to its place. A disk that is full therefore shows before anything has
changed, and a process that is killed leaves a hidden folder, which the next publication removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import os
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from perfmeasure.errors import MeasurementError
from perfmeasure.web.files import METRICS_NAME
from perfmeasure.web.index import FileRecord, sha256_of
from perfmeasure.web.listing import is_public

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FOLDER_PREFIX = ".publish-"
_LOCK_NAME = ".publisher.lock"
_LOCK_WAIT_SECONDS = 60.0
_LOCK_LOOK_SECONDS = 0.05
_GZIP_SUFFIXES = frozenset({".css", ".csv", ".html", ".js", ".json", ".svg", ".txt", ".xml"})
_GZIP_LEVEL = 6


@contextlib.contextmanager
def explained(docroot: Path) -> Iterator[None]:
    """Turn what the disk says into a `MeasurementError` that says what to do."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or docroot)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MeasurementError(
                str(docroot), f"no room to publish ({error.strerror})",
                "space for the new files beside the published ones",
                "free some space; what was published before is still there, unchanged",
            ) from error  # fmt: skip
        raise MeasurementError(
            where, f"cannot be published ({error.strerror})", "a docroot that this user can write",
            "check the owner and the mode of the folder and its files",
        ) from error  # fmt: skip


@contextlib.contextmanager
def locked(docroot: Path) -> Iterator[None]:
    """Hold the docroot for one publisher; another waits a minute at most.

    Raises:
        MeasurementError: another publisher did not end.
    """
    fd = os.open(docroot / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise MeasurementError(
                        str(docroot), "another publication has held the folder for a minute",
                        "one publication at a time", "see whether that one is stuck",
                    ) from error  # fmt: skip
                time.sleep(_LOCK_LOOK_SECONDS)
        yield
    finally:
        os.close(fd)


class Staging:
    """Files on their way into a docroot that the caller has locked.

    Args:
        docroot: where they go.
        published: what is there, by name; a file whose bytes are there already is left alone, so
            that its entity tag stays what it was.

    Attributes:
        records: the new files, by name, as they will be in the docroot.
        unchanged: names of files that were there already.
    """

    def __init__(self, docroot: Path, published: Mapping[str, FileRecord]) -> None:
        self._docroot = docroot
        self._published = published
        self._folder = docroot / f"{_FOLDER_PREFIX}{os.getpid()}"
        # One time for all, finer than the system's clock tick: a pair of a file and its
        # compressed sibling is known by it, and no other publication has the same.
        self._stamp_ns = time.time_ns()
        self.records: dict[str, FileRecord] = {}
        self.unchanged: list[str] = []

    def __enter__(self) -> Self:
        for leftover in self._docroot.glob(f"{_FOLDER_PREFIX}*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        self._folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, name: str, content: bytes | Path, *, may_pack: bool = True) -> None:
        """Write one file, and its compressed sibling if it is of a kind that shrinks.

        Args:
            name: its path from the docroot, with slashes; every part is public, or the file is
                one of the publisher's own hidden ones.
            content: its bytes, or a file to copy them from.
            may_pack: without it there is no sibling, as of a file that somebody else replaces.

        Raises:
            OSError: the disk is full or fails.
            ValueError: the name leads elsewhere.
        """
        is_hidden = name.startswith(".publisher") and "/" not in name
        if not (is_hidden or all(map(is_public, name.split("/")))):
            raise ValueError(f"{name!r} cannot be published")
        if (self._docroot / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        can_shrink = PurePosixPath(name).suffix in _GZIP_SUFFIXES or name == METRICS_NAME
        is_packed = may_pack and can_shrink and not is_hidden
        if self._is_published(name, content, is_packed=is_packed):
            self.unchanged.append(name)
            return
        if is_packed:
            plain = content if isinstance(content, bytes) else content.read_bytes()
            # The sibling first: it is renamed first, and without its file it is never served.
            self._write(name + ".gz", gzip.compress(plain, _GZIP_LEVEL, mtime=0))
            content = plain
        self._write(name, content)

    def commit(self) -> None:
        """Rename the files to their places, in the order in which they were added.

        Raises:
            OSError: a file cannot be replaced; those before it are.
        """
        folders = {self._docroot}
        for number, name in enumerate(self.records):
            target = self._docroot / name
            target.parent.mkdir(parents=True, exist_ok=True)
            folders.add(target.parent)
            (self._folder / str(number)).replace(target)
        for folder in sorted(folders):
            _sync_folder(folder)

    def _is_published(self, name: str, content: bytes | Path, *, is_packed: bool) -> bool:
        old = self._published.get(name)
        if old is None:
            return False
        if is_packed:
            sibling = self._published.get(name + ".gz")
            if sibling is None or sibling.modified_ns != old.modified_ns:
                return False
        if isinstance(content, bytes):
            return old.sha256 == hashlib.sha256(content).hexdigest()
        return old.size_bytes == content.stat().st_size and old.sha256 == sha256_of(content)

    def _write(self, name: str, content: bytes | Path) -> None:
        path = self._folder / str(len(self.records))
        with path.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
                sha256 = hashlib.sha256(content).hexdigest()
            else:
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                sha256 = sha256_of(path)
            file.flush()
            os.utime(file.fileno(), ns=(self._stamp_ns, self._stamp_ns))
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        self.records[name] = FileRecord(
            name, status.st_size, status.st_mtime_ns, status.st_ino, sha256
        )


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
