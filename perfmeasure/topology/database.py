"""The DuckDB in which series are made of the tables of a topology, or tables of series."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure.topology import joined, rows, series

if TYPE_CHECKING:
    import duckdb


_MEMORY = "500MB"
"""What does not fit is put on the disk meanwhile."""


@contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a database of its own, which is gone afterwards."""
    import duckdb  # noqa: PLC0415 - not every command needs it, and it takes long to import

    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": _MEMORY,
            "temp_directory": place,
            "preserve_insertion_order": False,
        }
        connection = duckdb.connect(config=config)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def with_series(
    folder: Path, document: Mapping[str, Any]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, int]]]:
    """Give a database with all series of a topology, and how many are in `OTHER`, by group.

    Args:
        folder: where the tables are, ``NAME.parquet``.
        document: the topology that was joined of them.

    Raises:
        InputError: as `series.build`.
    """
    with connected() as connection:
        for table in rows.TABLES:
            path = str(folder / f"{table}.parquet").replace("'", "''")
            connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{path}')")
        left_out = series.build(connection)
        if count := joined.build(connection, document):
            left_out["edges"] = count
        yield connection, left_out
