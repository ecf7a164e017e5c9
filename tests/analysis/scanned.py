"""Lines through both stages of the analysis, without a file."""

from __future__ import annotations

from perfmeasure.analysis.source import Counts
from perfmeasure.analysis.tgen import TgenAssembly
from perfmeasure.analysis.tgenscan import TgenScan
from perfmeasure.analysis.torctl import TorctlAssembly
from perfmeasure.analysis.torctlscan import TorctlScan
from perfmeasure.analysis.torlog import TorLog
from perfmeasure.analysis.transfers import TgenLog


def tgen_lines(lines: list[bytes]) -> tuple[TgenLog, Counts]:
    """Return what the lines of a generator's log say; each of them is counted."""
    scan, assembly, counts = TgenScan(), TgenAssembly(), Counts(lines=len(lines))
    assembly.take([*scan.batch(1, lines, counts), *scan.end(counts)], counts.withdraw)
    assert balance(counts) == len(lines)
    return assembly.finish(scan.last_ts), counts


def torctl_lines(lines: list[bytes]) -> tuple[TorLog, Counts]:
    """Return what the lines of a control port's log say; each of them is counted."""
    scan, assembly, counts = TorctlScan(), TorctlAssembly(), Counts(lines=len(lines))
    assembly.take([*scan.batch(1, lines, counts), *scan.end(counts)])
    assert balance(counts) == len(lines)
    return assembly.log, counts


def balance(counts: Counts) -> int:
    """Return how many lines have been counted one way or another."""
    return counts.used + counts.skipped + sum(counts.rejected.values())
