"""Which two reports are of one connection: the caller's, and that of the end that accepted it.

Both name the same two ends, and overlap in time as far as the clocks of two machines agree. Of
several that could belong together (ports come again) those that began closest to one another do,
each with one other at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmeasure.analysis.endpoints import is_loopback, own_scope

if TYPE_CHECKING:
    import duckdb

SLACK_SECONDS = 2.0
"""How far the clocks of two machines may be apart."""
_REPORTS_AT_ONCE = 1_000_000

_IS_INSIDE = f"{is_loopback('local_ip')} OR {is_loopback('remote_ip')}"
# Ends of the same ports in one pass, so that what has to be in memory stays small.
_CANDIDATE = f"""
CREATE TEMP TABLE candidate AS
WITH accepted AS (
    SELECT row, instance_id, protocol, remote_ip AS caller_ip, remote_port AS caller_port,
           local_ip AS callee_ip, local_port AS callee_port, start_ts, end_ts,
           if({_IS_INSIDE}, {own_scope()}, '') AS scope
    FROM directed WHERE NOT is_caller AND remote_port % {{passes}} = {{number}}),
called AS (
    SELECT row, instance_id, protocol, local_ip AS caller_ip, local_port AS caller_port,
           remote_ip AS callee_ip, remote_port AS callee_port, start_ts, end_ts,
           if({_IS_INSIDE}, {own_scope()}, '') AS scope
    FROM directed WHERE is_caller AND local_port % {{passes}} = {{number}})
SELECT c.row AS caller, a.row AS callee, c.instance_id <> a.instance_id AS is_elsewhere,
       abs(c.start_ts - a.start_ts) AS apart_seconds
FROM called c JOIN accepted a
USING (scope, protocol, caller_ip, caller_port, callee_ip, callee_port)
WHERE c.start_ts <= a.end_ts + {SLACK_SECONDS} AND a.start_ts <= c.end_ts + {SLACK_SECONDS}
"""  # noqa: S608 - all of it is ours
_COUNTS = "SELECT count(*), count(DISTINCT caller), count(DISTINCT callee) FROM candidate"
_RANKED = """
CREATE OR REPLACE TEMP TABLE candidate AS
SELECT caller, callee,
       row_number() OVER (ORDER BY is_elsewhere, apart_seconds, caller, callee) AS place
FROM candidate
"""
# As if the best of all were taken again and again: nobody else could do better with these.
_BEST = """
CREATE TEMP TABLE best AS
WITH of_caller AS (SELECT min(place) AS place FROM candidate GROUP BY caller),
of_callee AS (SELECT min(place) AS place FROM candidate GROUP BY callee)
SELECT caller, callee
FROM candidate SEMI JOIN of_caller USING (place) SEMI JOIN of_callee USING (place)
"""
_REST = """
CREATE OR REPLACE TEMP TABLE candidate AS
SELECT * FROM candidate ANTI JOIN best USING (caller) ANTI JOIN best USING (callee)
"""


def make(cursor: duckdb.DuckDBPyConnection) -> None:
    """Make the table ``pair`` (``caller``, ``callee``: rows) of the reports in ``directed``."""
    cursor.execute("CREATE TEMP TABLE pair (caller BIGINT, callee BIGINT)")
    [(count,)] = cursor.execute("SELECT count(*) FROM directed WHERE NOT is_caller").fetchall()
    passes = -(-count // _REPORTS_AT_ONCE)
    for number in range(passes):
        cursor.execute(_CANDIDATE.format(passes=passes, number=number))
        [(pairs, callers, callees)] = cursor.execute(_COUNTS).fetchall()
        if pairs == callers == callees:  # nearly always: none could be of another pair
            cursor.execute("INSERT INTO pair SELECT caller, callee FROM candidate")
            cursor.execute("DROP TABLE candidate")
            continue
        cursor.execute(_RANKED)
        while cursor.execute("SELECT 1 FROM candidate LIMIT 1").fetchall():
            cursor.execute(_BEST)
            cursor.execute("INSERT INTO pair SELECT * FROM best")
            cursor.execute(_REST)
            cursor.execute("DROP TABLE best")
        cursor.execute("DROP TABLE candidate")
