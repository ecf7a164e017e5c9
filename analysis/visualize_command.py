"""The command ``visualize``."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perfmeasure.analysis import database, datasets, htmlpage, rows, visualcsv
from perfmeasure.analysis.figures import Figure, figures
from perfmeasure.errors import PerfmeasureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perfmeasure.analysis.datasets import Dataset

FORMATS = ("pdf", "csv", "png", "svg", "html")


@click.command("visualize")
@click.option(
    "-d",
    "--data",
    "asked",
    nargs=2,
    multiple=True,
    required=True,
    metavar="PATH LABEL",
    help="A database, a folder of them or a glob, and what to call it. May be given several times.",
)
@click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder for the files; made if it is not there.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(FORMATS),
    default=("pdf", "csv"),
    show_default=True,
    help="May be given several times.",
)
@click.option(
    "--percentile",
    "percent",
    type=click.FloatRange(0, 100),
    default=75.0,
    show_default=True,
    help="Downloads above it are outliers.",
)
@click.option(
    "--threshold",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="So many relays are shown of outliers.",
)
def visualize_command(
    asked: tuple[tuple[str, str], ...],
    prefix: Path,
    formats: tuple[str, ...],
    percent: float,
    threshold: int,
) -> None:
    """Draw datasets side by side, and write their figures as CSV.

    The files are those of OnionPerf's visualize, for databases of any version: pages of figures and
    of outliers, rows, statistics and outliers as CSV. png and svg have one file for each figure,
    html is one page with all of them.
    """
    counts = Counter(label for _, label in asked)
    if repeated := [label for label, count in counts.items() if count > 1]:
        raise UsageError("--data", f"the label {repeated[0]!r} comes twice", "a label for each")
    found = [datasets.load(place, label) for place, label in asked]
    for dataset in found:
        for row in dataset.rows:
            row["label"] = dataset.label
        if not dataset.rows:
            click.echo(f"{dataset.label}: no transfer ended; its figures say so", err=True)
    try:
        prefix.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        next_step = "write elsewhere with --prefix"
        got = f"cannot be made ({error.strerror})"
        raise PerfmeasureError(str(prefix), got, next_step=next_step) from error
    moment = f"{datetime.now(UTC):%Y-%m-%d_%H:%M:%S}"
    written: Counter[str] = Counter()
    for name, ending, data in _files(found, formats, percent, threshold):
        path = prefix / f"{name}.{moment}.{ending}"
        database.save_bytes(data, path)
        written[ending] += 1
        if ending in {"pdf", "csv", "html"}:
            click.echo(f"wrote {path}", err=True)
    for ending in ("png", "svg"):
        if written[ending]:
            where = prefix / f"*.{moment}.{ending}"
            click.echo(f"wrote {where}, {written[ending]} figures", err=True)


def _files(
    found: Sequence[Dataset], formats: Sequence[str], percent: float, threshold: int
) -> Iterator[tuple[str, str, bytes]]:
    """Yield the name, the ending and the content of each file that was asked for."""
    if "csv" in formats:
        yield "onionperf.viz", "csv", rows.as_csv(row for each in found for row in each.rows)
        yield "onionperf.viz.stats", "csv", visualcsv.statistics(found)
        for name, table in visualcsv.outlier_tables(found, percent).items():
            yield f"onionperf.{name}_outliers", "csv", table
    if set(formats) - {"csv"}:
        yield from _pictures(found, formats, list(figures(found, percent, threshold)))


def _pictures(
    found: Sequence[Dataset], formats: Sequence[str], everything: Sequence[Figure]
) -> Iterator[tuple[str, str, bytes]]:
    from perfmeasure.analysis import drawing  # noqa: PLC0415 - matplotlib takes long to import

    if "pdf" in formats:
        for name, is_outlier in (("viz", False), ("outliers", True)):
            pages = [figure for figure in everything if figure.is_outlier == is_outlier]
            yield f"onionperf.{name}", "pdf", drawing.pdf(pages)
    if "png" in formats:
        for figure in everything:
            yield figure.name, "png", drawing.image(figure, "png")
    if {"svg", "html"} & set(formats):
        drawn = [(figure, drawing.image(figure, "svg")) for figure in everything]
        if "svg" in formats:
            for figure, data in drawn:
                yield figure.name, "svg", data
        if "html" in formats:
            yield "perfmeasure.viz", "html", htmlpage.page(drawn, found)
