"""Who calls whom: connections of all instances, joined with what listens on each of them.

Input are the tables of `services.TABLES`, output is one row for each edge, and what became of every
byte. A connection is counted once, however many of its ends told of it. It is *matched* if both of
its ends are services that are known, *external* if one of them is on no machine that is known,
*ambiguous* if several services could have answered, and *unattributed* if it is not known whose it
was on a machine that is.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from perfmeasure.analysis import endpoints, pairs
from perfmeasure.analysis.endpoints import (
    REST_OF_LOOPBACK,
    is_loopback,
    own_scope,
    unmapped,
)
from perfmeasure.errors import PerfmeasureError

if TYPE_CHECKING:
    import duckdb

CATEGORIES = ("matched", "external", "ambiguous", "unattributed")
_NEVER = 1e11
_MEMORY = "160MB"  # of DuckDB; with what it does not count, and Python, less than 250 MB

_REPORT = f"""
CREATE TEMP VIEW report AS
SELECT file_row_number AS row, instance_id, netns, service, pid, side, protocol,
       {unmapped("src_ip")} AS local_ip, src_port AS local_port,
       {unmapped("dst_ip")} AS remote_ip, dst_port AS remote_port,
       start_unix_ts AS start_ts, coalesce(end_unix_ts, {_NEVER}) AS end_ts, source,
       coalesce(bytes_sent, 0) AS sent, coalesce(bytes_received, 0) AS received,
       bytes_sent + bytes_received AS known_bytes
FROM read_parquet({{path}}, file_row_number = true)
"""  # noqa: S608 - all of it is ours
_DIRECTED = """
CREATE TEMP VIEW directed AS
SELECT report.*, {is_caller} AS is_caller, false AS is_inferred FROM report
"""
# Who listens is called, and who does not know is called by the higher port.
_JUDGED = """
CREATE TEMP TABLE judged AS
SELECT row, if(here.id IS NULL, there.id IS NOT NULL OR local_port >= remote_port, false)
            AS is_caller,
       here.id IS NULL AND there.id IS NULL AS is_inferred
FROM (SELECT *, {here}, {there} FROM report WHERE side NOT IN ('active', 'passive')) r
LEFT JOIN endpoint here ON {at_here}
LEFT JOIN endpoint there ON {at_there}
"""
_DIRECTED_BY_JUDGEMENT = """
CREATE TEMP VIEW directed AS
SELECT report.*, coalesce(judged.is_caller, side = 'active') AS is_caller,
       coalesce(judged.is_inferred, false) AS is_inferred
FROM report LEFT JOIN judged USING (row)
"""
_ALL_REPORTED = f"""
CREATE TEMP VIEW reported AS
SELECT *, sent AS bytes_sent, received AS bytes_received, true AS is_whole,
       if(end_ts < {_NEVER}, end_ts, start_ts) AS last_ts
FROM directed
"""  # noqa: S608 - the same
# What is open goes on to the last moment that is known.
_REPORTED_IN_WINDOW = """
CREATE TEMP VIEW reported AS
SELECT * EXCLUDE (share), share = 1 AS is_whole,
       round(sent * share)::BIGINT AS bytes_sent, round(received * share)::BIGINT AS bytes_received
FROM (SELECT *, greatest(start_ts, least(end_ts, {last_ts})) AS last_ts,
             if(start_ts >= {begin} AND last_ts <= {end}, 1,
                (least(last_ts, {end}) - greatest(start_ts, {begin})) / (last_ts - start_ts))
             AS share
      FROM directed
      WHERE start_ts < {end} AND (start_ts >= {begin} OR last_ts > {begin}))
"""
# What accepted a connection says so itself: it is believed before what is known of its port.
_ACCEPTORS = """
CREATE TEMP TABLE acceptor AS
SELECT (SELECT coalesce(max(id), 0) FROM endpoint) + row_number() OVER () AS id, *
FROM (SELECT DISTINCT instance_id, service, {pid} AS pid, protocol, local_port AS port
      FROM directed SEMI JOIN pair ON row = callee WHERE service IS NOT NULL)
"""
_NEW_ENDPOINTS = """
INSERT INTO endpoint BY NAME SELECT * REPLACE (id::INTEGER AS id) FROM acceptor
"""
_PAIR_ENDPOINTS = """
CREATE TEMP TABLE accepted AS
SELECT caller, callee, a.id::INTEGER AS id
FROM directed d JOIN pair ON d.row = callee
LEFT JOIN acceptor a ON a.instance_id = d.instance_id AND a.service = d.service
     AND a.pid IS NOT DISTINCT FROM {pid} AND a.protocol = d.protocol AND a.port = d.local_port
"""
_SUMS = """
source, count(*) AS connections, sum(bytes_sent) AS bytes_sent,
sum(bytes_received) AS bytes_received, count(*) - count(known_bytes) AS without_bytes_connections,
min(start_ts) AS first_unix_ts, max(last_ts) AS last_unix_ts
"""
_CALLS = f"""
SELECT false AS is_heard, r.instance_id, r.service, {{pid}} AS pid, {{id}} AS endpoint,
       if({{id}} IS NULL, remote_ip, NULL) AS peer_ip, r.protocol, remote_port AS port,
       is_inferred, {{estimated}} AS estimated_bytes, {{bucket}} AS bucket,
       {_SUMS}
FROM (SELECT *, {{there}} FROM {{rows}} WHERE is_caller) r
LEFT JOIN endpoint e ON {{at_there}} {{accepted}}
GROUP BY ALL
"""  # noqa: S608 - the same
_HEARD = f"""
SELECT true AS is_heard, r.instance_id, r.service, {{pid}} AS pid,
       if(r.service IS NULL, e.id, NULL) AS endpoint, remote_ip AS peer_ip, r.protocol,
       local_port AS port, is_inferred, {{estimated}} AS estimated_bytes, {{bucket}} AS bucket,
       {_SUMS}
FROM (SELECT * REPLACE (bytes_received AS bytes_sent, bytes_sent AS bytes_received), {{here}}
      FROM {{rows}} WHERE NOT is_caller) r
LEFT JOIN endpoint e ON {{at_here}}
GROUP BY ALL
"""  # noqa: S608 - the same
_EDGE = f"""
CREATE TEMP VIEW {{name}} AS
SELECT f.* EXCLUDE (endpoint), e.instance_id AS callee_instance, e.service AS callee_service,
       e.pid AS callee_pid, e.scope, e.ip, e.candidates,
       if({is_loopback("peer_ip")}, f.instance_id, m.instance_id) AS peer_instance,
       CASE WHEN e.candidates IS NOT NULL AND (is_heard OR f.service IS NOT NULL) THEN 'ambiguous'
            WHEN NOT is_heard AND f.service IS NULL THEN 'unattributed'
            WHEN NOT is_heard AND f.endpoint IS NULL THEN 'external'
            WHEN NOT is_heard THEN 'matched'
            WHEN f.service IS NULL AND e.id IS NULL OR peer_instance IS NOT NULL THEN 'unattributed'
            ELSE 'external' END AS category
FROM read_parquet({{path}}) f LEFT JOIN endpoint e ON e.id = f.endpoint
LEFT JOIN machine m ON m.ip = f.peer_ip
"""  # noqa: S608 - the same
_MACHINE = f"""
CREATE TEMP TABLE machine AS
SELECT {unmapped("ip")} AS ip, min(instance_id) AS instance_id FROM addresses
GROUP BY 1 HAVING min(instance_id) = max(instance_id)
"""  # noqa: S608 - the same


class Window(NamedTuple):
    """A time from (inclusive) and to (exclusive), Unix seconds."""

    start_unix_ts: float
    end_unix_ts: float


@contextlib.contextmanager
def join(
    folder: Path, *, is_by_process: bool = False, window: Window | float | None = None
) -> Iterator[Joined]:
    """Join the tables in a folder (``NAME.parquet`` of `services.TABLES`).

    Args:
        folder: where they are.
        is_by_process: tell the processes of a service apart.
        window: count what was sent in that time, or in so many last seconds. What a connection
            sent before and after it is taken for spread evenly over its life.

    Raises:
        PerfmeasureError: the terms do not add up to the input: a defect.
    """
    import duckdb  # noqa: PLC0415 - as in `sql`

    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        # A database of its own, so that its limit is its own, too.
        config: dict[str, Any] = {"threads": 1, "memory_limit": _MEMORY, "temp_directory": place}
        cursor = duckdb.connect(config=config)
        try:
            cursor.execute("SET preserve_insertion_order = false")
            # The right side of each join here is the small one. Guesses of how many reports a
            # condition leaves are wrong by much, and then all of them would be in memory.
            cursor.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
            yield Joined(cursor, folder, Path(place), window, is_by_process=is_by_process)
        finally:
            cursor.close()


class Joined:
    """The outcome of a join, as long as its ``cursor`` lives.

    Its view ``edge`` has a row for each reporting service and the other end. ``window`` is what
    was asked for, else from the first to the last moment of a connection; None if there is none.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        folder: Path,
        place: Path,
        window: Window | float | None,
        *,
        is_by_process: bool,
    ) -> None:
        self.cursor = cursor
        self._place = place
        self._pid = "pid" if is_by_process else "NULL::BIGINT"
        for name in ("listeners", "addresses"):
            path = _literal(str(folder / f"{name}.parquet"))
            cursor.execute(f"CREATE TEMP VIEW {name} AS FROM read_parquet({path})")
        path = _literal(str(folder / "connections.parquet"))
        cursor.execute(_REPORT.format(path=path))
        endpoints.make(cursor)
        cursor.execute(_MACHINE)
        self._has_callees = has_callees = self._direct()
        last = None
        if window is not None:
            [(last,)] = cursor.execute(
                f"SELECT max(if(end_ts < {_NEVER}, end_ts, start_ts)) FROM report"  # noqa: S608 - ours
            ).fetchall()
            if isinstance(window, float):
                window = None if last is None else Window(last - window, last)
        self._is_cut = window is not None
        if has_callees:
            pairs.make(cursor)
            cursor.execute(_ACCEPTORS.format(pid=self._pid))
            cursor.execute(_NEW_ENDPOINTS)
            pid = "d.pid" if self._pid == "pid" else self._pid
            cursor.execute(_PAIR_ENDPOINTS.format(pid=pid))
        cursor.execute(_reported(window, last))
        once = "ANTI JOIN pair ON row = callee" if has_callees else ""
        cursor.execute(f"CREATE TEMP VIEW counted AS SELECT * FROM reported {once}")  # noqa: S608 - ours
        # What is told by a caller is always counted.
        self.add_edges("edge", calls="reported", heard="counted", bucket="0")
        if window is None:
            [(first, last)] = cursor.execute(
                "SELECT min(first_unix_ts), max(last_unix_ts) FROM edge"
            ).fetchall()
            window = None if first is None else Window(first, last)
        self.window = window
        self.coverage = self._coverage(has_pairs=has_callees)

    def add_edges(self, name: str, *, calls: str, heard: str, bucket: str) -> None:
        """Make a view of the edges of callers in ``calls`` and of who was called in ``heard``.

        Both are views with the columns of ``reported``.

        Its column ``bucket`` tells rows apart that the SQL ``bucket`` has another value for.
        """
        # One after the other: together they would need twice the memory.
        paths = []
        for number, query in enumerate(self._aggregates(calls, heard, bucket)):
            paths.append(_literal(str(self._place / f"{name}.{number}.parquet")))
            self.cursor.execute(f"COPY ({query}) TO {paths[-1]}")
        self.cursor.execute(_EDGE.format(name=name, path=f"[{', '.join(paths)}]"))

    def _aggregates(self, calls: str, heard: str, bucket: str) -> list[str]:
        """Return the queries of edges, by who told of them."""
        there, at_there = self._looked_up("remote", "there_scope", "there_ip", "e")
        said = {
            "pid": "r.pid" if self._pid == "pid" else self._pid,
            "estimated": "sum(if(is_whole, 0, bytes_sent + bytes_received))"
            if self._is_cut
            else "0",
            "bucket": bucket,
        }
        accepted, endpoint = "", "e.id"
        if self._has_callees:
            accepted, endpoint = "LEFT JOIN accepted a ON a.caller = r.row", "coalesce(a.id, e.id)"
        query = _CALLS.format(
            **said, rows=calls, id=endpoint, there=there, at_there=at_there, accepted=accepted
        )
        if not self._has_callees:
            return [query]
        here, at_here = self._looked_up("local", "here_scope", "here_ip", "e")
        return [query, _HEARD.format(**said, rows=heard, here=here, at_here=at_here)]

    def _direct(self) -> bool:
        """Make ``directed``: who called in each report. Return whether any is of who was called."""
        sides = {
            side for (side,) in self.cursor.execute("SELECT DISTINCT side FROM report").fetchall()
        }
        if sides <= {"active", "passive"}:
            is_caller = "side = 'active'" if "passive" in sides else "true"
            self.cursor.execute(_DIRECTED.format(is_caller=is_caller))
            return "passive" in sides
        here, at_here = self._looked_up("local", "here_scope", "here_ip", "here")
        there, at_there = self._looked_up("remote", "there_scope", "there_ip", "there")
        self.cursor.execute(
            _JUDGED.format(here=here, there=there, at_here=at_here, at_there=at_there)
        )
        self.cursor.execute(_DIRECTED_BY_JUDGEMENT)
        return True

    def _looked_up(self, end: str, scope: str, ip: str, table: str) -> tuple[str, str]:
        """Return what to select of an end of a report, and how it finds its endpoint by that."""
        address = f"{end}_ip"
        loopback = is_loopback(address)
        bound = self.cursor.execute(
            "SELECT DISTINCT ip FROM endpoint WHERE starts_with(ip, '127.')"
        ).fetchall()
        known = sorted({"127.0.0.1", *(ip for (ip,) in bound)} - {REST_OF_LOOPBACK})
        others = "".join(f" AND {address} <> {_literal(ip)}" for ip in known)
        elsewhere = "''"
        if self.cursor.execute("SELECT 1 FROM repeated LIMIT 1").fetchall():
            elsewhere = (
                f"if(instance_id || ' ' || {address} IN "  # noqa: S608 - ours
                "(SELECT instance_id || ' ' || ip FROM repeated), instance_id, '')"
            )
        selected = (
            f"if({loopback}, {own_scope()}, {elsewhere}) AS {scope}, "
            f"if(starts_with({address}, '127.'){others}, '{REST_OF_LOOPBACK}', {address}) AS {ip}"
        )
        return selected, (
            f"{table}.ip = {ip} AND {table}.port = {end}_port AND {table}.protocol = r.protocol "
            f"AND {table}.scope = {scope} "
            f"AND r.start_ts >= {table}.begin_ts AND r.start_ts < {table}.end_ts"
        )

    def _coverage(self, *, has_pairs: bool) -> dict[str, Any]:
        """Count each term for itself, and see that together they are what was reported."""
        total = "SELECT count(*), coalesce(sum(bytes_sent + bytes_received), 0) FROM"
        found = {"input": self._counts(f"{total} counted")}
        whole: dict[str, tuple[str, ...]] = {"input": CATEGORIES}
        if has_pairs:
            found["reported"] = self._counts(f"{total} reported")
            found["paired"] = self._counts(f"{total} reported SEMI JOIN pair ON row = callee")
            whole["reported"] = ("input", "paired")
        terms = "coalesce(sum({0}) FILTER (category = '{1}'), 0)"
        both = ("connections", "bytes_sent + bytes_received")
        each = [terms.format(what, category) for category in CATEGORIES for what in both]
        counts = self.cursor.execute(f"SELECT {', '.join(each)} FROM edge").fetchall()[0]  # noqa: S608 - ours
        for number, category in enumerate(CATEGORIES):
            found[category] = (int(counts[2 * number]), int(counts[2 * number + 1]))
        for name, parts in whole.items():
            for number, unit in enumerate(("connections", "bytes")):
                of_parts = {part: found[part][number] for part in parts}
                if found[name][number] != sum(of_parts.values()):
                    raise PerfmeasureError(
                        "topology",
                        f"{found[name][number]} {unit} of the {name} are not the sum of {of_parts}",
                        next_step="report it, please: nothing of this result can be trusted",
                    )
        found.setdefault("paired", (0, 0))
        found.setdefault("reported", found["input"])
        coverage: dict[str, Any] = {}
        for name, counts in found.items():
            coverage[f"{name}_connections"], coverage[f"{name}_bytes"] = counts
        coverage |= share(coverage)
        sums = {
            "polled_connections": "if(source = 'polling', connections, 0)",
            "without_bytes_connections": "without_bytes_connections",
            "estimated_bytes": "estimated_bytes",
        }
        query = ", ".join(f"coalesce(sum({what}), 0)" for what in sums.values())
        [counted] = self.cursor.execute(f"SELECT {query} FROM edge").fetchall()  # noqa: S608 - ours
        return {**coverage, **dict(zip(sums, map(int, counted), strict=True))}

    def _counts(self, query: str) -> tuple[int, int]:
        [(connections, size)] = self.cursor.execute(query).fetchall()
        return int(connections), int(size)


def share(coverage: Mapping[str, Any]) -> dict[str, float]:
    """Return which share of the input is attributed; of nothing there is none."""
    shares = {}
    for unit in ("connections", "bytes"):
        if total := coverage[f"input_{unit}"]:
            attributed = coverage[f"matched_{unit}"] + coverage[f"external_{unit}"]
            shares[f"share_{unit}"] = attributed / total
    return shares


def _reported(window: Window | None, last_ts: float | None) -> str:
    """Return the SQL of what of the reports counts in a window."""
    if window is None or last_ts is None:
        return _ALL_REPORTED
    begin, end = window
    return _REPORTED_IN_WINDOW.format(begin=begin, end=end, last_ts=last_ts)


def _literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
