"""The commands ``analyze`` and ``validate``; they print, the modules beside them do the work."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import click

from perfmeasure.analysis import (
    conversion,
    database,
    pipeline,
    remote,
    scans,
    source,
    statistics,
    tables,
    validation,
)
from perfmeasure.analysis.geoip import CountryTable
from perfmeasure.errors import InputError, UsageError
from perfmeasure.units import format_bytes

_FAULTS_SHOWN = 20
_NICKNAME = re.compile(r"[A-Za-z0-9._-]+\Z")
# What cannot be read is told by the readers, as any other input that cannot be used.
_PATH = click.Path(path_type=Path, readable=False)


@click.command("analyze")
@click.argument("texts", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write; .xz, .gz or .zst at its end compresses. For tables, a folder.",
)
@click.option("-n", "--nickname", help="Key of the data; without it, the host in the logs.")
@click.option("-a", "--address", help="Address that the measurement was made from.")
@click.option("-d", "--date", metavar="YYYY-MM-DD", help="Only what ended on that UTC day.")
@click.option(
    "--geoip",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Table of the countries of addresses, for guards, such as tor's geoip; may be repeated.",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice((*conversion.DATABASES, conversion.TABLES)),
    default="perfmeasure-1.0",
    show_default=True,
    help="Which database to write; tables are a folder of Parquet, for many hosts.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    help="Scan logs in so many processes; without it, in one for each core if there is much to do.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Scan logs on the workers of this Dask scheduler, such as tcp://host:8786.",
)
@click.option(
    "--cache",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep what is found in each log here, and scan only logs that are not there.",
)
@click.pass_obj
def analyze_command(  # noqa: PLR0917 - click passes them by name
    packets: database.Packets | None,
    texts: tuple[str, ...],
    output: Path,
    nickname: str | None,
    address: str | None,
    date: str | None,
    geoip: tuple[Path, ...],
    format_name: str,
    workers: int | None,
    scheduler: str | None,
    cache: Path | None,
) -> None:
    """Turn logs into a database.

    Each PATH is a log of TGen, of Tor's control port or of the kernel's connections, a folder with
    such logs in it (a measurement's --prefix, or many of them), or - for standard input; plain or
    compressed. It may be a URL that fsspec knows, such as s3://bucket/logs. The result does not
    depend on how, where and in what order the logs are scanned.
    """
    if nickname is not None and not _NICKNAME.match(nickname):
        wanted = "letters, digits, dashes, dots and underscores"
        raise UsageError("--nickname", f"{nickname!r} cannot be a key", wanted)
    if output.is_file() and source.find([output])[0].kind in source.LOGS:
        wanted = "another name: what was measured is not overwritten"
        raise UsageError(str(output), "is a log", wanted)
    if workers and scheduler:
        raise UsageError("--workers, --scheduler", "both are given", "one of them")
    paths = [remote.path_of(text) for text in texts]
    losses: Counter[str] = Counter()
    with scans.prepared(
        processes=workers,
        scheduler=scheduler,
        cache=cache,
        say=lambda text: click.echo(text, err=True),
        is_read_again=format_name == conversion.TABLES,
    ) as prepare:
        asked: dict[str, Any] = {
            "nickname": nickname,
            "measurement_ip": address,
            "date": date,
            "geoip": [CountryTable(path) for path in geoip],
            "prepare": prepare,
        }
        if format_name == conversion.TABLES:
            tables.write(map(_told, pipeline.analyze_each(paths, **asked)), output, losses)
        else:
            document = _told(pipeline.analyze(paths, packets=packets, **asked))
            database.save(conversion.to_format(document, format_name, losses), output)
    for what, count in sorted(losses.items()):
        click.echo(f"{format_name} cannot hold: {what}: {count}", err=True)
    click.echo(f"wrote {output} ({format_name}, {format_bytes(_size_of(output))})", err=True)


def _size_of(output: Path) -> int:
    """Return the bytes of a file, or of the tables in a folder."""
    files = output.glob("*.parquet") if output.is_dir() else [output]
    return sum(file.stat().st_size for file in files)


def _told(document: dict[str, Any]) -> dict[str, Any]:
    """Say on stderr what became of the logs, and what is in the database."""
    for line in itertools.chain(_input_lines(document), _result_lines(document)):
        click.echo(line, err=True)
    return document


def _input_lines(document: dict[str, Any]) -> list[str]:
    said = []
    for log in document["meta"]["inputs"]:
        name = log["name"]
        if "looks_like" in log:
            said.append(f"{name}: not used: {log['looks_like']}")
            continue
        if "lines" not in log:
            said.append(f"{name}: empty")
            continue
        lines = log["lines"]
        rejected = sum(lines["rejected"].values())
        role = f"{log['kind']} of the {log.get('side', 'kernel')}"
        if not log["is_in_data"]:
            role += " (counted, not in the database)"
        said.append(
            f"{name}: {role}: {lines['total']} lines, {lines['used']} used, "
            f"{lines['skipped']} not needed, {rejected} rejected"
        )
        said += [f"  {count} rejected: {why}" for why, count in lines["rejected"].items()]
        said += [f"  {first}" for first in log["rejected_first"]]
    return said


def _result_lines(document: dict[str, Any]) -> list[str]:
    said = []
    for nickname, node in document["data"].items():
        single = {"data": {nickname: node}}
        for kind, found in statistics.describe(single).destinations.items():
            failed = found.count - found.successes - found.incomplete
            said.append(
                f"{nickname}: {found.count} transfers by {kind}: {found.successes} succeeded, "
                f"{failed} failed, {found.incomplete} not complete, {found.linked} linked to Tor"
            )
        transfers = node.get("tgen", {}).get("transfers", {})
        if not any(transfer["is_complete"] for transfer in transfers.values()):
            said.append(f"{nickname}: no transfer had ended in these logs")
        if "kernel" in node:
            links = ", ".join(
                f"{counts['linked']} of {sum(counts.values())} {what}"
                for what, counts in node["kernel"]["links"].items()
            )
            count = len(node["kernel"]["connections"])
            said.append(f"{nickname}: {count} connections of the kernel; linked to them: {links}")
        counts = [t["packets"]["count"] for t in transfers.values() if "packets" in t]
        if counts:
            found = sum(count > 0 for count in counts)
            said.append(f"{nickname}: packets of {found} of {len(counts)} transfers on disk")
        steps = document["meta"]["sources"].get(nickname, {}).get("clock_steps", [])
        if steps:
            said.append(f"{nickname}: the clock was set {len(steps)} times (meta.sources)")
    if not said and document["meta"]["inputs"]:
        said.append("no client's log among these: no transfers")
    if geoip := document["meta"].get("geoip"):
        guards = geoip["guards"]
        said.append(
            f"country of {guards['with_country']} of {sum(guards.values())} guards found: "
            f"{guards['without_address']} without an address in the logs, "
            f"{guards['not_in_tables']} not in the tables"
        )
    return said


@click.command("validate")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=_PATH)
def validate_command(paths: tuple[Path, ...]) -> None:
    """Check databases against their schema, and name each fault by its full path.

    Each FILE is one of perfmeasure, or of OnionPerf, any version, plain or compressed. Exits with
    4 when one of them is not as it should be.
    """
    invalid = 0
    for path in paths:
        try:
            document = database.load(path)
            kind = validation.kind_of(document, str(path))
        except InputError as error:
            click.echo(str(error), err=True)
            invalid += 1
            continue
        faults = list(itertools.islice(validation.errors(document, str(path)), _FAULTS_SHOWN + 1))
        if not faults:
            click.echo(f"{path}: valid {kind}")
            continue
        invalid += 1
        for fault in faults[:_FAULTS_SHOWN]:
            click.echo(f"{path}: {fault}", err=True)
        if len(faults) > _FAULTS_SHOWN:
            click.echo(f"{path}: and more", err=True)
    if invalid:
        raise InputError("validate", f"{invalid} of {len(paths)} files do not follow their schema")
