"""The facts of one log as a Parquet file: each kind of fact is a column of its own, a struct.

Columns: ``line`` (number, 0 for the log as a whole), ``unix_ts``, and one for each kind of fact,
of which exactly one is not null in a row. Rows are in the order of the assembly. The fields of a
struct are those of the fact's class, so that the format follows from the classes.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, NamedTuple

from perfmeasure import jsonio
from perfmeasure.analysis import connectionscan, events, servicescan, sql, tgenscan, windowscan
from perfmeasure.analysis.clocksteps import ClockPair
from perfmeasure.analysis.source import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from perfmeasure.analysis.source import Fact

VERSION = 1
"""To be raised with every change of the facts, of this file, or of what a scan says of a log."""

_KINDS: dict[Kind, dict[str, type[NamedTuple]]] = {
    Kind.TGEN: {
        "program": tgenscan.Program,
        "created": tgenscan.Created,
        "seen": tgenscan.Seen,
        "progress": tgenscan.Progress,
        "last_line": tgenscan.LastLine,
        "ended": tgenscan.Ended,
        "clock_pair": ClockPair,
    },
    Kind.TORCTL: {
        "relay_status": events.RelayStatus,
        "stream": events.StreamEvent,
        "circuit": events.CircuitEvent,
        "bandwidth": events.Bandwidth,
        "build_timeout": events.BuildTimeoutEvent,
        "guard": events.GuardEvent,
        "or_connection": events.ConnectionEvent,
        "reader_started": events.ReaderStarted,
        "reader_gap": events.ReaderGap,
        "clock_pair": ClockPair,
        "relay_note": events.RelayNote,
    },
    Kind.CONNECTIONS: {
        "started": connectionscan.CollectorStarted,
        "clock_pair": ClockPair,
        "connection": connectionscan.ConnectionSeen,
        "lost": connectionscan.CollectorLost,
        "absent": connectionscan.CollectorAbsent,
    },
    Kind.SERVICES: {
        "started": servicescan.ServicesStarted,
        "instance": servicescan.InstanceSeen,
        "service": servicescan.ServiceSeen,
        "connection": servicescan.ServiceConnectionSeen,
        "traffic": servicescan.TrafficSeen,
        "relay": servicescan.RelaySeen,
        "lost": connectionscan.CollectorLost,
        "absent": connectionscan.CollectorAbsent,
    },
    Kind.WINDOWS: {
        "windows": windowscan.WindowsCounted,
        "service": windowscan.ServiceCounted,
    },
}
_SQL_TYPES: dict[Any, str] = {
    bool: "BOOLEAN",
    int: "UBIGINT",
    float: "DOUBLE",
    str: "VARCHAR",
    bytes: "VARCHAR",
    list[int]: "UBIGINT[]",
    list[str]: "VARCHAR[]",
    dict[str, int]: "MAP(VARCHAR, UBIGINT)",
    dict[str, str]: "MAP(VARCHAR, VARCHAR)",
}
_ROWS_AT_ONCE = 4096


def _columns(kind: Kind) -> dict[str, str]:
    """Return the SQL type of each column."""
    columns = {"line": "UBIGINT", "unix_ts": "DOUBLE"}
    for name, fact in _KINDS[kind].items():
        fields = typing.get_type_hints(fact).items()
        columns[name] = f"STRUCT({', '.join(f'{f} {_SQL_TYPES[t]}' for f, t in fields)})"
    return columns


def write(path: Path, kind: Kind, blocks: Iterable[Iterable[Fact]]) -> None:
    """Write the facts of a log of that kind; a file that is there is replaced."""
    names = {fact: name for name, fact in _KINDS[kind].items()}
    source = path.with_name(f"{path.name}.json")
    try:
        with source.open("w", encoding="utf-8") as file:
            for block in blocks:
                file.writelines(
                    jsonio.compact({"line": line, "unix_ts": ts, names[type(fact)]: _plain(fact)})
                    + "\n"
                    for line, ts, fact in block
                )
        with sql.cursor() as cursor:
            table = cursor.read_json(
                str(source), format="newline_delimited", columns=_columns(kind)
            )
            table.write_parquet(str(path), compression="zstd")
    finally:
        source.unlink(missing_ok=True)


def _plain(fact: NamedTuple) -> dict[str, Any]:
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in fact._asdict().items()
    }


def read(path: Path, kind: Kind) -> Iterator[list[Fact]]:
    """Yield the facts of a file that `write` made, in blocks.

    Raises:
        duckdb.Error: it is damaged or of another form.
    """
    makers = [_maker(fact) for fact in _KINDS[kind].values()]
    with sql.cursor() as cursor:
        cursor.execute("SELECT * FROM read_parquet(?)", [str(path)])
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            facts: list[Fact] = []
            for line, ts, *structs in rows:
                facts += [
                    (line, ts, make(struct))
                    for make, struct in zip(makers, structs, strict=True)
                    if struct is not None
                ]
            yield facts


def _maker(fact: Callable[..., NamedTuple]) -> Callable[[dict[str, Any]], NamedTuple]:
    hints = typing.get_type_hints(fact)
    of_bytes = [name for name, kind in hints.items() if kind is bytes]

    def make(struct: dict[str, Any]) -> NamedTuple:
        for name in of_bytes:
            struct[name] = struct[name].encode()
        return fact(**struct)

    return make
