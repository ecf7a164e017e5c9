"""The scan of one log: its facts, and what became of its lines. It needs no other log.

The analysis has two stages. A scan turns a log into facts, which are few; the assembly (`tgen`,
`torctl`, `connections`, `windows`) takes the facts of one program's logs in the order of time. So
scans may run anywhere, in any order, and be kept (docs/adr/0007).
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from perfmeasure.analysis import factfile, windowscan
from perfmeasure.analysis.connectionscan import ConnectionScan
from perfmeasure.analysis.servicescan import ServiceScan
from perfmeasure.analysis.source import Counts, Input, Kind
from perfmeasure.analysis.tgenscan import TgenScan
from perfmeasure.analysis.torctlscan import TorctlScan
from perfmeasure.errors import PerfmeasureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perfmeasure.analysis.source import Fact


class FactsOf(Protocol):
    """Gives the facts of a log in blocks, and sets its counts by the end of them."""

    def __call__(self, log: Input, *, is_whole: bool) -> Iterator[list[Fact]]:
        """See `facts`."""


def facts(log: Input, *, is_whole: bool) -> Iterator[list[Fact]]:
    """Read a log and yield its facts in blocks; by the end its counts and last stamp are set.

    ``is_whole`` asks for a fact of each line that is used (`TgenScan` says when that matters).

    Raises:
        InputError: the file cannot be read any more.
    """
    log.counts = Counts()
    if log.kind is Kind.WINDOWS:
        yield from windowscan.facts(log)
        return
    # What cannot be read twice is read whole at once.
    is_whole = is_whole or log.path is None
    scan: TgenScan | TorctlScan | ConnectionScan | ServiceScan
    if log.kind is Kind.TGEN:
        scan = TgenScan(is_whole=is_whole)
    elif log.kind is Kind.TORCTL:
        scan = TorctlScan()
    elif log.kind is Kind.SERVICES:
        scan = ServiceScan()
    else:
        scan = ConnectionScan()
    for first, lines in log.batches():
        yield scan.batch(first, lines, log.counts)
    yield scan.end(log.counts)
    log.last_unix_ts = max(log.first_unix_ts, scan.last_ts)


class Task(NamedTuple):
    """A log to be scanned, by one whose facts have that version."""

    log: Input
    is_whole: bool = False
    version: int = factfile.VERSION


class Scanned(NamedTuple):
    """A scan to be kept: what it says of the log, and its facts as `factfile` writes them."""

    said: dict[str, Any]
    facts: bytes


def scanned(task: Task) -> Scanned:
    """Scan a log, anywhere.

    Raises:
        InputError: the file cannot be read any more.
        PerfmeasureError: another version than this one asks for the scan.
    """
    log = task.log
    if task.version != factfile.VERSION:
        raise PerfmeasureError(
            log.name,
            f"a worker that scans for version {factfile.VERSION} was asked for {task.version}",
            next_step="install the same perfmeasure on each worker",
        )
    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as folder:
        path = Path(folder, "facts.parquet")
        factfile.write(path, log.kind, facts(log, is_whole=task.is_whole))
        return Scanned(
            {
                "kind": str(log.kind),
                "is_whole": task.is_whole or log.path is None,
                "size_bytes": log.size_bytes,
                "sha256": log.sha256,
                "last_unix_ts": log.last_unix_ts,
                "counts": dataclasses.asdict(log.counts),
            },
            path.read_bytes(),
        )
