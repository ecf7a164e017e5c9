"""What this machine has and lacks for each part of perfmeasure, and what mends it.

`PARTS` says which checks belong to which part; the checks themselves are in `perfmeasure.checks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perfmeasure import checks, jsonio
from perfmeasure.checks import Check, Status
from perfmeasure.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PARTS: Mapping[str, tuple[Callable[[], Check], ...]] = {
    "measure": (checks.check_tor, checks.check_tgen, checks.check_packages),
    "flows": (
        checks.check_bcc,
        checks.check_kernel_headers,
        checks.check_bpf_right,
        checks.check_tracefs,
        checks.check_cgroup,
    ),
    "recorder": (checks.check_raw_socket, checks.check_libpcap, checks.check_native_core),
    "general": (
        checks.check_clock,
        checks.check_clocksource,
        checks.check_disk,
        checks.check_descriptors,
    ),
}
"""The checks of each part, in the order in which they are shown."""


def examine(parts: Iterable[str], prefix: Path) -> dict[str, list[Check]]:
    """Run the checks of ``parts``; ``prefix`` is where the data directory would be."""
    return {
        part: [
            checks.check_disk(prefix) if check is checks.check_disk else check()
            for check in PARTS[part]
        ]
        for part in parts
    }


def _print_table(outcome: dict[str, list[Check]]) -> None:
    colours = {Status.OK: "green", Status.WARNING: "yellow", Status.MISSING: "red"}
    table = Table(box=None, pad_edge=False, title_justify="left")
    for column in ("part", "check", "status", "found"):
        table.add_column(column, overflow="fold")
    console = Console(highlight=False, markup=False)
    for part, found in outcome.items():
        for index, check in enumerate(found):
            status = Text(check.status, style=colours[check.status])
            table.add_row("" if index else part, check.name, status, Text(check.found))
    console.print(table)
    for check in (check for found in outcome.values() for check in found if check.remedy):
        console.print(f"{check.name}: {check.remedy}", soft_wrap=True)


@click.command("doctor")
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    default=Path("perfmeasure-data"),
    show_default=True,
    help="The data directory whose disk is looked at.",
)
@click.pass_context
def doctor_command(
    context: click.Context, parts: tuple[str, ...], *, as_json: bool, prefix: Path
) -> None:
    """Show what this machine has and lacks, and what mends it.

    PART is measure, flows, recorder or general; all are shown when none is named.

    The exit status is 3 when something is missing that a named part needs, or that `measure` needs
    when no part is named, and 0 otherwise.
    """
    outcome = examine(dict.fromkeys(parts or PARTS), prefix)
    if as_json:
        document = {
            "parts": {
                part: [
                    {"check": c.name, "status": c.status, "found": c.found, "remedy": c.remedy}
                    for c in found
                ]
                for part, found in outcome.items()
            }
        }
        click.echo(jsonio.pretty(document))
    else:
        _print_table(outcome)
    deciding = parts or ("measure",)
    if any(check.status is Status.MISSING for part in deciding for check in outcome[part]):
        context.exit(ExitStatus.MISSING)
