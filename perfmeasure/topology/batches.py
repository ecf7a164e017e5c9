"""Cuts the time series of a topology into requests of a bounded number of samples."""

# ruff: noqa: S608 - what is put into queries is this package's own names

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmeasure.topology import remotewrite
from perfmeasure.topology.families import Group, protected

if TYPE_CHECKING:
    import duckdb

BATCH_SAMPLES = 10_000
"""As many as Prometheus' and VictoriaMetrics' own senders put into a request, or so."""
_CHUNK_SAMPLES = 200_000


@dataclass(frozen=True)
class Batch:
    """The body of one request, and how many samples it has."""

    body: bytes
    count: int


def batches(
    connection: duckdb.DuckDBPyConnection,
    groups: Iterable[Group],
    *,
    batch_samples: int = BATCH_SAMPLES,
) -> Iterator[Batch]:
    """Yield all samples of the groups: series after series, each in the order of its times.

    Raises:
        MissingError: no snappy is installed.
    """
    pending: list[tuple[bytes, memoryview]] = []
    room = batch_samples
    for group in groups:
        for labels, samples in _series(connection, group):
            begin = 0
            while begin < len(samples):
                end = min(len(samples), begin + room * remotewrite.SAMPLE_BYTES)
                pending.append((labels, samples[begin:end]))
                room -= (end - begin) // remotewrite.SAMPLE_BYTES
                begin = end
                if not room:
                    yield Batch(remotewrite.request(pending), batch_samples)
                    pending, room = [], batch_samples
    if pending:
        yield Batch(remotewrite.request(pending), batch_samples - room)


def _series(
    connection: duckdb.DuckDBPyConnection, group: Group
) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the labels and the samples of each series of each family."""
    names = ", ".join(family.name for family in group.families)
    for first, last in _chunks(connection, group):
        found = connection.execute(
            f"SELECT id, {', '.join(group.labels)} FROM {group.series_table} "
            "WHERE id BETWEEN ? AND ? ORDER BY id",
            [first, last],
        ).fetchall()
        columns: dict[str, Any] = connection.execute(
            f"SELECT id, at_ms, {names} FROM {group.samples_table} "
            "WHERE id BETWEEN ? AND ? ORDER BY id, at_ms",
            [first, last],
        ).fetchnumpy()
        ends = np.searchsorted(columns["id"], [row[0] for row in found], side="right").tolist()
        for family in group.families:
            samples = memoryview(remotewrite.sample_bytes(columns["at_ms"], columns[family.name]))
            begin = 0
            for row, end in zip(found, ends, strict=True):
                labels = dict(zip(group.labels, map(protected, row[1:]), strict=True))
                head = remotewrite.label_bytes({"__name__": family.name, **labels})
                size = remotewrite.SAMPLE_BYTES
                yield head, samples[begin * size : end * size]
                begin = end


def _chunks(connection: duckdb.DuckDBPyConnection, group: Group) -> list[tuple[int, int]]:
    """Return first and last id of runs of series that fit into memory together."""
    found = connection.execute(
        f"""
        SELECT min(id), max(id) FROM (
            SELECT id, sum(count(*)) OVER (ORDER BY id) // {_CHUNK_SAMPLES} AS chunk
            FROM {group.samples_table} GROUP BY id
        ) GROUP BY chunk ORDER BY 1
        """
    ).fetchall()
    return [(first, last) for first, last in found]
