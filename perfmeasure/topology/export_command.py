"""``perfmeasure topology export``, and what ``--from`` reads: to time series and back."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click

from perfmeasure.analysis import graph, topologysource
from perfmeasure.analysis.topology import Window
from perfmeasure.topology import database, families, fetching, rows
from perfmeasure.topology.batches import batches
from perfmeasure.topology.importer import Importer
from perfmeasure.topology.server import Server
from perfmeasure.units import format_bytes, format_seconds

_DAY_SECONDS = 86400.0
_BEFORE_SECONDS = 600.0
"""A counter that was scraped has a sample at least so often."""
_PATH = click.Path(path_type=Path, readable=False)


@click.command("export")
@click.argument("paths", metavar="LOGS...", nargs=-1, required=True, type=_PATH)
@click.option(
    "--to",
    "url",
    required=True,
    metavar="URL",
    envvar="PERFMEASURE_EXPORT_TO",
    help="Where VictoriaMetrics is, such as http://127.0.0.1:8428.",
)
def export(*, paths: tuple[Path, ...], url: str) -> None:
    """Import the topology of LOGS as time series, with the times of the logs.

    LOGS are services.log files, or folders with such files. The same logs may be imported again:
    what is there already stays as it is.
    """
    server = Server(url)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        folder = Path(place)
        collection = topologysource.read_rows(paths, folder, say=_say)
        document = graph.section(folder, lost=collection.lost)
        with database.with_series(folder, document) as (connection, left_out):
            for group, count in left_out.items():
                _say(f"{group}: {count} series, the smallest, are in one named {families.OTHER}")
            done = Importer(server, say=_say).send(
                batches(connection, (*families.RAW, *families.JOINED))
            )
    server.close()
    seconds = time.monotonic() - began
    _say(
        f"{server}: has {done.samples} samples, sent in {done.requests} requests "
        f"({format_bytes(done.bytes)}), in {format_seconds(seconds)}"
    )


def document_from(
    url: str,
    *,
    window: Window | float | None,
    group_by: str,
    most_external: int,
) -> dict[str, Any]:
    """Return the topology of the time series that a server has.

    Args:
        url: where VictoriaMetrics or Prometheus is.
        window: from and to, or so many seconds until now; the last day, if there is none.
        group_by: as of `graph.section`, as is ``most_external``.
        most_external: how many external peers stand for themselves.

    Raises:
        InputError: the server refuses, or its answer is not one.
        MeasurementError: the server cannot be reached, or is busy.
        UsageError: the URL is none.
    """
    if not isinstance(window, Window):
        now = time.time()
        window = Window(now - (window or _DAY_SECONDS), now)
    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        tables_from(url, window, Path(place))
        section = graph.section(
            Path(place), group_by=group_by, window=window, most_external=most_external
        )
        return graph.enveloped(section)


def tables_from(url: str, window: Window, folder: Path) -> None:
    """Write the rows that the time series of a server mean into a folder (`services.TABLES`).

    Raises:
        InputError, MeasurementError, UsageError: as `document_from`.
    """
    server = Server(url)
    # From the begin of the day, where counters are zero, and a little before: whether they are.
    midnight = window.start_unix_ts // _DAY_SECONDS * _DAY_SECONDS
    path = folder / "series"
    fetching.fetch(server, midnight - _BEFORE_SECONDS, window.end_unix_ts, path)
    with database.connected() as connection:
        rows.write(connection, path, folder, window)
    path.unlink()


def _say(text: str) -> None:
    click.echo(text, err=True)
