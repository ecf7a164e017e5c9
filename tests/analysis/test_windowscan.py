from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import duckdb
import pytest

from perfmeasure.analysis import scan, source, windowscan
from perfmeasure.analysis.source import Kind
from perfmeasure.analysis.windowscan import ServiceCounted, WindowsCounted
from tests.analysis import window_files

if TYPE_CHECKING:
    from pathlib import Path

    from perfmeasure.analysis.source import Input

LAW = "a window whose packets are not accounted for"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "kernel" / "windows"
    window_files.write(made, 5, 6, 7, flows=2)
    return made


def scanned(path: Path) -> tuple[Input, list[object]]:
    [log] = source.find([path])
    return log, [fact for block in scan.facts(log, is_whole=False) for _, _, fact in block]


def of_kind(folder: Path, kind: str) -> Path:
    [path] = folder.glob(f"*.{kind}.parquet")
    return path


def rewrite(path: Path, query: str) -> None:
    """Put another table in a file's place."""
    other = path.with_name("other.parquet")
    duckdb.connect().execute(f"COPY ({query.format(path)}) TO '{other}' (FORMAT parquet)")
    other.rename(path)


def test_flows_are_summed_by_service(folder: Path) -> None:
    path = of_kind(folder, "windows")
    log, facts = scanned(path)
    to_it = {"packets": 12, "bytes": 1200, "segments": 12}
    from_it = {"packets": 18, "bytes": 1800, "segments": 18}
    none = dict.fromkeys(to_it, 0)
    assert facts == [
        ServiceCounted("egress", 6, "127.0.0.1", window_files.PROXY, to_it, none, 6),
        ServiceCounted("ingress", 6, "127.0.0.1", window_files.PROXY, none, from_it, 0),
    ]
    assert (log.kind, log.counts.lines, log.counts.used) == (Kind.WINDOWS, 12, 12)
    assert log.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert log.size_bytes == path.stat().st_size
    assert log.first_unix_ts == window_files.DAY + 5


def test_the_terms_of_the_law_are_summed(folder: Path) -> None:
    log, [fact] = scanned(of_kind(folder, "accounting"))
    assert isinstance(fact, WindowsCounted)
    assert fact[:5] == (1.0, 3, window_files.DAY + 5, window_files.DAY + 8, 12)
    assert fact.terms["seen_packets"] == 33
    assert fact.terms["drained_bytes"] == 3000
    assert fact.terms["unparsed_bytes"] == 180
    assert log.last_unix_ts == window_files.DAY + 8


def test_without_a_syn_the_lower_port_is_the_service(folder: Path) -> None:
    path = of_kind(folder, "windows")
    rewrite(path, "SELECT * REPLACE (0 AS connects) FROM '{}'")
    _, facts = scanned(path)
    assert {fact.port for fact in facts if isinstance(fact, ServiceCounted)} == {9050}
    # A SYN outweighs it.
    rewrite(path, "SELECT * REPLACE (if(dst_port > 9050, 1, 0) AS connects) FROM '{}'")
    _, facts = scanned(path)
    ports = {fact.port for fact in facts if isinstance(fact, ServiceCounted)}
    assert ports == {window_files.CLIENT, window_files.CLIENT + 1}


def test_a_row_that_cannot_be_is_rejected_and_the_rest_is_used(folder: Path) -> None:
    path = of_kind(folder, "accounting")
    rewrite(
        path,
        "SELECT * REPLACE (seen_bytes + (row_number() OVER () = 2)::INT AS seen_bytes) FROM '{}'",
    )
    log, [fact] = scanned(path)
    assert isinstance(fact, WindowsCounted)
    assert fact.window_count == 2
    assert (log.counts.lines, log.counts.used, log.counts.rejected) == (3, 2, {LAW: 1})
    assert log.counts.examples == [(2, LAW)]


@pytest.mark.parametrize("kind", ["windows", "accounting"])
def test_a_file_that_is_cut_or_damaged_is_counted(folder: Path, kind: str) -> None:
    path = of_kind(folder, kind)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1], b"PAR1", whole[:-12] + bytes(12)):
        path.write_bytes(damaged)
        log, facts = scanned(path)
        assert facts == []
        assert log.counts.rejected == {"not a whole Parquet file": 1}
        assert log.sha256 == hashlib.sha256(damaged).hexdigest()


def test_every_flipped_byte_gives_facts_or_a_count(folder: Path) -> None:
    path = of_kind(folder, "windows")
    whole = bytearray(path.read_bytes())
    for at in range(4, len(whole), 41):
        damaged = bytes(whole[:at]) + bytes([whole[at] ^ 0x55]) + bytes(whole[at + 1 :])
        path.write_bytes(damaged)
        log, _ = scanned(path)
        counts = log.counts
        assert counts.lines == counts.used + sum(counts.rejected.values())


def test_another_table_is_not_taken_for_windows(folder: Path) -> None:
    path = of_kind(folder, "windows")
    rewrite(path, "SELECT 1 AS one")
    log, facts = scanned(path)
    assert facts == []
    assert log.counts.rejected == {"neither flows nor accounting, by its columns": 1}


@pytest.mark.parametrize(
    ("name", "unix_ts"),
    [
        ("kernel/windows/perfmeasure_1970-01-01_00:01:00.500000.windows.parquet", 60.5),
        ("perfmeasure_1970-01-01_00:01:00.500000.accounting.parquet", 60.5),
        ("perfmeasure_1970-02-30_00:01:00.500000.windows.parquet", None),
        ("perfmeasure_1970-01-01.windows.parquet", None),
        ("flows.parquet", None),
    ],
)
def test_the_name_tells_the_time(name: str, unix_ts: float | None) -> None:
    assert windowscan.began(name) == unix_ts


def test_a_parquet_file_without_a_time_is_not_known(folder: Path) -> None:
    path = of_kind(folder, "windows")
    other = path.rename(path.with_name("flows.parquet"))
    [log] = source.find([other])
    assert log.kind is Kind.UNKNOWN
    assert log.looks_like == "a Parquet file without the time of its windows in its name"
