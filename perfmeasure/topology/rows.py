"""Makes the rows of a topology of its time series: what `series` does, the other way round.

A connection's row has the time of the sample in which it was counted, which is when it ended; how
much each of those that one sample counted has sent is not known, so the first of them has it all.
What listened is taken to have listened until another service did in its place: what was connected
to it may have ended later.
"""

# ruff: noqa: S608 - what is put into queries is this package's own names

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perfmeasure.topology import families
from perfmeasure.topology.families import Group

if TYPE_CHECKING:
    import duckdb

_GAP_MS = 300_000
"""A series without a sample for longer has ended; both servers see it so."""

_SERIES = """
CREATE OR REPLACE TEMP TABLE told AS
SELECT metric['__name__'] AS family, metric, timestamps, "values"
FROM read_json(?, format = 'newline_delimited', columns = {
    metric: 'MAP(VARCHAR, VARCHAR)', timestamps: 'BIGINT[]', "values": 'DOUBLE[]'})
"""
# What the instance told last; a service or a connection that is in it goes on.
_LAST_TOLD = """
CREATE OR REPLACE TEMP TABLE last_told AS
SELECT metric['instance_id'] AS instance_id, max(list_max(timestamps)) AS last_ms
FROM told WHERE family IN ('instance_address', 'services', 'local_services') GROUP BY 1
"""
# The labels of a group once, the samples by their number: other labels, of who scraped, are gone.
_KEYS = """
CREATE OR REPLACE TEMP TABLE of_group AS
SELECT family, timestamps, "values", {labels} FROM told WHERE family IN ({families});
CREATE OR REPLACE TEMP TABLE key AS
SELECT row_number() OVER () AS id, * FROM (SELECT DISTINCT {names} FROM of_group);
CREATE OR REPLACE TEMP VIEW sample AS
SELECT id, family, unnest(timestamps) AS at_ms, unnest("values") AS value
FROM of_group JOIN key USING ({names})
"""
_LISTENING = f"""
CREATE OR REPLACE TEMP TABLE {{name}}_told AS
WITH told AS (
    SELECT DISTINCT id, at_ms FROM sample WHERE value IS NOT NULL
), marked AS (
    SELECT *, coalesce(at_ms - lag(at_ms) OVER (PARTITION BY id ORDER BY at_ms) > {_GAP_MS},
        true) AS is_first
    FROM told
), numbered AS (
    SELECT *, sum(is_first::INT) OVER (PARTITION BY id ORDER BY at_ms) AS number FROM marked
), lasted AS (
    SELECT id, min(at_ms) AS from_ms, max(at_ms) AS to_ms FROM numbered GROUP BY id, number
)
SELECT * FROM lasted JOIN key USING (id)
"""
_LISTENERS = """
CREATE OR REPLACE TEMP TABLE listeners AS
WITH found AS (
    SELECT instance_id, 0 AS netns, name AS service, protocol, instance_ip AS listen_ip,
        listen_port, from_ms, to_ms FROM services_told
    UNION ALL
    SELECT instance_id, TRY_CAST(netns AS BIGINT), name, protocol, listen_ip, listen_port, from_ms,
        to_ms FROM local_services_told
), followed AS (
    SELECT f.*, min(n.from_ms) AS next_ms FROM found AS f LEFT JOIN found AS n
        ON n.instance_id = f.instance_id AND n.netns = f.netns AND n.protocol = f.protocol
        AND n.listen_ip = f.listen_ip AND n.listen_port = f.listen_port
        AND n.service <> f.service AND n.from_ms > f.to_ms
    GROUP BY ALL
)
SELECT instance_id, netns::BIGINT AS netns, service, protocol, listen_ip,
    TRY_CAST(listen_port AS INTEGER) AS listen_port, false AS is_v6only, NULL::BIGINT AS pid,
    from_ms / 1000 AS valid_from_unix_ts, next_ms / 1000 AS valid_to_unix_ts
FROM followed WHERE TRY_CAST(listen_port AS INTEGER) IS NOT NULL AND netns IS NOT NULL
"""
_ADDRESSES = """
CREATE OR REPLACE TEMP TABLE addresses AS
SELECT DISTINCT metric['instance_id'] AS instance_id, 0::BIGINT AS netns,
    metric['instance_ip'] AS ip
FROM told WHERE family = 'instance_address'
"""
_GREW = """
WITH stood AS (
    SELECT id, at_ms, {totals} FROM sample WHERE value IS NOT NULL GROUP BY id, at_ms
), grown AS (
    SELECT id, at_ms, {growths} FROM stood WINDOW before AS (PARTITION BY id ORDER BY at_ms)
)
SELECT * FROM grown JOIN key USING (id)
WHERE at_ms >= {begin_ms} AND at_ms < {end_ms} AND (bytes > 0 OR count > 0)
"""
_STANDS = """
WITH stood AS (
    SELECT id, at_ms, {totals} FROM sample WHERE value IS NOT NULL GROUP BY id, at_ms
)
SELECT * FROM stood JOIN key USING (id)
JOIN last_told ON instance_id = {instance} AND at_ms = last_ms
WHERE at_ms >= {begin_ms} AND at_ms < {end_ms}
"""
_TOTALS = ("bytes", "sent", "count")
# An address of its own for each end that has none in its label, and no port: nothing is paired.
_CALLED = """
INSERT INTO connections
SELECT src_instance_id, coalesce(TRY_CAST(netns AS BIGINT), 0), nullif(src_service, ''),
    NULL, 'active', protocol, if(TRY_CAST(netns AS BIGINT) IS NULL, NULL, dst_ip), 0, dst_ip,
    {port},
    if(number = 1, sent, 0), if(number = 1, bytes - sent, 0), at_ms / 1000, {ended}, source
FROM ({rows}), range(1, CAST(greatest(count, 1) AS BIGINT) + 1) AS each(number)
"""
_ACCEPTED = """
INSERT INTO connections
SELECT dst_instance_id, coalesce(TRY_CAST(netns AS BIGINT), 0), nullif(dst_service, ''),
    NULL, 'passive', protocol, dst_ip, {port}, src_ip, 0,
    if(number = 1, sent, 0), if(number = 1, bytes - sent, 0), at_ms / 1000, {ended}, source
FROM ({rows}), range(1, CAST(greatest(count, 1) AS BIGINT) + 1) AS each(number)
WHERE NOT EXISTS (SELECT 1 FROM caller
    WHERE caller.ip = src_ip OR (netns <> '' AND caller.instance_id = dst_instance_id))
"""
# What the caller's machine told itself is not counted again at the other end.
_CALLERS = """
CREATE OR REPLACE TEMP TABLE caller AS
SELECT DISTINCT instance_id, ip FROM addresses SEMI JOIN connections USING (instance_id)
"""
_EMPTY = """
CREATE OR REPLACE TEMP TABLE connections (instance_id VARCHAR, netns BIGINT, service VARCHAR,
    pid BIGINT, side VARCHAR, protocol VARCHAR, src_ip VARCHAR, src_port INTEGER, dst_ip VARCHAR,
    dst_port INTEGER, bytes_sent BIGINT, bytes_received BIGINT, start_unix_ts DOUBLE,
    end_unix_ts DOUBLE, source VARCHAR);
CREATE OR REPLACE TEMP TABLE traffic (instance_id VARCHAR, interface VARCHAR, direction VARCHAR,
    protocol VARCHAR, src_ip VARCHAR, dst_ip VARCHAR, dst_port INTEGER, packets BIGINT,
    bytes BIGINT, window_start_unix_ts DOUBLE);
CREATE OR REPLACE TEMP TABLE relays (fingerprint VARCHAR, nickname VARCHAR, ip VARCHAR,
    port INTEGER);
"""
TABLES = ("listeners", "addresses", "connections", "traffic", "relays")
# What was put together has none.
_PORT = "coalesce(TRY_CAST(dst_port AS INTEGER), 0)"


def write(
    connection: duckdb.DuckDBPyConnection, path: Path, folder: Path, window: tuple[float, float]
) -> None:
    """Write the rows that a file of series means, ``NAME.parquet`` for each table.

    Args:
        connection: where this is worked out.
        path: the file, as `fetching.fetch` writes it.
        folder: where the tables are put; of traffic and relays there are none.
        window: what a counter grew from (inclusive) and to (exclusive), Unix seconds, is counted.
    """
    connection.execute(_EMPTY)
    connection.execute(_SERIES, [str(path)])
    connection.execute(_LAST_TOLD)
    for group in (families.SERVICES, families.LOCAL_SERVICES):
        _find_keys(connection, group)
        connection.execute(_LISTENING.format(name=group.name))
    connection.execute(_LISTENERS)
    connection.execute(_ADDRESSES)
    _insert(connection, _CALLED, families.CONNECTIONS, families.OPEN_CONNECTIONS, window)
    connection.execute(_CALLERS)
    _insert(connection, _ACCEPTED, families.ACCEPTED, families.OPEN_ACCEPTED, window)
    for table in TABLES:
        place = str(folder / f"{table}.parquet").replace("'", "''")
        connection.execute(f"COPY {table} TO '{place}' (COMPRESSION zstd)")


def _insert(
    connection: duckdb.DuckDBPyConnection,
    statement: str,
    ended: Group,
    still_open: Group,
    window: tuple[float, float],
) -> None:
    begin, end = window
    for group, query, when in ((ended, _GREW, "at_ms / 1000"), (still_open, _STANDS, "NULL")):
        _find_keys(connection, group)
        rows = query.format(
            instance=next(label for label in group.labels if label.endswith("instance_id")),
            begin_ms=round(begin * 1000),
            end_ms=round(end * 1000),
            totals=", ".join(
                f"coalesce(max(value) FILTER (family = '{family.name}'), 0) AS {total}"
                for total, family in zip(_TOTALS, group.families, strict=True)
            ),
            growths=", ".join(
                f"{total} - if({total} >= lag({total}, 1, 0) OVER before, "
                f"lag({total}, 1, 0) OVER before, 0) AS {total}"
                for total in _TOTALS
            ),
        )
        connection.execute(statement.format(rows=rows, ended=when, port=_PORT))


def _find_keys(connection: duckdb.DuckDBPyConnection, group: Group) -> None:
    """Make ``key``, the sets of labels of a group, and ``sample``, all that it has of them."""
    connection.execute(
        _KEYS.format(
            labels=", ".join(
                f"coalesce(metric['{label}'], '') AS {label}" for label in group.labels
            ),
            names=", ".join(group.labels),
            families=", ".join(f"'{family.name}'" for family in group.families),
        )
    )
