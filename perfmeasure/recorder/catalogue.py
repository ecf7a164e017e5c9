"""The catalogue of a store: its segments, and the transfers whose packets may be in them (SQLite).

The segments' files are the truth: a catalogue that is lost is made again from them. Transfers are
written by whoever measures; without them a query by transfer finds nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from perfmeasure.errors import InputError, UsageError
from perfmeasure.recorder.keys import Connection, parse_key
from perfmeasure.recorder.segment import Summary

NAME = "catalogue.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS segments (
    number INTEGER PRIMARY KEY, class_name TEXT NOT NULL, link INTEGER NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, packets INTEGER NOT NULL,
    captured_bytes INTEGER NOT NULL, drops INTEGER NOT NULL, is_open INTEGER NOT NULL,
    file_bytes INTEGER NOT NULL, index_bytes INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS transfers (
    measurement TEXT NOT NULL, id TEXT NOT NULL, circuit TEXT NOT NULL, connection4 TEXT NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    PRIMARY KEY (measurement, id, circuit, connection4, first_ns)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ids ON transfers (id);
CREATE INDEX IF NOT EXISTS circuits ON transfers (circuit);
CREATE INDEX IF NOT EXISTS connections ON transfers (connection4);
PRAGMA user_version = 2;
"""
_VERSION = 2
_SUMMARY = "number, class_name, link, first_ns, last_ns, packets, captured_bytes, drops"


class NewerError(InputError):
    """A catalogue that a newer perfmeasure has written: nothing of it is to be put in order."""


class Entry(NamedTuple):
    """A segment in the catalogue."""

    summary: Summary
    is_open: bool
    file_bytes: int
    index_bytes: int


class Transfer(NamedTuple):
    """One connection that a transfer, or a circuit, used, and when (Unix ns).

    Attributes:
        measurement: what is entered, and replaced, together.
        id: of the transfer; empty where a circuit is meant by itself.
        circuit: that it used there; empty if that is not known.
        connection4: the key, with the lower address, then port, first.
    """

    measurement: str
    id: str
    circuit: str
    connection4: str
    first_ns: int
    last_ns: int


class Catalogue:
    """The catalogue of the store in ``folder``.

    Args:
        is_writer: make it if it is not there.

    Raises:
        InputError: it is not there, or no such database.
    """

    def __init__(self, folder: Path, *, is_writer: bool = False) -> None:
        self._path = folder / NAME
        try:
            if is_writer:
                self._database = sqlite3.connect(
                    self._path, isolation_level=None, check_same_thread=False
                )
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = NORMAL")
            else:
                uri = f"{self._path.absolute().as_uri()}?mode=ro"
                self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if is_writer and version == 0:  # it was not there
                self._database.executescript(_SCHEMA)
                version = _VERSION
        except sqlite3.Error as error:
            raise InputError(str(self._path), f"cannot be used ({error})", "a catalogue") from error
        if version > _VERSION:
            raise NewerError(
                str(self._path),
                f"version {version}, of a newer perfmeasure",
                f"version {_VERSION}",
                "use that one, or give another --store",
            )
        if version != _VERSION:
            raise InputError(str(self._path), f"version {version}", f"version {_VERSION}")

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def put(
        self, summary: Summary, *, is_open: bool, file_bytes: int = 0, index_bytes: int = 0
    ) -> None:
        """Enter a segment, or replace what is there of it."""
        values = (
            summary.number, summary.class_name, summary.link, summary.first_ns, summary.last_ns,
            summary.packets, summary.captured_bytes, summary.drops, is_open, file_bytes,
            index_bytes,
        )  # fmt: skip
        marks = ", ".join("?" * len(values))
        self._database.execute(f"REPLACE INTO segments VALUES ({marks})", values)  # noqa: S608

    def remove(self, number: int) -> None:
        """Forget a segment."""
        self._database.execute("DELETE FROM segments WHERE number = ?", (number,))

    def segments(self) -> list[Entry]:
        """Return all segments by number.

        Raises:
            InputError: the database is damaged.
        """
        query = f"SELECT {_SUMMARY}, is_open, file_bytes, index_bytes FROM segments ORDER BY number"  # noqa: S608
        try:
            rows = self._database.execute(query).fetchall()
        except sqlite3.Error as error:
            raise InputError(str(self._path), f"cannot be read ({error})", "a catalogue") from error
        return [Entry(Summary(*row[:8]), bool(row[8]), row[9], row[10]) for row in rows]

    def closed(self, class_name: str) -> tuple[int, int, int]:
        """Return packets, bytes on disk and the first time (ns) of a class's closed segments."""
        query = (
            "SELECT total(packets), total(file_bytes + index_bytes), min(first_ns) FROM segments "
            "WHERE class_name = ? AND NOT is_open"
        )
        packets, size, first_ns = self._database.execute(query, (class_name,)).fetchone()
        return int(packets), int(size), 2**63 - 1 if first_ns is None else first_ns

    def put_transfers(self, transfers: Iterable[Transfer]) -> None:
        """Enter the transfers of measurements, in place of what was there of these.

        Raises:
            InputError: the database cannot be written.
        """
        rows = list(transfers)
        measurements = {(row.measurement,) for row in rows}
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(
                    "DELETE FROM transfers WHERE measurement = ?", sorted(measurements)
                )
                self._database.executemany("REPLACE INTO transfers VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise InputError(str(self._path), f"cannot be written ({error})") from error

    def transfers(self, column: str, value: str) -> list[Transfer]:
        """Return what has this ``id``, ``circuit`` or ``connection4``, the earliest first."""
        if column not in ("id", "circuit", "connection4"):
            raise ValueError(column)
        query = f"SELECT * FROM transfers WHERE {column} = ? ORDER BY first_ns, id, connection4"  # noqa: S608
        return [Transfer(*row) for row in self._database.execute(query, (value,))]


class Resolver:
    """Finds the connections of transfers and circuits in a catalogue."""

    def __init__(self, catalogue: Catalogue | None) -> None:
        self._catalogue = catalogue

    def __call__(self, name: str, identifier: str) -> list[tuple[Connection, int, int]]:
        """Return the connections, each with its first and last time; see `expression.Resolver`."""
        column = "id" if name == "transfer" else "circuit"
        found = self._catalogue.transfers(column, identifier) if self._catalogue else []
        if not found:
            raise UsageError(
                "query", f"no {name} {identifier!r} in the catalogue", f"a {name} of this store"
            )
        return used_by(found)


def used_by(transfers: Iterable[Transfer]) -> list[tuple[Connection, int, int]]:
    """Return the connections, each with its first and last time.

    Raises:
        InputError: one is none.
    """
    found = []
    for transfer in transfers:
        key = parse_key("connection4", transfer.connection4)
        if not isinstance(key, Connection):
            raise InputError("catalogue", f"{transfer.connection4!r}", "a connection")
        found.append((key, transfer.first_ns, transfer.last_ns))
    return found
