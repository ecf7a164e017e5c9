"""``perfmeasure topology``: who calls whom, with the bytes, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from perfmeasure import jsonio
from perfmeasure.analysis import database, graph, topologydiff, topologyfiles, topologysource
from perfmeasure.analysis.topology import CATEGORIES, Window
from perfmeasure.errors import UsageError
from perfmeasure.topology import export_command
from perfmeasure.topology.collect_command import collect
from perfmeasure.units import format_bytes, parse_seconds

_EDGES_SHOWN = 40
_CHANGES_SHOWN = 20
_WIDE = 200
_PREFIX = Path("perfmeasure-data")
_PATH = click.Path(path_type=Path, readable=False)


class _Group(click.Group):
    """A group in which what is no command is an argument of ``show``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group("topology", cls=_Group)
def topology_command() -> None:
    """Tell which service calls which, across machines, with the bytes.

    Without the name of a command, show: perfmeasure topology LOGS is topology show LOGS.
    """


topology_command.add_command(collect)
topology_command.add_command(export_command.export)


@topology_command.command("show")
@click.argument("paths", metavar="[LOGS]...", nargs=-1, type=_PATH)
@click.option(
    "--from",
    "url",
    metavar="URL",
    help="Where VictoriaMetrics or Prometheus is, to ask it instead of reading logs; without "
    "--window, for the last day.",
)
@click.option(
    "--window",
    metavar="DURATION|START..END",
    help="Count what was sent in the last so many seconds of the logs (such as 5m), or between two "
    "times, UTC (2026-01-31T10:00:00) or Unix seconds.",
)
@click.option(
    "--group-by",
    type=click.Choice(graph.GROUPINGS),
    default="service",
    show_default=True,
    help="What a node is.",
)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(min=0),
    default=graph.MOST_EXTERNAL,
    show_default=True,
    help="So many peers outside, by bytes, have nodes of their own; the rest share one.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help=f"File to write; its suffix says what: {', '.join(topologyfiles.FORMATS)}.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def show_command(
    *, paths: tuple[Path, ...], url: str | None, window: str | None, group_by: str, top: int,
    output: Path | None, is_json: bool,
) -> None:  # fmt: skip
    """Show the edges, the largest first, and what became of every byte.

    LOGS are services.log files, folders with such files (the data directories of several machines
    together give the map across them), or one topology.json; perfmeasure-data, if none is given.
    """
    asked: dict[str, Any] = {
        "group_by": group_by,
        "window": parse_window(window) if window else None,
        "most_external": top,
    }
    if url and paths:
        raise UsageError("--from", "is given beside LOGS", "one of them")
    if url:
        document = export_command.document_from(url, **asked)
    else:
        prefixes = paths or (_PREFIX if _PREFIX.is_dir() else Path(),)
        document = topologysource.load(prefixes, say=_say, **asked)
    if output:
        database.save_bytes(topologyfiles.written(document, output), output)
        _say(f"wrote {output} ({format_bytes(output.stat().st_size)})")
    if is_json:
        click.echo(jsonio.canonical(document), nl=False)
    elif not output:
        _print(_edges_table(document))
        for line in coverage_lines(document["coverage"]):
            click.echo(line)


@topology_command.command("diff")
@click.argument("before", metavar="A", type=_PATH)
@click.argument("after", metavar="B", type=_PATH)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def diff_command(*, before: Path, after: Path, is_json: bool) -> None:
    """Say what appeared, vanished, grew or shrank from A to B.

    Each is a topology.json, a database with a topology, a services.log or a folder of such logs.
    """
    found = topologydiff.diff(
        topologysource.load([before], say=_say), topologysource.load([after], say=_say)
    )
    if is_json:
        click.echo(jsonio.canonical(found), nl=False)
        return
    for what in ("appeared", "vanished"):
        for node in found["nodes"][what]:
            click.echo(f"{what}: {node}")
    for what, changes in found["edges"].items():
        if what == "unchanged_count":
            click.echo(f"edges with the same bytes: {changes}")
        elif changes:
            _print(_changes_table(what, changes))


def parse_window(text: str) -> Window | float:
    """Return a time from and to, or the length of the last part of it in seconds.

    Raises:
        UsageError: it is neither.
    """
    if ".." not in text:
        seconds = parse_seconds(text, "--window")
        if seconds <= 0:
            raise UsageError("--window", f"{text!r}", "more than no time")
        return seconds
    window = Window(*(_moment(part) for part in text.split("..", 1)))
    if window.start_unix_ts >= window.end_unix_ts:
        raise UsageError("--window", f"{text!r} ends before it begins", "START..END")
    return window


def _moment(text: str) -> float:
    if re.fullmatch(r"\d{1,10}(\.\d+)?", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        wanted = "UTC, such as 2026-01-31T10:00:00, or Unix seconds"
        raise UsageError("--window", f"{text!r} is not a time", wanted) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def coverage_lines(coverage: Mapping[str, Any]) -> list[str]:
    """Return what became of the input, for people."""
    terms = ", ".join(
        f"{coverage[f'{name}_connections']} {name} ({format_bytes(coverage[f'{name}_bytes'])})"
        for name in CATEGORIES
        if name in {"matched", "external"} or coverage[f"{name}_connections"]
    )
    total = f"{coverage['input_connections']} connections"
    lines = [f"{total} ({format_bytes(coverage['input_bytes'])}): {terms}"]
    shares = [
        f"{coverage[f'share_{unit}']:.2%} of the {unit}"
        for unit in ("connections", "bytes")
        if f"share_{unit}" in coverage
    ]
    if shares:
        lines.append(f"attributed: {', '.join(shares)}")
    if count := coverage["polled_connections"]:
        lines.append(f"{count} connections were polled: short ones are missed")
    if count := coverage["without_bytes_connections"]:
        lines.append(f"{count} connections without a count of bytes")
    if count := coverage["estimated_bytes"]:
        lines.append(f"{format_bytes(count)} by an even spread over connections across its edges")
    lost = ", ".join(f"{count} {what}" for what, count in coverage["lost"].items())
    return [*lines, f"lost by the collectors: {lost}"] if lost else lines


def _edges_table(document: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("from", "to", "protocol"):
        table.add_column(name, overflow="fold")
    for name in ("connections", "sent", "received"):
        table.add_column(name, justify="right")
    edges = document["edges"]
    for edge in edges[:_EDGES_SHOWN]:
        table.add_row(
            edge["source"],
            edge["target"],
            topologyfiles.protocol_name(edge) + (" (inferred)" if edge["is_inferred"] else ""),
            str(edge["connections"]),
            format_bytes(edge["bytes_sent"]),
            format_bytes(edge["bytes_received"]),
        )
    if rest := edges[_EDGES_SHOWN:]:
        size = format_bytes(sum(edge["bytes"] for edge in rest))
        table.add_row(f"and {len(rest)} more", "", "", "", size, "")
    return table


def _changes_table(what: str, changes: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, title=what, title_justify="left")
    for name in ("from", "to", "protocol"):
        table.add_column(name, overflow="fold")
    for name in ("before", "after", "share before", "share after"):
        table.add_column(name, justify="right")
    for change in changes[:_CHANGES_SHOWN]:
        table.add_row(
            change["source"],
            change["target"],
            topologyfiles.protocol_name(change),
            *(format_bytes(change[f"bytes_{when}"]) for when in ("before", "after")),
            *(f"{change.get(f'share_{when}', 0):.1%}" for when in ("before", "after")),
        )
    if rest := changes[_CHANGES_SHOWN:]:
        table.add_row(f"and {len(rest)} more")
    return table


def _print(table: Table) -> None:
    console = Console(soft_wrap=False)
    # What is piped has no width; nothing is cut there.
    Console(width=console.width if console.is_terminal else _WIDE, markup=False).print(table)


def _say(text: str) -> None:
    click.echo(text, err=True)
