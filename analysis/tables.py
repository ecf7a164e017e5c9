"""Tables of many hosts as Parquet: transfers, streams, circuits, and the logs they are from.

Hosts are written one after another into files beside the result, each in order, and DuckDB puts
these behind one another: the memory that is needed is that of the largest host, however many.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from perfmeasure import jsonio
from perfmeasure.analysis import records, rows, sql
from perfmeasure.analysis.torlog import HOP
from perfmeasure.errors import PerfmeasureError, UsageError

_ROWS_AT_ONCE = 16384  # that DuckDB holds in memory for one group of a Parquet file
_EVENTS = "STRUCT(name VARCHAR, seconds DOUBLE)[]"
TABLES = {
    "transfers": {**rows.COLUMNS, "link": "VARCHAR", "stream": "VARCHAR", "circuit": "VARCHAR"},
    "streams": {
        "id": "VARCHAR",
        "label": "VARCHAR",
        "start": "TIMESTAMP",
        "lasted_seconds": "DOUBLE",
        "is_complete": "BOOLEAN",
        "circuit": "VARCHAR",
        "source": "VARCHAR",
        "target": "VARCHAR",
        "failure_reason_local": "VARCHAR",
        "failure_reason_remote": "VARCHAR",
        "events": _EVENTS,
    },
    "circuits": {
        "id": "VARCHAR",
        "label": "VARCHAR",
        "start": "TIMESTAMP",
        "lasted_seconds": "DOUBLE",
        "is_complete": "BOOLEAN",
        "buildtime_seconds": "DOUBLE",
        "build_timeout_ms": "BIGINT",
        "build_quantile": "DOUBLE",
        "cbt_set": "BOOLEAN",
        "guard": "VARCHAR",
        "path": "VARCHAR[]",
        "conflux_circuits": "VARCHAR[]",
        "failure_reason_local": "VARCHAR",
        "failure_reason_remote": "VARCHAR",
        "events": _EVENTS,
    },
    "logs": {
        "label": "VARCHAR",
        "name": "VARCHAR",
        "kind": "VARCHAR",
        "side": "VARCHAR",
        "sha256": "VARCHAR",
        "size_bytes": "BIGINT",
        "start": "TIMESTAMP",
        "end": "TIMESTAMP",
        "lines": "BIGINT",
        "used": "BIGINT",
        "skipped": "BIGINT",
        "rejected": "MAP(VARCHAR, BIGINT)",
        "looks_like": "VARCHAR",
    },
}
"""The columns of each table, with their types in SQL. ``label`` is the nickname."""


def write(documents: Iterable[Mapping[str, Any]], folder: Path, losses: Counter[str]) -> None:
    """Write the tables of perfmeasure-1.0 documents into a folder, each table whole or not at all.

    Where two documents have the same nickname the later one stands. Rows are in the order of label,
    start and id, whatever the order of the documents.

    Raises:
        UsageError: the folder is a file.
        PerfmeasureError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(str(folder), "is a file", "a folder for the tables")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}.", suffix=".part", dir=folder.parent
        ) as unfinished:
            _write(documents, Path(unfinished), losses)
            folder.mkdir(exist_ok=True)
            for table in TABLES:
                (Path(unfinished) / f"{table}.parquet").replace(folder / f"{table}.parquet")
    except OSError as error:
        raise PerfmeasureError(
            str(folder),
            f"cannot be written ({error.strerror or error})",
            next_step="free some space, or write elsewhere with -o",
        ) from error


def _write(documents: Iterable[Mapping[str, Any]], folder: Path, losses: Counter[str]) -> None:
    parts: dict[str, _Part] = {}
    for document in documents:
        name = "\n".join(sorted(document["data"]))
        place = parts[name].folder if name in parts else folder / str(len(parts))
        shutil.rmtree(place, ignore_errors=True)
        parts[name] = _written(document, place)
    for part in parts.values():
        losses.update(part.losses)
    nothing = folder / "nothing"  # DuckDB wants a file to read
    nothing.touch()
    with sql.cursor() as connection:
        for table, columns in TABLES.items():
            files = sorted(
                (label, str(path))
                for part in parts.values()
                for label, path in part.files[table].items()
            )
            sources = [str(nothing), *(path for _, path in files)]
            found = connection.read_json(
                sources,  # type: ignore[arg-type] # it takes a list as well as one name
                format="newline_delimited",
                columns=columns,
            )
            found.write_parquet(
                str(folder / f"{table}.parquet"), compression="zstd", row_group_size=_ROWS_AT_ONCE
            )


class _Part(NamedTuple):
    """What was written of a document: of each table, the file of each label."""

    folder: Path
    files: dict[str, dict[str, Path]]
    losses: Counter[str]


def _written(document: Mapping[str, Any], folder: Path) -> _Part:
    part = _Part(folder, {table: {} for table in TABLES}, Counter())
    for table in TABLES:
        (folder / table).mkdir(parents=True)
        found = sorted(_ROWS[table](document, part.losses), key=_place_of)
        for label, group in itertools.groupby(found, key=lambda row: str(row["label"])):
            path = part.files[table][label] = folder / table / str(len(part.files[table]))
            with path.open("w", encoding="utf-8") as file:
                file.writelines(jsonio.compact(row) + "\n" for row in group)
    return part


def _place_of(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what rows are put in order by; what has no start comes last."""
    start = row.get("start")
    ids = (row["id"],) if "id" in row else (row["name"], row["sha256"] or "")
    return (row["label"], start is None, start or "", *ids)


def _transfers(document: Mapping[str, Any], losses: Counter[str]) -> Iterator[dict[str, Any]]:
    for row in rows.rows(document, losses):
        links = document["data"][row["label"]]["tgen"]["transfers"][row["id"]]["links"]
        yield {
            **row,
            "start": rows.start_text(row["start"]),
            "link": links["status"],
            "stream": links.get("stream"),
            "circuit": links.get("circuit"),
        }


def _of_tor(
    document: Mapping[str, Any], what: str
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Yield what streams and circuits have in common, and the record."""
    for nickname, node in sorted(document["data"].items()):
        for name, record in records.in_order(node.get("tor", {}).get(what, {})):
            start = record["unix_ts_start"]
            row = {
                "id": name,
                "label": nickname,
                "start": rows.start_text(start),
                "is_complete": record["is_complete"],
                "failure_reason_local": record.get("failure_reason_local"),
                "failure_reason_remote": record.get("failure_reason_remote"),
                "events": [
                    {"name": event, "seconds": at} for event, at in record["elapsed_seconds"]
                ],
            }
            if "unix_ts_end" in record:
                row["lasted_seconds"] = record["unix_ts_end"] - start
            yield row, record


def _streams(document: Mapping[str, Any], _losses: Counter[str]) -> Iterator[dict[str, Any]]:
    for row, record in _of_tor(document, "streams"):
        yield {
            **row,
            "circuit": record.get("circuit_id"),
            "source": record.get("source"),
            "target": record.get("target"),
        }


def _circuits(document: Mapping[str, Any], _losses: Counter[str]) -> Iterator[dict[str, Any]]:
    for row, record in _of_tor(document, "circuits"):
        path = [hop[0] for hop in record.get("path", ())]
        guard = HOP.match(path[0]) if path else None
        yield {
            **row,
            "buildtime_seconds": record.get("buildtime_seconds"),
            "build_timeout_ms": record.get("build_timeout"),
            "build_quantile": record.get("build_quantile"),
            "cbt_set": record.get("cbt_set"),
            "guard": guard[1].upper() if guard else None,
            "path": path or None,
            "conflux_circuits": record.get("conflux_circuits"),
        }


def _logs(document: Mapping[str, Any], _losses: Counter[str]) -> Iterator[dict[str, Any]]:
    label = " ".join(sorted(document["data"]))
    for log in document["meta"]["inputs"]:
        row = {
            "label": label,
            **{field: log.get(field) for field in ("name", "kind", "side", "sha256", "size_bytes")},
            "looks_like": log.get("looks_like"),
        }
        if "lines" in log:
            lines = log["lines"]
            row.update(
                start=rows.start_text(log["unix_ts_first"]),
                end=rows.start_text(log["unix_ts_last"]),
                lines=lines["total"],
                used=lines["used"],
                skipped=lines["skipped"],
                rejected=lines["rejected"],
            )
        yield row


_ROWS = {"transfers": _transfers, "streams": _streams, "circuits": _circuits, "logs": _logs}
