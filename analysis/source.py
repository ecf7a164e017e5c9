"""Opens logs: finds them in folders, undoes their compression, recognises their kind, cuts lines.

Shapes::

    find(paths)      -> [Input]   one per log file, in a fixed order; only their heads are read
    Input.batches()  -> [(number of the first line, [line, …])]   bytes, without the line feed

Memory is bounded: a file is read in blocks, decompressed output is asked for in blocks, and a
line longer than `LONGEST_LINE_BYTES` is counted as rejected instead of being collected.
"""

from __future__ import annotations

import bisect
import dataclasses
import enum
import hashlib
import os
import re
import stat
import sys
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, TYPE_CHECKING, NamedTuple

from perfmeasure.analysis import unknown, windowscan
from perfmeasure.analysis.compression import BLOCK_BYTES, plain_blocks
from perfmeasure.analysis.remote import RemotePath
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST_LINE_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_EXAMPLES = 5

# Folders of a measurement that hold no logs, or logs of others.
_FOLDERS_PASSED_OVER = frozenset({"docroot", "htdocs", "private", "testnet", "packets", "levels"})
_LOG_NAME = re.compile(
    r".*(?:tgen|torctl|connections|services)\.log.*|perfmeasure_.*\.(?:windows|accounting)\.parquet"
)
_ROLES = frozenset({"kernel", "services"})  # and those of `_SIDE_NAME`
_COMPRESSED = re.compile(r"(.+)\.(?:gz|xz|zst)\Z")
_SIDE_NAME = re.compile(r"(?:tgen|tor)-(client|server)")

_STAMP = rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\d{9,10}\.(?:\d{6}|\d\d)) "
STAMP = re.compile(_STAMP)
"""The first three columns of every log line that we know; group 1 is the Unix time.

It has 2 or 6 decimals, so that one that is missing shows, and 9 digits before them in simulations,
which begin in the year 2000.
"""
_TGEN_LINE = re.compile(_STAMP + rb"\[(?:message|info|debug|warning|error|critical)\] \[")
_TORCTL_LINE = re.compile(
    _STAMP
    + rb"(?:650[ +-]|Starting torctl |NOTICE BOOTSTRAP |\[(?:WARNING|GAP|LOST|CLOCK|RELAY)\] )"
)
_UNIX_TS = rb'","unix_ts":(\d{9,10}\.\d{1,9})[,}]'
_CONNECTIONS_LINE = re.compile(
    rb'\{"record":"(?:connection|start(?=".{1,60}"perfmeasure-connections"))' + _UNIX_TS
)
_SERVICES_LINE = re.compile(
    rb'\{"record":"(?:instance|service|service_connection|network_traffic|relay'
    rb'|start(?=".{1,60}"perfmeasure-services"))' + _UNIX_TS
)
_LINE_OF_EITHER = re.compile(rb'\{"record":"(?:clock|lost|absent|stop)' + _UNIX_TS)


Fact = tuple[int, float, NamedTuple]
"""What a line says, or several: number of the line, its stamp (Unix seconds), and the content.

Number 0 stands for the log as a whole.
"""


class Kind(enum.StrEnum):
    """What a log is, by its content."""

    TGEN = "tgen"
    TORCTL = "torctl"
    CONNECTIONS = "connections"
    SERVICES = "services"
    WINDOWS = "windows"
    EMPTY = "empty"
    UNKNOWN = "unknown"


_FIRST_LINES = {
    Kind.TGEN: _TGEN_LINE,
    Kind.TORCTL: _TORCTL_LINE,
    Kind.CONNECTIONS: _CONNECTIONS_LINE,
    Kind.SERVICES: _SERVICES_LINE,
}
LOGS = frozenset({*_FIRST_LINES, Kind.WINDOWS})
"""The kinds that the analysis can use."""


@dataclasses.dataclass
class Counts:
    """What became of the lines of one input: ``used + skipped + sum(rejected) == lines``.

    ``used`` told us something; ``skipped`` were understood and are not needed; ``rejected`` could
    not be used, by reason. ``examples`` are the first few of those: (line number, reason).
    """

    lines: int = 0
    used: int = 0
    skipped: int = 0
    rejected: dict[str, int] = dataclasses.field(default_factory=dict)
    examples: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def reject(self, line_number: int, reason: str) -> None:
        """Count one line that cannot be used."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        # By line, whatever order they come in: some are found only with the other logs.
        if len(self.examples) < _EXAMPLES or line_number < self.examples[-1][0]:
            bisect.insort(self.examples, (line_number, reason))
            del self.examples[_EXAMPLES:]

    def withdraw(self, line_number: int, reason: str) -> None:
        """Count a line that was counted as used as one that cannot be used."""
        self.used -= 1
        self.reject(line_number, reason)


@dataclasses.dataclass
class Input:
    """One log. ``path`` None is standard input; ``name`` is how messages and the database call it.

    ``side`` is what its folder or name says (``client``, ``server`` or nothing), ``root`` the
    measurement it belongs to. ``size_bytes`` and ``sha256`` are of the bytes as stored, known
    after `batches` has ended.
    """

    path: Path | RemotePath | None
    name: str
    root: str
    side: str
    kind: Kind = Kind.UNKNOWN
    looks_like: str = ""
    first_unix_ts: float = 0.0
    last_unix_ts: float = 0.0
    counts: Counts = dataclasses.field(default_factory=Counts)
    size_bytes: int = 0
    sha256: str = ""
    _head: bytes = b""  # what was read of standard input to recognise it

    def batches(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the lines in batches, each with the number of its first line (from 1).

        A last line without an end is passed on too. Lines are counted here; what the caller does
        with each it counts in ``counts``. Compressed data that ends early gives what was whole and
        counts one rejection.

        Raises:
            InputError: the file cannot be read any more.
        """
        counts = self.counts
        rest = b""
        is_too_long = False
        for block in self._blocks():
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if is_too_long and lines:  # the end of a line that was given up
                counts.lines += 1
                counts.reject(counts.lines, "line is longer than 1 MiB")
                del lines[0]
                is_too_long = False
            if len(rest) > LONGEST_LINE_BYTES or is_too_long:
                rest, is_too_long = b"", True
            if lines:
                first = counts.lines + 1
                counts.lines += len(lines)
                yield first, lines
        if is_too_long:
            counts.lines += 1
            counts.reject(counts.lines, "line is longer than 1 MiB")
        elif rest:
            counts.lines += 1
            yield counts.lines, [rest]

    def _blocks(self) -> Iterator[bytes]:
        digest = hashlib.sha256()
        self.size_bytes = 0

        def stored() -> Iterator[bytes]:
            for block in self.stored_blocks():
                self.size_bytes += len(block)
                digest.update(block)
                yield block

        yield from plain_blocks(stored(), self._cut_short)
        self.sha256 = digest.hexdigest()

    def stored_blocks(self) -> Iterator[bytes]:
        """Yield the file as it is stored, compressed or not.

        Raises:
            InputError: it cannot be read any more.
        """
        try:
            with self._open() as file:
                block = self._head or file.read(BLOCK_BYTES)
                while block:
                    yield block
                    block = file.read(BLOCK_BYTES)
        except OSError as error:
            raise _unreadable(self.name, error) from error

    def _cut_short(self, reason: str) -> None:
        self.counts.lines += 1  # so that the sums stay true: what is lost is at least one line
        self.counts.reject(self.counts.lines, reason)

    def _open(self) -> IO[bytes]:
        if self.path is None:
            return sys.stdin.buffer
        return self.path.open("rb", buffering=0)

    def recognise(self) -> None:
        """Set ``kind`` (and ``looks_like`` when it is none of ours) and ``first_unix_ts``.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            if self.path is None:
                self._head = stored = sys.stdin.buffer.read(_HEAD_BYTES)
            elif isinstance(self.path, Path) and (what := _no_plain_file(self.path)):
                self.looks_like = what
                return
            else:
                with self._open() as file:
                    stored = file.read(_HEAD_BYTES)
        except OSError as error:
            raise _unreadable(self.name, error) from error
        if stored.startswith(b"PAR1") and (began := windowscan.began(self.name)) is not None:
            self.kind = Kind.WINDOWS
            self.first_unix_ts = self.last_unix_ts = began
            return
        head = next(plain_blocks(iter([stored]), lambda _: None), b"")[:_HEAD_BYTES]
        first = None
        for line in head.split(b"\n"):
            first = first or _LINE_OF_EITHER.match(line)
            for kind, pattern in _FIRST_LINES.items():
                if stamp := pattern.match(line):
                    self.kind = kind
                    self.first_unix_ts = self.last_unix_ts = float((first or stamp)[1])
                    return
        if first:  # nothing in it tells which of the two it is, and nothing depends on it
            self.kind = Kind.CONNECTIONS
            self.first_unix_ts = self.last_unix_ts = float(first[1])
            return
        self.kind = Kind.UNKNOWN if stored else Kind.EMPTY
        self.looks_like = unknown.looks_like(stored, head)


def sha256_of(log: Input) -> str:
    """Return the SHA-256 of a log as it is stored.

    Raises:
        InputError: the file cannot be read any more.
    """
    digest = hashlib.sha256()
    for block in log.stored_blocks():
        digest.update(block)
    return digest.hexdigest()


def _no_plain_file(path: Path) -> str:
    """Say what a path is that would have us wait, or read without end; nothing of a plain file."""
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        return "a pipe, which can be read only once (standard input is read as -)"
    return "" if stat.S_ISREG(mode) else "a device or a socket"


def last_stamp(lines: list[bytes], otherwise: float) -> float:
    """Return the stamp (Unix seconds) of the last line that has one."""
    for line in reversed(lines):
        if stamp := STAMP.match(line):
            return float(stamp[1])
    return otherwise


def find(paths: Iterable[Path | RemotePath]) -> list[Input]:
    """Return the logs in ``paths`` (files, folders, ``-`` for standard input), recognised.

    A folder is walked for names that contain ``tgen.log``, ``torctl.log``, ``connections.log`` or
    ``services.log``, and for the Parquet files of windows.
    The order is by time of the first line, then by name and place, whatever the order of the
    arguments.

    Raises:
        InputError: a path does not exist or cannot be read.
    """
    found: dict[str, Input] = {}
    for path in paths:
        try:
            for log in _logs_of(path):
                key = "-" if log.path is None else str(log.path.resolve())
                if key not in found:
                    log.recognise()
                    found[key] = log
        except OSError as error:
            raise _unreadable(str(path), error) from error
    ordered = sorted(found.items(), key=lambda item: (item[1].first_unix_ts, item[1].name, item[0]))
    return [log for _, log in ordered]


def _unreadable(name: str, error: OSError) -> InputError:
    why = error.strerror or error
    return InputError(name, f"cannot be read ({why})", "a log or a folder of logs")


def _logs_of(path: Path | RemotePath) -> Iterator[Input]:
    if str(path) == "-":
        yield Input(None, "standard input", "", "")
        return
    inside = path.inside if isinstance(path, RemotePath) else path
    try:
        is_folder = path.is_dir() if isinstance(path, RemotePath) else _is_folder(path)
    except FileNotFoundError:
        raise InputError(str(path), "does not exist", "a log or a folder of logs") from None
    except OSError as error:
        raise _unreadable(str(path), error) from error
    if not is_folder:
        if isinstance(path, RemotePath) and not path.exists():
            raise InputError(str(path), "does not exist", "a log or a folder of logs")
        yield Input(path, inside.name, "", _side_of(inside.parent.name + "/" + inside.name))
        return
    # A folder of one of the roles stands for itself, not for the measurement above it.
    top = path.inside if isinstance(path, RemotePath) else path.resolve()
    store = str(path).partition("://")[0] + ":" if isinstance(path, RemotePath) else ""
    for folder, folders, names in path.walk() if isinstance(path, RemotePath) else _walk(path):
        is_tor_data = "state" in names and "lock" in names  # OnionPerf keeps its logs there too
        folders[:] = sorted(
            name
            for name in folders
            if name not in _FOLDERS_PASSED_OVER and (name == "log_archive" or not is_tor_data)
        )
        for name in sorted(names):
            plain = _COMPRESSED.match(name)
            if not _LOG_NAME.match(name) or (plain and plain[1] in names):
                continue
            whole = top / folder / name
            root = _root_of(whole.parent)
            # The same name whether the measurement's folder was given or one inside it.
            relative = whole.relative_to(root if top.is_relative_to(root) else top).as_posix()
            yield Input(
                path / folder / name,
                relative,
                f"{store}{root}",
                _side_of(f"{top.name}/{relative}"),
            )


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.stat().st_mode)


def _walk(top: Path) -> Iterator[tuple[PurePosixPath, list[str], list[str]]]:
    for folder, folders, names in os.walk(top, onerror=_stop_walking):
        yield PurePosixPath(Path(folder).relative_to(top)), folders, names


def _stop_walking(error: OSError) -> None:
    raise _unreadable(str(error.filename), error) from error


def _side_of(name: str) -> str:
    match = None
    for match in _SIDE_NAME.finditer(name):  # noqa: B007 - the last one counts
        pass
    return match[1] if match else ""


def _root_of(folder: PurePath) -> PurePath:
    """Return the measurement's folder: above the roles' folders and the archive."""
    if folder.parts[-2:] == ("kernel", "windows"):
        folder = folder.parent
    for parent in (folder, *folder.parents):
        is_a_role = _SIDE_NAME.search(parent.name) or (parent == folder and folder.name in _ROLES)
        if "log_archive" not in parent.parts and not is_a_role:
            return parent
    return folder
