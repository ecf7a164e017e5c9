"""The scans of many logs: made by workers, kept in a cache, handed to the assembly one by one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perfmeasure.analysis import factfile, scan, source
from perfmeasure.analysis.cache import Cache
from perfmeasure.analysis.cluster import Cluster
from perfmeasure.analysis.scan import FactsOf, Task
from perfmeasure.analysis.source import Counts, Input
from perfmeasure.analysis.workers import Here, Processes

if TYPE_CHECKING:
    from perfmeasure.analysis.scan import Scanned
    from perfmeasure.analysis.source import Fact
    from perfmeasure.analysis.workers import Workers

LEAST_BYTES_FOR_PROCESSES = 32_000_000
"""From how many stored bytes on several processes are worth their start, by measurement."""

Prepare = Callable[[Sequence[Input]], FactsOf]
"""Is told the logs that will be read, and gives what reads each."""


class Scans:
    """Scans logs with workers into a cache, from where `facts` reads them.

    Args:
        cache: where scans are kept.
        workers: those who scan.
        is_lasting: whether the cache may hold scans of an earlier run.
    """

    def __init__(self, cache: Cache, workers: Workers, *, is_lasting: bool) -> None:
        self._cache = cache
        self._workers = workers
        self._is_lasting = is_lasting

    def make(self, logs: Sequence[Input]) -> int:
        """Scan the logs that are not in the cache, and return how many these were.

        Raises:
            InputError: a file cannot be read any more.
            PerfmeasureError: the cache cannot be written, or workers are killed again and again.
        """
        missing = self._missing(logs) if self._is_lasting else list(logs)
        for log in missing:
            if log.path is None:  # standard input, which no other process has
                self._keep(log, scan.scanned(Task(log)))
        files = [log for log in missing if log.path is not None]
        tasks = [Task(log) for log in files]
        names = [log.name for log in files]
        for index, scanned in self._workers.run(scan.scanned, tasks, names):
            self._keep(files[index], scanned)
        return len(missing)

    def _missing(self, logs: Sequence[Input]) -> list[Input]:
        """Return the logs without a scan; one of several with the same content.

        Each is read and hashed as it is stored, without being unpacked. Names, sizes and times
        would be quicker to look at, and wrong where a file is replaced by another one.
        """
        files = [log for log in logs if log.path is not None]
        names = [log.name for log in files]
        missing = [log for log in logs if log.path is None]
        of_content: dict[str, list[Input]] = {}
        for index, sha256 in self._workers.run(source.sha256_of, files, names):
            files[index].sha256 = sha256
            of_content.setdefault(sha256, []).append(files[index])
        missing += [same[0] for sha, same in of_content.items() if self._cache.find(sha) is None]
        return missing

    def _keep(self, log: Input, scanned: Scanned) -> None:
        log.sha256 = scanned.said["sha256"]
        self._cache.put(log.sha256, scanned.said, scanned.facts)

    def facts(self, log: Input, *, is_whole: bool) -> Iterator[list[Fact]]:
        """Yield the facts of a log that `make` was given, as `scan.facts` does."""
        said = self._cache.find(log.sha256)
        if said is None or (is_whole and not said["is_whole"]):
            scanned = scan.scanned(Task(log, is_whole))
            said = scanned.said
            self._keep(log, scanned)
        counts = dict(said["counts"])
        counts["examples"] = [(number, why) for number, why in counts["examples"]]
        log.counts = Counts(**counts)
        log.size_bytes = said["size_bytes"]
        log.last_unix_ts = said["last_unix_ts"]
        yield from factfile.read(self._cache.facts(log.sha256), log.kind)


def live(logs: Sequence[Input]) -> FactsOf:
    """Prepare nothing: each log is scanned when its facts are taken, and nothing is stored."""
    del logs
    return scan.facts


@contextlib.contextmanager
def prepared(
    *,
    processes: int | None,
    scheduler: str | None,
    cache: Path | None,
    say: Callable[[str], None],
    is_read_again: bool = False,
) -> Iterator[Prepare]:
    """Give what prepares the logs of an analysis, for the time of a ``with`` block.

    Args:
        processes: how many scan; None: one for each core if that is worth it.
        scheduler: the address of a Dask scheduler, whose workers scan instead.
        cache: a folder where scans are kept for another time.
        say: is told how many were scanned, and what was damaged.
        is_read_again: whether facts will be asked for more than once.

    Raises:
        MissingError, PerfmeasureError: as `Cluster` and `Cache`.
    """
    with contextlib.ExitStack() as stack:

        def prepare(logs: Sequence[Input]) -> FactsOf:
            count = processes or _worthwhile(logs)
            workers: Workers = Here()
            if scheduler:
                workers = stack.enter_context(Cluster(scheduler))
            elif count > 1:
                workers = stack.enter_context(Processes(count))
            elif cache is None and not is_read_again:
                return live(logs)
            folder = cache or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="perfmeasure-"))
            )
            scans = Scans(Cache(folder, say), workers, is_lasting=cache is not None)
            scanned = scans.make(logs)
            if cache is not None:
                say(f"{scanned} logs scanned, {len(logs) - scanned} taken from {cache}")
            return scans.facts

        yield prepare


def _worthwhile(logs: Sequence[Input]) -> int:
    """Return how many processes to take for logs, by their number and size where that is known."""
    size = 0
    for log in logs:
        if isinstance(log.path, Path):
            with contextlib.suppress(OSError):  # which will be said when it is read
                size += log.path.stat().st_size
    if size < LEAST_BYTES_FOR_PROCESSES:
        return 1
    return min(len(os.sched_getaffinity(0)), len(logs))
