"""Finds the facts in one Parquet file of packets by windows (kernel/windows, docs/formats.md).

Of a file of flows the facts are sums by service, of one of accounting the sums of the terms; the
rows themselves stay where they are. Which of the two a file is, its columns tell.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from perfmeasure.analysis import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from perfmeasure.analysis.source import Fact, Input

TERMS = tuple(
    f"{term}_{unit}"
    for unit in ("packets", "bytes")
    for term in ("seen", "drained", "full", "late", "unparsed")
)
"""The terms of the conservation law (bpf/README.md), columns of the accounting."""

COUNTED = ("packets", "bytes", "segments")

_STAMP = re.compile(r"perfmeasure_(\d{4}-\d\d-\d\d_\d\d:\d\d:\d\d\.\d{6})\.")
_FLOW_COLUMNS = frozenset({
    "window_start_unix_ts", "window_seconds", "direction", "src_ip", "src_port", "dst_ip",
    "dst_port", "protocol", *COUNTED, "connects",
})  # fmt: skip
_ACCOUNTING_COLUMNS = frozenset({"window_start_unix_ts", "window_seconds", "flows", *TERMS})

_MOST = 1 << 50  # of one window; the sums of a file stay below 64 bits
_IS_A_TIME = "window_start_unix_ts BETWEEN 0 AND 1e10 AND window_seconds BETWEEN 1e-3 AND 3600"
_IS_A_FLOW = f"""
{_IS_A_TIME} AND direction IN ('ingress', 'egress')
AND regexp_full_match(src_ip, '[0-9a-f.:]{{2,45}}')
AND regexp_full_match(dst_ip, '[0-9a-f.:]{{2,45}}')
AND src_port BETWEEN 0 AND 65535 AND dst_port BETWEEN 0 AND 65535 AND protocol BETWEEN 0 AND 255
AND packets BETWEEN 1 AND {_MOST} AND bytes BETWEEN packets AND {_MOST}
AND segments BETWEEN packets AND {_MOST} AND connects BETWEEN 0 AND packets
"""
_IS_ACCOUNTED = f"""
{_IS_A_TIME} AND flows BETWEEN 0 AND {_MOST}
AND {" AND ".join(f"{term} BETWEEN 0 AND {_MOST}" for term in TERMS)}
AND seen_packets = drained_packets + full_packets + late_packets + unparsed_packets
AND seen_bytes = drained_bytes + full_bytes + late_bytes + unparsed_bytes
"""
# As `--key service` of perfmeasure flows: whoever was sent a SYN is the service; where none was
# seen in this file, it is the lower port.
_SERVICES = f"""
WITH told AS (SELECT * FROM rows WHERE {_IS_A_FLOW}),
known AS (SELECT DISTINCT protocol, dst_ip AS ip, dst_port AS port FROM told WHERE connects > 0),
judged AS (
    SELECT told.*, CASE
        WHEN d.ip IS NOT NULL THEN true
        WHEN s.ip IS NOT NULL THEN false
        ELSE dst_port <= src_port END AS is_to
    FROM told
    LEFT JOIN known d ON (d.protocol, d.ip, d.port) = (told.protocol, dst_ip, dst_port)
    LEFT JOIN known s ON (s.protocol, s.ip, s.port) = (told.protocol, src_ip, src_port)
)
SELECT direction, protocol, if(is_to, dst_ip, src_ip) AS ip, if(is_to, dst_port, src_port) AS port,
       {", ".join(f"sum(if(is_to, {n}, 0)), sum(if(is_to, 0, {n}))" for n in COUNTED)},
       sum(connects)
FROM judged GROUP BY ALL ORDER BY direction, protocol, ip, port
"""  # noqa: S608 - all of it is ours
_LENGTHS = f"""
SELECT window_seconds, count(*), min(window_start_unix_ts),
       max(window_start_unix_ts + window_seconds), sum(flows),
       {", ".join(f"sum({term})" for term in TERMS)}
FROM rows WHERE {_IS_ACCOUNTED} GROUP BY ALL ORDER BY window_seconds
"""  # noqa: S608 - the same


def began(name: str) -> float | None:
    """Return the time in the name of such a file (Unix seconds), None if there is none."""
    stamp = _STAMP.match(PurePosixPath(name).name)
    if stamp is None:
        return None
    try:
        return datetime.strptime(f"{stamp[1]}+0000", "%Y-%m-%d_%H:%M:%S.%f%z").timestamp()
    except ValueError:
        return None


class WindowsCounted(NamedTuple):
    """The windows of one length in one file, and the sums over them."""

    window_seconds: float
    window_count: int
    begin_ts: float
    end_ts: float
    flow_count: int
    terms: dict[str, int]


class ServiceCounted(NamedTuple):
    """What passed between one service and its clients in one direction, by one file."""

    direction: str
    protocol: int
    ip: str
    port: int
    to_service: dict[str, int]
    """`COUNTED` of the packets that were sent to it."""
    from_service: dict[str, int]
    connects: int


def facts(log: Input) -> Iterator[list[Fact]]:
    """Read a file and yield its facts; by the end its size, hash and counts of rows are set.

    Raises:
        InputError: the file cannot be read any more.
    """
    import duckdb  # noqa: PLC0415 - not every analysis needs it, and it takes long to import

    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as folder:
        path = Path(folder, "rows.parquet")
        _store(log, path)
        try:
            with sql.cursor() as cursor:
                found = _read(log, cursor, path)
        except duckdb.Error:
            _reject_whole(log, "not a whole Parquet file")
            found = []
    yield found
    ends = [fact.end_ts for _, _, fact in found if isinstance(fact, WindowsCounted)]
    log.last_unix_ts = max([log.first_unix_ts, *ends])


def _store(log: Input, path: Path) -> None:
    digest = hashlib.sha256()
    log.size_bytes = 0
    with path.open("wb") as file:
        for block in log.stored_blocks():
            file.write(block)
            digest.update(block)
            log.size_bytes += len(block)
    log.sha256 = digest.hexdigest()


def _read(log: Input, cursor: duckdb.DuckDBPyConnection, path: Path) -> list[Fact]:
    cursor.execute(
        "CREATE TEMP TABLE rows AS SELECT * FROM read_parquet(?, file_row_number = true)",
        [str(path)],
    )
    try:
        described = cursor.execute("DESCRIBE rows").fetchall()
        columns = {str(row[0]) for row in described}
        if columns >= _FLOW_COLUMNS:
            _count(log, cursor, _IS_A_FLOW, "a flow with values that cannot be")
            return _services(log, cursor)
        if columns >= _ACCOUNTING_COLUMNS:
            _count(log, cursor, _IS_ACCOUNTED, "a window whose packets are not accounted for")
            return _lengths(log, cursor)
    finally:
        cursor.execute("DROP TABLE rows")
    _reject_whole(log, "neither flows nor accounting, by its columns")
    return []


def _count(log: Input, cursor: duckdb.DuckDBPyConnection, wanted: str, otherwise: str) -> None:
    counts = log.counts
    (counts.lines,) = cursor.execute("SELECT count(*) FROM rows").fetchall()[0]
    wrong = cursor.execute(
        f"SELECT file_row_number + 1 FROM rows WHERE ({wanted}) IS NOT TRUE ORDER BY 1"  # noqa: S608 - ours
    ).fetchall()
    for (number,) in wrong:
        counts.reject(number, otherwise)
    counts.used = counts.lines - len(wrong)


def _reject_whole(log: Input, reason: str) -> None:
    log.counts.lines = 1  # so that the sums stay true: what is lost is at least one row
    log.counts.reject(1, reason)


def _services(log: Input, cursor: duckdb.DuckDBPyConnection) -> list[Fact]:
    found: list[Fact] = []
    for direction, protocol, ip, port, *sums, connects in cursor.execute(_SERVICES).fetchall():
        service = ServiceCounted(
            direction,
            int(protocol),
            ip,
            int(port),
            dict(zip(COUNTED, map(int, sums[::2]), strict=True)),
            dict(zip(COUNTED, map(int, sums[1::2]), strict=True)),
            int(connects),
        )
        found.append((0, log.first_unix_ts, service))
    return found


def _lengths(log: Input, cursor: duckdb.DuckDBPyConnection) -> list[Fact]:
    found: list[Fact] = []
    for seconds, count, begin, end, flows, *sums in cursor.execute(_LENGTHS).fetchall():
        terms = dict(zip(TERMS, map(int, sums), strict=True))
        counted = WindowsCounted(seconds, count, begin, round(end, 6), int(flows), terms)
        found.append((0, log.first_unix_ts, counted))
    return found
