"""An append-only log of whole lines that rotates by the date of what is written into it.

A log is one file, ``tgen-client/perfmeasure.tgen.log`` say. Time is cut into periods counted from
midnight UTC (a day by default); a file only ever holds the entries of one period. The first entry
of another period renames the file to::

    ARCHIVE/YYYY-MM-DD/tgen-client/perfmeasure_YYYY-MM-DD_HH:MM:SS.tgen.log

(the last second of the period; ``perfmeasure_DATE.connections.log`` for ``connections.log``) and
opens a new one. One rename is all that the writer does, so
that nothing can be lost half-way and a reader sees only finished archives; ``compress_archive``
makes ``.gz`` of them later, elsewhere. What was written stays written: a process that is killed
leaves whole lines, and a cut last line (power failure) is ended when the log is opened again.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import time
from pathlib import Path

from perfmeasure.errors import MeasurementError
from perfmeasure.units import utc_date

DAY_SECONDS = 86400
_HEAD_BYTES = 65536
_JSON_STAMP = re.compile(rb'\{.*?"unix_ts":([0-9.]+)')
_YEAR_10000_UNIX_TS = 253_402_300_800


class LogFile:
    """One live log and its rotation into an archive.

    Args:
        path: the live file; its folder is made.
        archive: the ``log_archive`` folder; without it the log never rotates.
        rotate_every_seconds: length of a period, 1 to 86400. The last period of a day is cut at
            midnight UTC, so that no file spans two dates.
        rotate_at_bytes: a file that has grown to this size rotates as well; None is never.

    Raises:
        MeasurementError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        archive: Path | None = None,
        rotate_every_seconds: int = DAY_SECONDS,
        rotate_at_bytes: int | None = None,
    ) -> None:
        self.path = path
        self._most_bytes = rotate_at_bytes
        self._archive = archive
        self._every = rotate_every_seconds
        self._fd = -1
        self._size = 0
        self._period_start: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._period_start = self._period_of_existing()
            self._open()
        except OSError as error:
            raise MeasurementError(
                str(path), f"cannot be written ({error.strerror})", "a writable log",
                "check the folder's owner and the disk",
            ) from error  # fmt: skip

    def write(self, entry: bytes, unix_ts: float) -> None:
        """Append one entry: one or more whole lines that belong to the time ``unix_ts``.

        An entry of another period than the file's, be it earlier (it was held up on its way, or
        the clock was set back), rotates first: a file never mixes periods.

        Raises:
            OSError: the disk is full or fails; nothing of the entry is in the file then.
        """
        self.turn_to(unix_ts)
        self._append(entry)

    def turn_to(self, unix_ts: float) -> None:
        """Rotate if an entry of the time ``unix_ts`` belongs in another file."""
        period = self._period(unix_ts)
        if self._period_start is None:
            self._period_start = period
        elif period != self._period_start or (self._most_bytes and self._size >= self._most_bytes):
            # A line in the wrong file is better than none; rotate_if_due tells of the failure.
            with contextlib.suppress(OSError):
                self._rotate()
                self._period_start = period

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in the file."""
        return self._size == 0

    def rotate_if_due(self, now: float) -> None:
        """Rotate a log that nothing is written to, when ``now`` (Unix time) is past its period.

        Raises:
            OSError: the archive cannot be written; the log goes on as it was.
        """
        if self._period_start is not None and self._period(now) > self._period_start:
            self._rotate()

    def close(self) -> None:
        """Close the file; the log can be opened again by another ``LogFile``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._fd).st_size

    def _append(self, entry: bytes) -> None:
        view = memoryview(entry)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            # A line is in the log whole or not at all. /dev/full and its like cannot be truncated.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(entry)

    def _period(self, unix_ts: float) -> int:
        """Return the Unix time at which the period of ``unix_ts`` starts."""
        seconds = int(unix_ts)
        midnight = seconds - seconds % DAY_SECONDS
        return midnight + (seconds - midnight) // self._every * self._every

    def _period_of_existing(self) -> int | None:
        """Mend the file that an earlier process left, and return the period it holds."""
        try:
            with self.path.open("rb+") as file:
                head = file.read(_HEAD_BYTES)
                if not head:
                    return None
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
        except FileNotFoundError:
            return None
        for line in head.splitlines():
            if (unix_ts := stamp_of(line)) is not None:
                return self._period(unix_ts)
        return self._period(self.path.stat().st_mtime)

    def _rotate(self) -> None:
        if self._archive is None or self._period_start is None:
            return
        if self._size:
            archived, old_fd = self._archive_path(self._period_start), self._fd
            self.path.rename(archived)
            try:
                self._open()
            except OSError:
                archived.rename(self.path)
                raise
            os.close(old_fd)
        self._period_start = None

    def _archive_path(self, period: int) -> Path:
        """Return the name of a new archive of ``period``, in a folder that exists."""
        assert self._archive is not None  # noqa: S101 - for the type checker; callers made sure
        end = min(period + self._every, period - period % DAY_SECONDS + DAY_SECONDS) - 1
        folder = self._archive / utc_date(period) / self.path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        stem, _, rest = self.path.name.partition(".")
        if "." not in rest:  # a name without the program's
            stem, rest = "perfmeasure", self.path.name
        stamp = time.strftime("%Y-%m-%d_%H:%M:%S", time.gmtime(end))
        copy = 1
        while True:
            number = "" if copy == 1 else f".{copy}"
            target = folder / f"{stem}_{stamp}{number}.{rest}"
            if not target.exists() and not target.with_name(target.name + ".gz").exists():
                return target
            copy += 1


def stamp_of(line: bytes) -> float | None:
    """Return the Unix time of a log line; None if there is no possible one.

    It is the third column, or in a line of JSON what ``"unix_ts"`` says.
    """
    json = _JSON_STAMP.match(line)
    try:
        unix_ts = float(json[1] if json else line.split(b" ", 3)[2])
    except (IndexError, ValueError):
        return None
    return unix_ts if 0 <= unix_ts < _YEAR_10000_UNIX_TS else None


def compress_archive(archive: Path) -> list[Path]:
    """Make ``.gz`` of every finished log in ``archive`` that is not compressed yet.

    gzip, because the field's other tools read only that in an archive. A compressed log appears
    whole or not at all; one that a killed process left beside its original is made again.

    Returns:
        The compressed files, sorted.

    Raises:
        OSError: the disk is full or fails; the original is still there.
    """
    made = []
    for original in sorted(archive.glob("*/*/*.log")):
        target = original.with_name(original.name + ".gz")
        partial = original.with_name(f".{target.name}")
        try:
            with original.open("rb") as source, partial.open("wb") as sink:
                with gzip.GzipFile(original.name, "wb", 6, sink, mtime=0) as packed:
                    shutil.copyfileobj(source, packed, 1 << 20)
                sink.flush()
                os.fsync(sink.fileno())
            partial.rename(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        original.unlink()
        made.append(target)
    return made
