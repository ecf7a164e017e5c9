"""Makes the time series of a topology of its rows: which there are, and their samples.

Counters begin at zero at each 00:00 UTC and are made for each instance alone, so that what an
export says of a time does not depend on what else was in it: the same again, or a day more, or
another machine, gives no sample another value. A sample of a counter stands at the last end of a
connection within a step, where its value is exact.
"""

# ruff: noqa: S608 - what is put into queries is this package's own names

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmeasure.errors import InputError
from perfmeasure.topology import families
from perfmeasure.topology.families import OTHER, Group
from perfmeasure.topology.remotewrite import END_MS, FIRST_MS

if TYPE_CHECKING:
    import duckdb

STEP_SECONDS = 60
"""A series has one sample in each step in which it has news."""
MOST_SERIES = 1000
"""Series of a group and an instance; the smallest, beyond that, are put together."""

_DAY_MS = 86_400_000
_LONGEST_DAYS = 400
_TOTALS = ("bytes", "sent", "count")
_MACROS = r"""
CREATE OR REPLACE TEMP MACRO ms(unix_ts) AS CAST(floor(unix_ts * 1000 + 0.001) AS BIGINT);
CREATE OR REPLACE TEMP MACRO is_loopback(ip) AS starts_with(ip, '127.') OR ip = '::1';
CREATE OR REPLACE TEMP MACRO unmapped(ip) AS
    regexp_replace(lower(ip), '^::ffff:([0-9]+[.][0-9.]+)$', '\1');
CREATE OR REPLACE TEMP MACRO netns_label(ip, netns) AS
    CASE WHEN is_loopback(ip) THEN CAST(netns AS VARCHAR) ELSE '' END;
"""
# A service or a connection may be older than the rows that speak of it; what ended is not.
_TIMES = f"""
CREATE OR REPLACE TEMP TABLE instance_times AS
SELECT instance_id, max(seen) AS end_ms,
    coalesce(min(ended), max(seen)) // {_DAY_MS} * {_DAY_MS} AS begin_ms
FROM (
    SELECT instance_id, ms(coalesce(valid_to_unix_ts, valid_from_unix_ts)) AS seen,
        ms(valid_to_unix_ts) AS ended FROM listeners
    UNION ALL
    SELECT instance_id, ms(coalesce(end_unix_ts, start_unix_ts)), ms(end_unix_ts) FROM connections
    UNION ALL
    SELECT instance_id, ms(window_start_unix_ts), ms(window_start_unix_ts) FROM traffic
) GROUP BY instance_id
"""
# Of several that could answer, the kernel takes the one that was bound most closely: to the
# address, to all of IPv4, to all. Processes that share a port, or follow one another on it without
# a gap, are one listener.
_LISTENING = """
CREATE OR REPLACE TEMP TABLE each_address AS
WITH plain AS (
    SELECT *, unmapped(listen_ip) AS ip, coalesce(is_v6only, false) AS is_six,
        ms(valid_from_unix_ts) AS from_ms, ms(valid_to_unix_ts) - 1 AS to_ms
    FROM listeners
), bound AS (
    SELECT instance_id, netns, ip, listen_port, protocol, service, from_ms, to_ms, 0 AS rank
    FROM plain WHERE ip NOT IN ('0.0.0.0', '::')
    UNION ALL
    SELECT instance_id, netns, a.ip, listen_port, protocol, service, from_ms, to_ms,
        CASE WHEN l.ip = '::' AND NOT contains(a.ip, ':') THEN 2 ELSE 1 END
    FROM plain AS l JOIN (
        SELECT instance_id, netns, unmapped(ip) AS ip FROM addresses
        UNION SELECT instance_id, netns, unnest(['127.0.0.1', '::1']) FROM listeners
    ) AS a USING (instance_id, netns)
    WHERE (l.ip = '::' AND (contains(a.ip, ':') OR NOT is_six))
        OR (l.ip = '0.0.0.0' AND NOT contains(a.ip, ':'))
)
SELECT b.* REPLACE (greatest(from_ms, begin_ms) AS from_ms, coalesce(to_ms, end_ms) AS to_ms,
    netns_label(ip, netns) AS netns)
FROM bound AS b JOIN instance_times USING (instance_id);
CREATE OR REPLACE TEMP TABLE listening AS
WITH contested AS (
    SELECT instance_id, netns, ip, listen_port, protocol FROM each_address
    GROUP BY ALL HAVING min(rank) < max(rank)
), several AS (
    SELECT * FROM each_address SEMI JOIN contested
        USING (instance_id, netns, ip, listen_port, protocol)
), marks AS (
    SELECT instance_id, netns, ip, listen_port, protocol, from_ms AS mark_ms FROM several
    UNION SELECT instance_id, netns, ip, listen_port, protocol, to_ms + 1 FROM several
), spans AS (
    SELECT *, lead(mark_ms) OVER (PARTITION BY instance_id, netns, ip, listen_port, protocol
        ORDER BY mark_ms) - 1 AS last_ms
    FROM marks
), closest AS (
    SELECT instance_id, netns, ip, listen_port, protocol, service, mark_ms AS from_ms,
        last_ms AS to_ms
    FROM spans JOIN several USING (instance_id, netns, ip, listen_port, protocol)
    WHERE from_ms <= mark_ms AND last_ms <= to_ms
    QUALIFY rank = min(rank) OVER (PARTITION BY instance_id, netns, ip, listen_port, protocol,
        mark_ms)
    UNION ALL
    SELECT * EXCLUDE rank FROM each_address ANTI JOIN contested
        USING (instance_id, netns, ip, listen_port, protocol)
), marked AS (
    SELECT *, coalesce(from_ms > 1 + max(to_ms) OVER (PARTITION BY instance_id, netns, ip,
        listen_port, protocol, service ORDER BY from_ms, to_ms
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true) AS is_first
    FROM closest
), numbered AS (
    SELECT *, sum(is_first::INT) OVER (PARTITION BY instance_id, netns, ip, listen_port, protocol,
        service ORDER BY from_ms, to_ms ROWS UNBOUNDED PRECEDING) AS number
    FROM marked
), islands AS (
    SELECT instance_id, netns, ip, listen_port, protocol, service, number,
        min(from_ms) AS from_ms, greatest(min(from_ms), max(to_ms)) AS to_ms
    FROM numbered GROUP BY ALL
), ports AS (
    SELECT DISTINCT instance_id, service, listen_port, from_ms, to_ms FROM islands
), lists AS (
    SELECT instance_id, service, one.from_ms, one.to_ms,
        string_agg(DISTINCT many.listen_port, ',' ORDER BY many.listen_port) AS listen_ports
    FROM (SELECT DISTINCT instance_id, service, from_ms, to_ms FROM ports) AS one
    JOIN ports AS many USING (instance_id, service)
    WHERE many.from_ms <= one.to_ms AND one.from_ms <= many.to_ms
    GROUP BY ALL
)
SELECT * FROM islands JOIN lists USING (instance_id, service, from_ms, to_ms)
"""
_ADDRESSES = """
SELECT DISTINCT instance_id, unmapped(ip) AS instance_ip, begin_ms AS from_ms, end_ms AS to_ms,
    0 AS weight
FROM addresses JOIN instance_times USING (instance_id) WHERE NOT is_loopback(unmapped(ip))
"""
# Who does not say whether it called is called if it listens there, else by the higher port.
_DIRECTED = """
CREATE OR REPLACE TEMP VIEW directed AS
SELECT *, CASE side WHEN 'active' THEN true WHEN 'passive' THEN false ELSE
        src_port >= dst_port AND (instance_id, protocol, src_port) NOT IN (
            SELECT (instance_id, protocol, listen_port) FROM listeners)
    END AS is_caller,
    coalesce(bytes_sent, 0) AS sent, coalesce(bytes_received, 0) AS received
FROM connections
"""
_CALLED = """
SELECT coalesce(service, '') AS src_service, instance_id AS src_instance_id,
    unmapped(dst_ip) AS dst_ip, CAST(dst_port AS VARCHAR) AS dst_port, protocol, source,
    netns_label(unmapped(dst_ip), netns) AS netns, ms(end_unix_ts) AS at_ms,
    sent + received AS bytes, sent
FROM directed WHERE is_caller
"""
_ACCEPTED = """
SELECT coalesce(service, '') AS dst_service, instance_id AS dst_instance_id,
    unmapped(src_ip) AS dst_ip, CAST(src_port AS VARCHAR) AS dst_port,
    unmapped(dst_ip) AS src_ip, protocol, source, netns_label(unmapped(dst_ip), netns) AS netns,
    ms(end_unix_ts) AS at_ms, sent + received AS bytes, sent
FROM directed WHERE NOT is_caller
"""
_TRAFFIC = """
SELECT instance_id, interface, direction, protocol, unmapped(src_ip) AS src_ip,
    unmapped(dst_ip) AS dst_ip, CAST(dst_port AS VARCHAR) AS dst_port,
    ms(window_start_unix_ts) AS at_ms, bytes, 0 AS sent
FROM traffic
"""


def build(
    connection: duckdb.DuckDBPyConnection,
    *,
    step_seconds: int = STEP_SECONDS,
    most_series: int = MOST_SERIES,
) -> dict[str, int]:
    """Make the tables of all groups of `families.RAW`.

    Args:
        connection: where the tables listeners, addresses, connections and traffic are; the tables
            of series and of samples are made beside them, for this connection alone.
        step_seconds: how far apart samples are at least.
        most_series: of each group and instance.

    Returns:
        How many series are in `OTHER`, by the name of the group.

    Raises:
        InputError: times are not of this century, or too far apart.
    """
    maker = _Maker(connection, step_seconds * 1000, most_series)
    connection.execute(_MACROS + _TIMES)
    _check_times(connection)
    connection.execute(_LISTENING)
    connection.execute(_DIRECTED)
    listening = """
        SELECT instance_id, {}, service AS name, listen_ports,
            CAST(listen_port AS VARCHAR) AS listen_port, protocol, from_ms, to_ms, 0 AS weight
        FROM listening WHERE {}"""
    maker.lasting(families.ADDRESSES, _ADDRESSES)
    maker.lasting(families.SERVICES, listening.format("ip AS instance_ip", "NOT is_loopback(ip)"))
    maker.lasting(
        families.LOCAL_SERVICES, listening.format("netns, ip AS listen_ip", "is_loopback(ip)")
    )
    for ended, still_open, instance, rows in (
        (families.CONNECTIONS, families.OPEN_CONNECTIONS, "src_instance_id", _CALLED),
        (families.ACCEPTED, families.OPEN_ACCEPTED, "dst_instance_id", _ACCEPTED),
    ):
        maker.counters(ended, instance, f"SELECT * FROM ({rows}) WHERE at_ms IS NOT NULL")
        maker.gauges(still_open, instance, f"SELECT * FROM ({rows}) WHERE at_ms IS NULL")
    maker.counters(families.TRAFFIC, "instance_id", _TRAFFIC)
    return {group: count for group, count in maker.left_out.items() if count}


def _check_times(connection: duckdb.DuckDBPyConnection) -> None:
    """See that clocks were set: a series has samples from the first time to the last."""
    wrong = connection.execute(
        "SELECT instance_id, begin_ms, end_ms FROM instance_times "
        "WHERE begin_ms < ? OR end_ms >= ? OR end_ms - begin_ms > ? ORDER BY ALL LIMIT 1",
        [FIRST_MS, END_MS, _LONGEST_DAYS * _DAY_MS],
    ).fetchall()
    for instance_id, begin_ms, end_ms in wrong:
        raise InputError(
            f"the rows of {families.protected(instance_id)}",
            f"are from Unix times {begin_ms // 1000} to {end_ms // 1000}",
            f"times of {_LONGEST_DAYS} days at most, between 1971 and 2109",
            "leave out the logs of a clock that was not set, or export them in parts",
        )


class _Maker:
    def __init__(
        self, connection: duckdb.DuckDBPyConnection, step_ms: int, most_series: int
    ) -> None:
        self._connection = connection
        self._step_ms = step_ms
        self._most = most_series
        self.left_out: dict[str, int] = {}

    def lasting(self, group: Group, rows: str) -> None:
        """Make a group that says 1 as something begins, in each step while it lasts, and last."""
        self._number(group, "instance_id", rows)
        step = self._step_ms
        self._table(
            group.samples_table,
            f"""
            SELECT DISTINCT id, unnest(list_concat(
                    range(from_ms // {step} * {step} + {step}, to_ms, {step}), [from_ms, to_ms]
                )) AS at_ms, 1.0::DOUBLE AS {group.families[0].name}
            FROM numbered ORDER BY id, at_ms
            """,
        )

    def counters(self, group: Group, instance: str, rows: str) -> None:
        """Make a group of sums that grow through a UTC day.

        Besides the steps with news there is a zero as the day begins, by which a server knows that
        the counter began anew, and the last value at the end of the day or of the rows.
        """
        day = f"at_ms // {_DAY_MS} * {_DAY_MS}"
        self._count(group, instance, rows, day, f"at_ms // {self._step_ms}")
        totals = ", ".join(f"sum({name}) OVER so_far AS {name}" for name in _TOTALS)
        ends = f"least(end_ms, day + {_DAY_MS} - 1)"
        self._sample(
            group,
            f"""
            WITH steps AS (
                SELECT id, instance_id, day, greatest(max(at_ms), day + 1) AS at_ms,
                    sum(bytes) AS bytes, sum(sent) AS sent, sum(count) AS count
                FROM numbered GROUP BY id, instance_id, day, slot
            ), sums AS (
                SELECT id, instance_id, day, at_ms, {totals} FROM steps
                WINDOW so_far AS (PARTITION BY id, day ORDER BY at_ms ROWS UNBOUNDED PRECEDING)
            ), last_ones AS (
                SELECT id, max({ends}) AS at_ms, max(bytes), max(sent), max(count), max(at_ms) AS it
                FROM sums JOIN instance_times USING (instance_id) GROUP BY id, day
            )
            SELECT id, at_ms, bytes, sent, count FROM sums
            UNION ALL SELECT DISTINCT id, day, 0, 0, 0 FROM sums
            UNION ALL SELECT * EXCLUDE it FROM last_ones WHERE at_ms > it
            """,
        )

    def gauges(self, group: Group, instance: str, rows: str) -> None:
        """Make a group of what is the case as the rows end."""
        self._count(group, instance, rows, "NULL", "NULL")
        self._sample(
            group,
            """
            SELECT id, max(end_ms), sum(bytes), sum(sent), sum(count)
            FROM numbered JOIN instance_times USING (instance_id) GROUP BY id
            """,
        )

    def _count(self, group: Group, instance: str, rows: str, day: str, slot: str) -> None:
        labels = ", ".join(group.labels)
        self._number(
            group,
            instance,
            f"""
            SELECT {labels}, {day} AS day, {slot} AS slot, max(at_ms) AS at_ms,
                sum(bytes) AS bytes, sum(sent) AS sent, count(*) AS count, sum(bytes) AS weight
            FROM ({rows}) GROUP BY {labels}, day, slot
            """,
        )

    def _number(self, group: Group, instance: str, rows: str) -> None:
        """Make the table of series, and ``numbered``: the rows with the id of their series."""
        labels = ", ".join(group.labels)
        shown = ", ".join(
            f"CASE WHEN rank > {self._most} THEN '{OTHER}' ELSE {label} END AS shown_{label}"
            if label in group.bounded
            else f"{label} AS shown_{label}"
            for label in group.labels
        )
        same = " AND ".join(f"s.{label} = r.shown_{label}" for label in group.labels)
        self._table("staged", rows)
        self._table(
            "ranked",
            f"""
            SELECT *, {shown} FROM (
                SELECT {labels}, row_number() OVER (
                    PARTITION BY {instance} ORDER BY sum(weight) DESC, {labels}) AS rank
                FROM staged GROUP BY {labels})
            """,
        )
        beyond = self._connection.execute(f"SELECT count(*) FROM ranked WHERE rank > {self._most}")
        self.left_out[group.name] = beyond.fetchall()[0][0]
        shown_labels = ", ".join(f"shown_{label} AS {label}" for label in group.labels)
        self._table(
            group.series_table,
            f"""
            SELECT row_number() OVER (ORDER BY {labels}) AS id, {labels}
            FROM (SELECT DISTINCT {shown_labels} FROM ranked)
            """,
        )
        self._table(
            "numbered",
            f"""
            SELECT s.id, staged.* EXCLUDE ({labels}), staged.{instance} AS instance_id
            FROM staged JOIN ranked AS r USING ({labels}) JOIN {group.series_table} AS s ON {same}
            """,
        )

    def _sample(self, group: Group, query: str) -> None:
        names = [family.name for family in group.families]
        columns = ", ".join(
            f"{total}::DOUBLE AS {name}" for total, name in zip(_TOTALS, names, strict=False)
        )
        self._table(
            group.samples_table,
            f"SELECT id, at_ms, {columns} FROM ({query}) AS t(id, at_ms, bytes, sent, count) "
            "ORDER BY id, at_ms",
        )

    def _table(self, name: str, query: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
