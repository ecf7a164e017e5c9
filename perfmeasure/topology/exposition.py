"""The newest sample of each series as text, for a server that scrapes: `/metrics` of a docroot.

Source: Prometheus' text-based exposition format, version 0.0.4.
"""

# ruff: noqa: S608 - what is put into queries is this package's own names

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure.topology import database, families
from perfmeasure.topology.families import Group, protected

if TYPE_CHECKING:
    import duckdb

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def of_tables(folder: Path, document: Mapping[str, Any]) -> bytes:
    """Return all families of the tables in a folder, and of the topology that was joined of them.

    Raises:
        InputError: as `series.build`.
    """
    with database.with_series(folder, document) as (connection, _):
        return text(connection, (*families.RAW, *families.JOINED))


def text(connection: duckdb.DuckDBPyConnection, groups: Iterable[Group]) -> bytes:
    """Return the families of the groups, each series as it is at the end of its instance's rows.

    What had ended before, such as a service or a counter of the day before, is not there.
    """
    lines = []
    for group in groups:
        names = ", ".join(family.name for family in group.families)
        labels = ", ".join(f"s.{label}" for label in group.labels)
        instance = next((label for label in group.labels if label.endswith("instance_id")), "")
        newest = f"JOIN instance_times AS t ON t.instance_id = s.{instance} AND at_ms = end_ms"
        rows = connection.execute(
            f"SELECT {labels}, {names} "
            f"FROM {group.samples_table} JOIN {group.series_table} AS s USING (id) "
            f"{newest if instance else ''} ORDER BY ALL"
        ).fetchall()
        for position, family in enumerate(group.families, len(group.labels)):
            lines.append(f"# HELP {family.name} {family.help}\n")
            lines.append(f"# TYPE {family.name} {family.kind}\n")
            lines += [
                f"{family.name}{{{_labels(group, row)}}} {_number(row[position])}\n" for row in rows
            ]
    return "".join(lines).encode()


def _labels(group: Group, row: tuple[str, ...]) -> str:
    pairs = zip(group.labels, row, strict=False)
    return ",".join(
        f'{label}="{protected(value).translate(_ESCAPES)}"' for label, value in pairs if value
    )


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
