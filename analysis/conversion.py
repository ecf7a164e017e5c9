"""The commands ``convert`` and ``filter``; they print, the modules beside them do the work."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from perfmeasure import jsonio
from perfmeasure.analysis import (
    database,
    filters,
    foreign,
    merge,
    onionperf,
    period,
    rows,
    tables,
    torperf,
    validation,
)
from perfmeasure.errors import PerfmeasureError, UsageError
from perfmeasure.units import format_bytes, parse_bytes

PERFMEASURE = "perfmeasure-1.0"
DATABASES = (PERFMEASURE, *(f"onionperf-{version}" for version in onionperf.VERSIONS))
"""The databases that can be written."""
_TORPERF = "torperf-1.1"
_TABLES = {"csv": rows.to_csv, "parquet": rows.to_parquet}
TABLES = "tables"
"""The folder of Parquet tables."""
_FORMATS = (*DATABASES, _TORPERF, *_TABLES, TABLES)


def to_format(document: dict[str, Any], name: str, losses: Counter[str]) -> dict[str, Any]:
    """Return a perfmeasure-1.0 document as one of `DATABASES`; count what it cannot hold."""
    if name == PERFMEASURE:
        return document
    return onionperf.written(document, name.removeprefix("onionperf-"), losses)


def read(path: Path, losses: Counter[str]) -> dict[str, Any]:
    """Return a file's database, whatever its version, as perfmeasure-1.0.

    Raises:
        InputError: it is no database that we know, or does not follow its schema.
    """
    document = database.load(path)
    found = foreign.read(document, str(path), losses)
    if document["type"] != "perfmeasure":
        found["meta"]["inputs"] = [
            {
                "name": path.name,
                "kind": "database",
                "format": validation.kind_of(document, str(path)),
                # Of what it says, not of how it is packed or indented.
                "sha256": hashlib.sha256(jsonio.canonical(document)).hexdigest(),
                "not_carried_over": dict(sorted(losses.items())),
            }
        ]
    return found


def _say(where: str, what: str, losses: Mapping[str, int]) -> None:
    for name, count in sorted(losses.items()):
        click.echo(f"{where}: {what}: {name}: {count}", err=True)


@click.command("convert")
@click.argument(
    "paths", metavar="DATABASE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write; .xz, .gz or .zst at its end compresses a database. For torperf-1.1 "
    "and tables, the folder for the files.",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(_FORMATS),
    default=PERFMEASURE,
    show_default=True,
    help="What to write; tables are a folder of Parquet.",
)
@click.option(
    "--from", "first", metavar="YYYY-MM-DD", help="Only what ended on that UTC day or later."
)
@click.option(
    "--to", "last", metavar="YYYY-MM-DD", help="Only what ended on that UTC day or before."
)
def convert_command(
    paths: tuple[Path, ...], output: Path, format_name: str, first: str | None, last: str | None
) -> None:
    """Turn databases into another format, several into one.

    Each DATABASE is one of perfmeasure, or of OnionPerf, any version, plain or compressed. Several
    are merged: a nickname's records stand together, and ids that collide become ID#2.
    """
    documents = []
    for path in paths:
        losses: Counter[str] = Counter()
        documents.append(read(path, losses))
        _say(str(path), "not carried over", losses)
    document = merge.merge(documents)
    if first or last:
        before = _transfer_counts(document)
        document = period.cut(document, first, last)
        for nickname, count in _transfer_counts(document).items():
            said = f"{nickname}: {count} of {before[nickname]} transfers ended on these days"
            click.echo(said, err=True)
    losses = Counter()
    if format_name == _TORPERF:
        names = _save_folder(torperf.files(document, losses), output)
        said = f"{names} files"
    elif format_name == TABLES:
        tables.write([document], output, losses)
        said = f"{len(tables.TABLES)} tables"
    else:
        if format_name in _TABLES:
            database.save_bytes(_TABLES[format_name](document, losses), output)
        else:
            database.save(to_format(document, format_name, losses), output)
        said = format_bytes(output.stat().st_size)
    _say(str(output), f"{format_name} cannot hold", losses)
    click.echo(f"wrote {output} ({format_name}, {said})", err=True)


def _transfer_counts(document: Mapping[str, Any]) -> dict[str, int]:
    return {
        nickname: len(node.get("tgen", {}).get("transfers", ()))
        for nickname, node in document["data"].items()
    }


def _save_folder(files: Mapping[str, bytes], folder: Path) -> int:
    if folder.exists() and not folder.is_dir():
        raise UsageError(str(folder), "is a file", "a folder for the .tpf files")
    for name in files:
        if os.sep in name:
            raise UsageError(name, "a nickname that cannot be in a file's name", "a plain nickname")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PerfmeasureError(
            str(folder), f"cannot be made ({error.strerror})", next_step="write elsewhere with -o"
        ) from error
    for name, data in sorted(files.items()):
        database.save_bytes(data, folder / name)
    return len(files)


def _size(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    del context
    return None if text is None else parse_bytes(text, parameter.opts[0])


@click.command("filter")
@click.argument("path", metavar="DATABASE", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write; .xz, .gz or .zst at its end compresses.",
)
@click.option(
    "--include-fingerprints",
    "include",
    type=click.Path(path_type=Path),
    help="File of fingerprints, one a line: leave out circuits with any relay that is not in it.",
)
@click.option(
    "--exclude-fingerprints",
    "exclude",
    type=click.Path(path_type=Path),
    help="File of fingerprints, one a line: leave out circuits with any relay that is in it.",
)
@click.option("--guards", is_flag=True, help="Look up the first relay of a circuit only.")
@click.option(
    "--exits",
    is_flag=True,
    help="Look up the last relay only; none of circuits that carried a stream to an onion service.",
)
@click.option(
    "--exclude-cbt",
    is_flag=True,
    help="Leave out circuits launched before a circuit build timeout was learned.",
)
@click.option(
    "--from", "first", metavar="YYYY-MM-DD", help="Only transfers that ended that UTC day or later."
)
@click.option(
    "--to", "last", metavar="YYYY-MM-DD", help="Only transfers that ended that UTC day or before."
)
@click.option(
    "--destination", type=click.Choice(filters.DESTINATIONS), help="Only transfers to these."
)
@click.option(
    "--min-size",
    "min_bytes",
    callback=_size,
    metavar="SIZE",
    help="Only transfers of so much or more.",
)
@click.option(
    "--max-size",
    "max_bytes",
    callback=_size,
    metavar="SIZE",
    help="Only transfers of so much or less.",
)
@click.option("--outcome", type=click.Choice(filters.OUTCOMES), help="Only transfers with it.")
def filter_command(path: Path, output: Path, **asked: Any) -> None:
    """Mark what a question leaves out of a database; nothing is removed.

    Circuits and transfers that do not pass get "filtered_out": true, and "filters" says by what.
    Tables, .tpf files and OnionPerf's visualize then leave them out.
    """
    question = filters.Filter(**asked)
    if not question.entries():
        raise UsageError("filter", "no filter was given", "at least one, see --help")
    if (question.guards or question.exits) and not (question.include or question.exclude):
        wanted = "--include-fingerprints or --exclude-fingerprints with it"
        raise UsageError("--guards, --exits", "say where to look, not for what", wanted)
    losses: Counter[str] = Counter()
    document = filters.apply(read(path, losses), question)
    _say(str(path), "not carried over", losses)
    database.save(document, output)
    for nickname, node in document["data"].items():
        circuits = node.get("tor", {}).get("circuits", {})
        transfers = node.get("tgen", {}).get("transfers", {})
        out = sum("filtered_out" in circuit for circuit in circuits.values())
        kept = sum(filters.is_kept(document, node, transfer) for transfer in transfers.values())
        click.echo(
            f"{nickname}: {out} of {len(circuits)} circuits filtered out; "
            f"{kept} of {len(transfers)} transfers are left",
            err=True,
        )
    size = format_bytes(output.stat().st_size)
    click.echo(f"wrote {output} ({PERFMEASURE}, {size})", err=True)
