"""The command ``report``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from perfmeasure import jsonio
from perfmeasure.analysis import datasets, period
from perfmeasure.analysis.report import Report
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_BAR = 30


@click.command("report")
@click.argument("place", metavar="PLACE", default="perfmeasure-data/docroot")
@click.option("--day", metavar="YYYY-MM-DD", help="Only what ended on that UTC day.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def report_command(place: str, day: str | None, as_json: bool) -> None:
    """Say in a page of text how the transfers went, and where the time went.

    PLACE is a database of any version, a folder of them, or a glob; without it, the docroot of a
    measurement here.
    """
    report = Report()
    for _, document in datasets.documents(place):
        report.add(period.cut(document, day, day) if day else document)
    if report.is_empty:
        got = f"nothing of {day}" if day else "neither a transfer nor a circuit"
        next_step = "look at the log of the generator with `perfmeasure analyze`"
        raise InputError(place, got, "something that was measured", next_step)
    found = report.record()
    if as_json:
        click.echo(jsonio.compact(found))
        return
    console = Console(highlight=False)
    _head(console, found)
    _transfers(console, found)
    _phases(console, found)
    _slowest(console, found)
    _tor(console, found)
    for note, count in found["notes"].items():
        console.print(f"note: {note}" + (f" ({count} times)" if count > 1 else ""), markup=False)


def _moment(unix_ts: float) -> str:
    return f"{datetime.fromtimestamp(unix_ts, UTC):%Y-%m-%d %H:%M:%S}"


def _head(console: Console, found: Mapping[str, Any]) -> None:
    for name, host in found["hosts"].items():
        versions = [*(f"tor {version}" for version in host["tor"]), *host["generators"]]
        console.print(f"{name} ({host['address']})  {', '.join(versions)}", markup=False)
    if found["unix_ts_start"] is not None:
        span = f"{_moment(found['unix_ts_start'])} to {_moment(found['unix_ts_end'])} UTC"
        console.print(span, markup=False)


def _seconds(quantiles: Mapping[str, float] | None, name: str) -> str:
    return "-" if quantiles is None else f"{quantiles[name]:.3f}"


def _transfers(console: Console, found: Mapping[str, Any]) -> None:
    if not found["transfers"]:
        console.print("\nNo transfers.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("transfers to")
    for name in (
        "size", "number", "failed", "first byte s", "95 %", "last byte s", "95 %",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for group in found["transfers"]:
        first, last = group["ttfb_seconds"], group["ttlb_seconds"]
        times = [_seconds(each, name) for each in (first, last) for name in ("p50", "p95")]
        numbers = [group["size"], str(group["transfers"]), str(group["failures"])]
        table.add_row(group["destination"], *numbers, *times)
    console.print(table)
    if found["errors"]:
        errors = ", ".join(f"{count} {code}" for code, count in found["errors"].items())
        console.print(f"errors: {errors}", markup=False)
    incomplete = sum(group["incomplete"] for group in found["transfers"])
    if incomplete:
        console.print(f"not ended: {incomplete}")
    links = ", ".join(f"{count} {status}" for status, count in found["links"].items())
    console.print(f"links to Tor's streams: {links}", markup=False)


def _phases(console: Console, found: Mapping[str, Any]) -> None:
    if not found["phases"]:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("where the time went")
    table.add_column("of all", justify="right")
    table.add_column("median s", justify="right")
    table.add_column("")
    for phase, each in found["phases"].items():
        bar = "█" * round(each["share"] * _BAR)
        table.add_row(phase, f"{each['share']:.1%}", f"{each['median_seconds']:.4f}", bar)
    console.print(table)


def _slowest(console: Console, found: Mapping[str, Any]) -> None:
    if not found["slowest"]:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("slowest", "host", "start (UTC)"):
        table.add_column(name)
    table.add_column("last byte s", justify="right")
    table.add_column("longest phase")
    for each in found["slowest"]:
        phase = each["longest_phase"]
        said = f"{phase} {each['longest_phase_seconds']:.3f} s" if phase else "-"
        start = _moment(each["unix_ts_start"])
        table.add_row(each["id"], each["nickname"], start, f"{each['ttlb_seconds']:.3f}", said)
    console.print(table)


def _tor(console: Console, found: Mapping[str, Any]) -> None:
    circuits = dict(found["circuits"])
    if circuits:
        launched, built = circuits.pop("launched"), circuits.pop("built", 0)
        said = f"circuits: {launched} launched, {built} built"
        if times := found["build_seconds"]:
            said += f" (three hops: median {times['p50']:.3f} s, 95 % {times['p95']:.3f} s)"
        for reason, count in circuits.items():
            said += f", {count} {reason}"
        console.print(said, markup=False)
    if found["guards"]:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(f"first relay (of {found['guards_used']})")
        table.add_column("nickname")
        table.add_column("country")
        table.add_column("circuits", justify="right")
        for guard in found["guards"]:
            names = [guard.get(field, "-") for field in ("nickname", "country")]
            table.add_row(guard["fingerprint"], *names, str(guard["circuits"]))
        console.print(table)
    if found["connections"]:
        console.print(
            f"kernel: {found['connections']} connections, "
            f"{found['retransmitted_segments']} segments sent again"
        )
