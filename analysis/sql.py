"""The DuckDB of a process, in memory: it reads and writes Parquet.

One thread, so that rows keep their order and files are the same byte for byte.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


@functools.cache
def _database() -> duckdb.DuckDBPyConnection:
    import duckdb  # noqa: PLC0415 - not every analysis needs it, and it takes long to import

    # By measurement: to connect takes 18 ms, a cursor of what is connected next to nothing.
    return duckdb.connect(config={"threads": 1})


def cursor() -> duckdb.DuckDBPyConnection:
    """Return a connection to the database for one thread's use, to be closed after it."""
    return _database().cursor()
