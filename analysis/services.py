"""What the logs of services say together, as Parquet tables: listeners, connections, addresses.

`servicescan` finds the facts in each log by itself; here they become rows, one for each socket that
listened and one for each end of a connection, however often and by how many copies of a log it
was told of. Rows of an instance stand together, in the order of time. The memory that is needed is
that of the busiest instance.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure import jsonio
from perfmeasure.analysis import scan, sql
from perfmeasure.analysis.connectionscan import CollectorAbsent, CollectorLost
from perfmeasure.analysis.servicescan import (
    InstanceSeen,
    RelaySeen,
    ServiceConnectionSeen,
    ServiceSeen,
    ServicesStarted,
    TrafficSeen,
)

if TYPE_CHECKING:
    from perfmeasure.analysis.scan import FactsOf
    from perfmeasure.analysis.source import Fact, Input

TABLES = {
    "listeners": {
        "instance_id": "VARCHAR",
        "netns": "BIGINT",
        "service": "VARCHAR",
        "protocol": "VARCHAR",
        "listen_ip": "VARCHAR",
        "listen_port": "INTEGER",
        "is_v6only": "BOOLEAN",
        "pid": "BIGINT",
        "valid_from_unix_ts": "DOUBLE",
        "valid_to_unix_ts": "DOUBLE",
    },
    "addresses": {"instance_id": "VARCHAR", "netns": "BIGINT", "ip": "VARCHAR"},
    "connections": {
        "instance_id": "VARCHAR",
        "netns": "BIGINT",
        "service": "VARCHAR",
        "pid": "BIGINT",
        "side": "VARCHAR",
        "protocol": "VARCHAR",
        "src_ip": "VARCHAR",
        "src_port": "INTEGER",
        "dst_ip": "VARCHAR",
        "dst_port": "INTEGER",
        "bytes_sent": "BIGINT",
        "bytes_received": "BIGINT",
        "start_unix_ts": "DOUBLE",
        "end_unix_ts": "DOUBLE",
        "source": "VARCHAR",
    },
    "traffic": {
        "instance_id": "VARCHAR",
        "interface": "VARCHAR",
        "direction": "VARCHAR",
        "protocol": "VARCHAR",
        "src_ip": "VARCHAR",
        "dst_ip": "VARCHAR",
        "dst_port": "INTEGER",
        "packets": "BIGINT",
        "bytes": "BIGINT",
        "window_start_unix_ts": "DOUBLE",
    },
    "relays": {
        "fingerprint": "VARCHAR",
        "nickname": "VARCHAR",
        "ip": "VARCHAR",
        "port": "INTEGER",
    },
}
"""The columns of each table, with their types in SQL; docs/formats.md says what they mean."""

_TOLD = {"told_ts": "DOUBLE"}  # when a line was written; of several, the last one counts
_OF_A_LOG = {
    "listeners": {**TABLES["listeners"], **_TOLD},
    "connections": {**TABLES["connections"], **_TOLD, "id": "VARCHAR", "is_closed": "BOOLEAN"},
    "addresses": TABLES["addresses"],
    "traffic": TABLES["traffic"],
    "relays": {**TABLES["relays"], **_TOLD},
    "starts": {"start_ts": "DOUBLE"},
}
# What was open when a collector died has ended, as far as is known, when the next one began.
_SETTLED = {
    "listeners": """
WITH told AS (
    SELECT * EXCLUDE (service, valid_to_unix_ts, told_ts), arg_max(service, told_ts) AS service,
           max(valid_to_unix_ts) AS ended_ts, max(told_ts) AS told_ts
    FROM raw GROUP BY ALL),
settled AS (
    SELECT told.*, CASE WHEN ended_ts IS NOT NULL THEN ended_ts
                        WHEN start_ts IS NOT NULL THEN greatest(start_ts, valid_from_unix_ts)
                        END AS valid_to_unix_ts
    FROM told ASOF LEFT JOIN starts ON told_ts < start_ts)
SELECT {columns} FROM settled
ORDER BY valid_from_unix_ts, protocol, listen_ip, listen_port, pid""",
    "connections": """
WITH told AS (
    SELECT arg_max(raw, told_ts + if(is_closed, 1e10, 0)) AS last, min(told_ts) AS first_ts,
           min(start_unix_ts) AS began_ts, max(told_ts) AS last_ts
    FROM raw GROUP BY id),
settled AS (
    SELECT unnest(last), coalesce(began_ts, first_ts) AS began_ts,
           coalesce(last.end_unix_ts, if(last.is_closed, last_ts, start_ts)) AS ended_ts
    FROM told ASOF LEFT JOIN starts ON last_ts < start_ts)
SELECT {columns}
FROM (SELECT * REPLACE (began_ts AS start_unix_ts, ended_ts AS end_unix_ts) FROM settled)
ORDER BY start_unix_ts, id""",
    "addresses": "SELECT DISTINCT {columns} FROM raw ORDER BY ALL",
    "traffic": """
SELECT DISTINCT {columns} FROM raw
ORDER BY window_start_unix_ts, interface, direction, protocol, src_ip, dst_ip, dst_port""",
    "relays": """
SELECT arg_max(fingerprint, told_ts) AS fingerprint, arg_max(nickname, told_ts) AS nickname,
       ip, port
FROM raw GROUP BY ip, port ORDER BY ip, port""",
}


@dataclasses.dataclass
class Collection:
    """What logs say about how their rows were collected.

    ``lost`` counts by what was lost; ``absent`` are the reasons for which nothing was recorded.
    """

    instances: dict[str, str] = dataclasses.field(default_factory=dict)
    """The host of each instance that told of itself."""
    lost: dict[str, int] = dataclasses.field(default_factory=dict)
    absent: list[str] = dataclasses.field(default_factory=list)

    @property
    def host(self) -> str:
        """The host that the logs name, or nothing."""
        return next(iter(self.instances.values()), "")


def write(folder: Path, tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write rows into a folder as ``NAME.parquet``; a table that is not given gets no rows."""
    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        for name, columns in TABLES.items():
            path = Path(place, name)
            _append(path, tables.get(name, ()))
            with sql.cursor() as cursor:
                cursor.read_json(
                    str(path), format="newline_delimited", columns=columns
                ).write_parquet(str(folder / f"{name}.parquet"), compression="zstd")


def read_logs(logs: Sequence[Input], folder: Path, facts_of: FactsOf = scan.facts) -> Collection:
    """Write the rows of logs of services, in any order, into a folder as ``NAME.parquet``.

    Raises:
        InputError: a file cannot be read any more.
    """
    collection = Collection()
    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        parts = _Parts(Path(place), collection)
        for log in logs:
            lost: dict[str, int] = {}
            for facts in facts_of(log, is_whole=False):
                parts.take(facts, lost)
            if parts.is_new(log.sha256):  # else it is a copy, which lost nothing more
                for what, count in lost.items():
                    collection.lost[what] = collection.lost.get(what, 0) + count
        parts.settle(folder)
    return collection


class _Parts:
    """The rows of each table and instance as lines of JSON, in a folder."""

    def __init__(self, folder: Path, collection: Collection) -> None:
        self._folder = folder
        self._collection = collection
        self._paths: dict[tuple[str, str], Path] = {}
        self._hashes: set[str] = set()

    def is_new(self, sha256: str) -> bool:
        """Whether no log of the same bytes was there before."""
        is_new = sha256 not in self._hashes
        self._hashes.add(sha256)
        return is_new

    def take(self, facts: Iterable[Fact], lost: dict[str, int]) -> None:
        """Take facts of a log, and add what it ``lost``."""
        rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for _, ts, fact in facts:
            if isinstance(fact, CollectorLost):
                lost[fact.what] = lost.get(fact.what, 0) + fact.lost_count
            elif isinstance(fact, CollectorAbsent):
                if fact.reason not in self._collection.absent:
                    self._collection.absent.append(fact.reason)
            else:
                if isinstance(fact, ServicesStarted):
                    self._collection.instances[fact.instance_id] = fact.host
                for table, row in _ROWS[type(fact)](fact, ts):
                    rows[table, getattr(fact, "instance_id", "")].append(row)
        for key, found in rows.items():
            _append(self._paths.setdefault(key, self._folder / str(len(self._paths))), found)

    def settle(self, folder: Path) -> None:
        """Write each table as Parquet, in which each row stands once."""
        nothing = self._folder / "nothing"
        nothing.touch()
        with sql.cursor() as cursor:
            for table, columns in TABLES.items():
                parts: list[str] = []
                for key in sorted(key for key in self._paths if key[0] == table):
                    starts = self._paths.get(("starts", key[1]), nothing)
                    for view, path, kind in (
                        ("raw", self._paths[key], table),
                        ("starts", starts, "starts"),
                    ):
                        cursor.execute(
                            f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM read_json("  # noqa: S608 - ours
                            f"'{path}', format = 'newline_delimited', columns = {_OF_A_LOG[kind]})"
                        )
                    part = self._folder / f"{len(parts)}.{table}.parquet"
                    query = _SETTLED[table].format(columns=", ".join(columns))
                    cursor.execute(f"COPY ({query}) TO '{part}' (COMPRESSION zstd)")
                    parts.append(str(part))
                whole = str(folder / f"{table}.parquet")
                if parts:
                    cursor.read_parquet(parts).write_parquet(whole, compression="zstd")
                else:
                    cursor.read_json(
                        str(nothing), format="newline_delimited", columns=columns
                    ).write_parquet(whole)


def _append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(jsonio.compact(row) + "\n" for row in rows)


_Rows = Iterator[tuple[str, dict[str, Any]]]


def _of_start(fact: ServicesStarted, ts: float) -> _Rows:
    del fact
    yield "starts", {"start_ts": ts}


def _of_instance(fact: InstanceSeen, ts: float) -> _Rows:
    del ts
    for netns, ip in zip(fact.netns, fact.ips, strict=True):
        yield "addresses", {"instance_id": fact.instance_id, "netns": netns, "ip": ip}


def _of_service(fact: ServiceSeen, ts: float) -> _Rows:
    row = {name: getattr(fact, name) for name in TABLES["listeners"]}
    row |= {"valid_to_unix_ts": fact.valid_to_unix_ts or None, "told_ts": ts}
    yield "listeners", row
    for ip in fact.instance_ips:
        yield "addresses", {"instance_id": fact.instance_id, "netns": fact.netns, "ip": ip}


def _of_connection(fact: ServiceConnectionSeen, ts: float) -> _Rows:
    row = {
        **fact._asdict(),
        **dict.fromkeys(("pid", "bytes_sent", "bytes_received")),
        **fact.numbers,
    }
    del row["numbers"]
    row["told_ts"] = ts
    for field in ("service", "start_unix_ts", "end_unix_ts"):
        row[field] = row[field] or None
    yield "connections", row


def _of_relay(fact: RelaySeen, ts: float) -> _Rows:
    yield "relays", {**fact._asdict(), "told_ts": ts}


def _of_traffic(fact: TrafficSeen, ts: float) -> _Rows:
    del ts
    yield "traffic", fact._asdict()


_ROWS: dict[type, Callable[[Any, float], _Rows]] = {
    ServicesStarted: _of_start,
    InstanceSeen: _of_instance,
    ServiceSeen: _of_service,
    ServiceConnectionSeen: _of_connection,
    TrafficSeen: _of_traffic,
    RelaySeen: _of_relay,
}
