"""Who listens at an address and port at a time: the listeners of all instances, resolved.

One row of the table ``endpoint`` is a place (scope, protocol, address, port) for a while, with the
one service that answers there, or with the candidates if several do. For a place and a moment there
is one row at most, so that a join with it never counts anything twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

SLACK_SECONDS = 2.0
"""How much earlier than it was noticed, or later, a listener may have been there.

What looks for listeners sees a new one some time after its first connection, and the clocks of two
machines differ. Where another listener was there meanwhile, it is the one.
"""
REST_OF_LOOPBACK = "127.0.0.0"
"""Stands for all of 127/8 to which nobody is bound: there, who is bound to no address answers."""
_NEVER = 1e11  # Unix seconds; what has no end ends then


def unmapped(column: str) -> str:
    """Return the SQL of an address without its mapping of IPv4 into IPv6."""
    return (
        f"if(starts_with({column}, '::ffff:') AND contains({column}, '.'), {column}[8:], {column})"
    )


def is_loopback(column: str) -> str:
    """Return the SQL that says whether an address is one of loopback."""
    return f"(starts_with({column}, '127.') OR {column} = '::1')"


def own_scope(prefix: str = "") -> str:
    """Return the SQL of the scope in which the addresses of loopback mean something."""
    return f"{prefix}instance_id || '/' || {prefix}netns"


_LISTENING = f"""
CREATE TEMP TABLE listening AS
WITH listener AS (
    SELECT instance_id, netns, service, pid, protocol, {unmapped("listen_ip")} AS listen_ip,
           listen_port AS port, coalesce(is_v6only, false) AS is_v6only,
           valid_from_unix_ts AS begin_ts, coalesce(valid_to_unix_ts, {_NEVER}) AS end_ts
    FROM listeners),
loopback AS (
    SELECT unnest(['127.0.0.1', '::1', '{REST_OF_LOOPBACK}']) AS ip
    UNION SELECT listen_ip FROM listener WHERE {is_loopback("listen_ip")}),
place AS (
    SELECT DISTINCT instance_id, netns, ip
    FROM (SELECT instance_id, netns, {unmapped("ip")} AS ip FROM addresses)
    WHERE NOT {is_loopback("ip")}
    UNION ALL
    SELECT DISTINCT instance_id, netns, ip FROM listener, loopback
    WHERE listen_ip IN ('0.0.0.0', '::')),
-- Of several that could answer, the kernel takes the one that was bound most closely.
expanded AS (
    SELECT l.*, l.listen_ip AS ip, 0 AS rank FROM listener l
    WHERE listen_ip NOT IN ('0.0.0.0', '::')
    UNION ALL
    SELECT l.*, p.ip, if(listen_ip = '::' AND NOT contains(p.ip, ':'), 2, 1) AS rank
    FROM listener l JOIN place p USING (instance_id, netns)
    WHERE if(contains(p.ip, ':'), listen_ip = '::',
             listen_ip = '0.0.0.0' OR (listen_ip = '::' AND NOT is_v6only)))
SELECT if({is_loopback("ip")}, {own_scope()}, '') AS scope, protocol, ip, port,
       instance_id, service, pid, rank, begin_ts, end_ts
FROM expanded WHERE begin_ts < end_ts
"""  # noqa: S608 - all of it is ours
# An address that several instances have, as those of containers: for each of them its own counts.
_REPEATED = f"""
CREATE TEMP TABLE repeated AS
WITH known AS (
    SELECT DISTINCT instance_id, {unmapped("ip")} AS ip FROM addresses
    UNION SELECT DISTINCT instance_id, ip FROM listening WHERE scope = '')
SELECT instance_id, ip FROM known WHERE NOT {is_loopback("ip")}
QUALIFY count(*) OVER (PARTITION BY ip) > 1
"""  # noqa: S608 - the same
_REPEATED_ONCE_MORE = """
INSERT INTO listening
SELECT l.instance_id AS scope, l.* EXCLUDE (scope)
FROM listening l JOIN repeated r USING (instance_id, ip) WHERE l.scope = ''
"""
_PLACE = "scope, protocol, ip, port"
_BUSY = f"""
CREATE TEMP TABLE busy AS SELECT {_PLACE} FROM listening GROUP BY ALL HAVING count(*) > 1
"""  # noqa: S608 - the same
_ENDPOINT = f"""
CREATE TEMP TABLE endpoint AS
WITH several AS (SELECT * FROM listening SEMI JOIN busy USING ({_PLACE})),
mark AS (
    SELECT {_PLACE}, begin_ts AS mark_ts FROM several
    UNION SELECT {_PLACE}, end_ts FROM several),
span AS (
    SELECT {_PLACE}, mark_ts AS begin_ts,
           lead(mark_ts) OVER (PARTITION BY {_PLACE} ORDER BY mark_ts) AS end_ts
    FROM mark),
there AS (
    SELECT {_PLACE}, s.begin_ts, s.end_ts, l.instance_id, l.service, l.pid, l.rank
    FROM span s JOIN several l USING ({_PLACE})
    WHERE l.begin_ts <= s.begin_ts AND l.end_ts >= s.end_ts
    QUALIFY rank = min(rank) OVER (PARTITION BY {_PLACE}, s.begin_ts)),
resolved AS (
    SELECT {_PLACE}, begin_ts, end_ts,
           min((instance_id, service)) AS one, max((instance_id, service)) AS other,
           if(min(pid) = max(pid), min(pid), NULL) AS pid,
           list_sort(list(DISTINCT instance_id || '/' || service)) AS candidates
    FROM there GROUP BY {_PLACE}, begin_ts, end_ts),
earlier AS (
    SELECT * REPLACE (greatest(
        begin_ts - {SLACK_SECONDS},
        coalesce(lag(end_ts) OVER (PARTITION BY {_PLACE} ORDER BY begin_ts), 0)) AS begin_ts)
    FROM resolved),
later AS (
    SELECT * REPLACE (least(
        end_ts + {SLACK_SECONDS},
        coalesce(lead(begin_ts) OVER (PARTITION BY {_PLACE} ORDER BY begin_ts), {_NEVER})
        ) AS end_ts)
    FROM earlier),
every AS (
    SELECT {_PLACE}, begin_ts - {SLACK_SECONDS} AS begin_ts, end_ts + {SLACK_SECONDS} AS end_ts,
           instance_id, service, pid, NULL::VARCHAR[] AS candidates
    FROM listening ANTI JOIN busy USING ({_PLACE})
    UNION ALL
    SELECT {_PLACE}, begin_ts, end_ts, if(one = other, one[1], NULL), if(one = other, one[2], NULL),
           pid, if(one = other, NULL, candidates)
    FROM later)
SELECT row_number() OVER ()::INTEGER AS id, * FROM every
"""  # noqa: S608 - the same


def make(cursor: duckdb.DuckDBPyConnection) -> None:
    """Make the tables ``endpoint`` and ``repeated`` of the tables ``listeners`` and ``addresses``.

    ``repeated`` has the addresses that several instances have, and these.
    """
    cursor.execute(_LISTENING)
    cursor.execute(_REPEATED)
    cursor.execute(_REPEATED_ONCE_MORE)
    cursor.execute(_BUSY)
    cursor.execute(_ENDPOINT)
    cursor.execute("DROP TABLE busy")
    cursor.execute("DROP TABLE listening")
