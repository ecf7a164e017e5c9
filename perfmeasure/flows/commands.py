"""``perfmeasure flows``: packets per flow and window, counted in the kernel."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from perfmeasure import jsonio
from perfmeasure.errors import UsageError
from perfmeasure.flows import interfaces, keys, privileges, summary
from perfmeasure.flows.collector import Collector
from perfmeasure.flows.ledger import Ledger
from perfmeasure.flows.report import Report
from perfmeasure.flows.summary import Reduction
from perfmeasure.flows.window_store import WindowStore
from perfmeasure.flows.windows import DEFAULT_FLOWS
from perfmeasure.units import log_stamp, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perfmeasure.flows.keys import Array
    from perfmeasure.flows.windows import Window

_DEFAULT_TOP = 10
_DRAW_SECONDS = 1.0


@dataclass(frozen=True)
class Settings:
    """What the command line asked for."""

    length_ns: int
    duration_seconds: float | None
    top_count: int | None
    is_service_key: bool
    is_json: bool


@click.command("flows")
@click.option(
    "-i",
    "--interface",
    "names",
    multiple=True,
    metavar="IFACE",
    help="Interface to count on; may be given several times. All that are up, if none is given.",
)
@click.option(
    "--direction",
    type=click.Choice(["auto", "ingress", "egress", "both"]),
    default="auto",
    show_default=True,
    help="Which way to count; auto is both, but on loopback, where each packet passes twice, "
    "ingress only.",
)
@click.option(
    "--hook",
    type=click.Choice(["tc", "xdp"]),
    default="tc",
    show_default=True,
    help="Where to count what comes in; what goes out is counted by tc.",
)
@click.option(
    "--key",
    type=click.Choice(["flow", "service"]),
    default="flow",
    show_default=True,
    help="flow counts by both addresses and ports, service leaves the client's port out.",
)
@click.option(
    "--window", default="1 s", show_default=True, metavar="DURATION", help="Length of a window."
)
@click.option(
    "--max-flows",
    type=click.IntRange(1, 4_194_304),
    default=DEFAULT_FLOWS,
    show_default=True,
    help="Flows a window has room for; the packets of others are counted as full.",
)
@click.option(
    "--top",
    "top_count",
    type=click.IntRange(1),
    metavar="N",
    help=f"Flows to show, those with the most packets; {_DEFAULT_TOP}, and all with --json.",
)
@click.option(
    "--duration", metavar="DURATION", help="Stop by itself after this time, and say what was seen."
)
@click.option(
    "--json", "is_json", is_flag=True, help="Print one JSON object at the end and nothing before."
)
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Data directory, in which kernel/windows gets every window as Parquet.",
)
def flows_command(
    *, names: tuple[str, ...], direction: str, hook: str, key: str, window: str, max_flows: int,
    top_count: int | None, duration: str | None, is_json: bool, prefix: Path | None,
) -> None:  # fmt: skip
    """Count packets per flow and window in the kernel, exactly.

    Runs until interrupted, or for --duration. In every window, the packets and bytes that were seen
    are those that are in the table, that found no room, that came too late, or that no flow could
    be made of; if that does not hold, the command fails. Needs root, or the rights that
    `perfmeasure doctor flows` names.
    """
    length_seconds = parse_seconds(window, "--window")
    if not 0.01 <= length_seconds <= 3600:
        raise UsageError("--window", f"{window!r}", "10 ms to 1 hour")
    settings = Settings(
        length_ns=round(length_seconds * 1e9),
        duration_seconds=None if duration is None else parse_seconds(duration, "--duration"),
        top_count=top_count,
        is_service_key=key == "service",
        is_json=is_json,
    )
    hooks = interfaces.choose_hooks(
        names or interfaces.up_interfaces(), direction, is_xdp=hook == "xdp"
    )
    if not hooks:
        raise UsageError("--interface", "no interface is up", "one that is there, by its name")
    collector = Collector(
        hooks, settings.length_ns, max_flows, is_service_key=settings.is_service_key
    )
    with collector:
        _Run(collector, settings, prefix).run()


class _Run:
    """One run of the command."""

    def __init__(self, collector: Collector, settings: Settings, prefix: Path | None) -> None:
        self._collector = collector
        self._settings = settings
        self._names = interfaces.names_by_number(collector.hooks)
        self._store = prefix and WindowStore(prefix / "kernel" / "windows", self._names)

    def run(self) -> None:
        """Count until told to stop; then print what was seen.

        Raises:
            MissingError: an interface has no such hook.
            MeasurementError: packets are not accounted for, or a window cannot be stored.
        """
        # Without an end, sums over the whole run would grow without one, too.
        is_summing = self._settings.is_json or self._settings.duration_seconds is not None
        with _stop_at_signals() as stop, self._screen() as draw:
            self._collector.start()
            privileges.keep_only(privileges.KEPT_WHILE_COUNTING)
            latest = draw and _Latest(lambda *figures: draw(self._report(*figures)))
            self._ledger = Ledger(
                self._store or None,
                is_summing=is_summing,
                on_window=latest.add if latest else None,
            )
            try:
                self._sweep_until(stop)
            finally:
                table = self._ledger.close()
        if self._settings.is_json:
            click.echo(jsonio.compact(self._document(table)))
        else:
            click.echo(self._report(table, self._whole_reduction(), is_last=True).text())

    def _sweep_until(self, stop: threading.Event) -> None:
        duration = self._settings.duration_seconds
        end = math.inf if duration is None else time.monotonic() + duration
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            stop.wait(min(max(self._collector.windows.wait_ns() / 1e9, 0.0), left))
            self._ledger.add(self._collector.sweep())
        self._ledger.add(self._collector.stop())

    @contextlib.contextmanager
    def _screen(self) -> Iterator[Callable[[Report], None] | None]:
        """Yield what shows a report while the run goes on, or None."""
        if self._settings.is_json:
            yield None
        elif sys.stdout.isatty():
            console = Console(highlight=False, markup=False, emoji=False)
            with Live(console=console, auto_refresh=False, transient=True) as live:
                yield lambda report: live.update(Text(report.text()), refresh=True)
        else:
            yield _print_line

    def _report(self, table: Array, reduction: Reduction, *, is_last: bool = False) -> Report:
        return Report(
            flows=table,
            seconds=reduction.seconds,
            terms=self._collector.terms,
            reduction=reduction,
            programs=self._collector.program_statistics(),
            top_count=self._settings.top_count or _DEFAULT_TOP,
            services=tuple(summary.services(table, self._names))
            if self._settings.is_service_key
            else (),
            hooks=tuple(self._collector.hook_counts()) if is_last else (),
            overflow=dict(self._ledger.overflow),
        )

    def _whole_reduction(self) -> Reduction:
        seconds = (self._collector.ended_ns - self._collector.began_ns) / 1e9
        return Reduction(self._collector.terms.drained.packets, self._ledger.summary_count, seconds)

    def _document(self, table: Array) -> dict[str, Any]:
        collector, top = self._collector, self._settings.top_count
        document: dict[str, Any] = {
            "accounting": collector.terms.fields(),
            "interfaces": [count.fields() for count in collector.hook_counts()],
            "unparsed_by_reason": collector.windows.unparsed_by_reason(),
            "full_by_error": collector.windows.full_by_error(),
            "overflow": [
                {
                    "direction": keys.DIRECTIONS[direction],
                    "protocol": protocol,
                    "packets": total.packets,
                    "bytes": total.bytes,
                }
                for (direction, protocol), total in sorted(self._ledger.overflow.items())
            ],
            "reduction": self._whole_reduction().fields(),
            "programs": [
                {
                    "function": name,
                    "run_count": run.run_count,
                    "ns_per_run": round(run.run_time_ns / run.run_count, 1),
                }
                for name, run in collector.program_statistics().items()
                if run.run_count
            ],
            "window_seconds": self._settings.length_ns / 1e9,
            "duration_seconds": round((collector.ended_ns - collector.began_ns) / 1e9, 6),
        }
        if self._settings.is_service_key:
            found = summary.services(table, self._names)[:top]
            document["services"] = [service.fields() for service in found]
        rows = summary.top(table, top)
        document["flows"] = summary.flow_fields(rows, self._names, self._ledger.times)
        return document


class _Latest:
    """Gathers windows, and shows what was in them about once a second.

    Args:
        show: called with the flows, one row each, and what they were reduced to.
    """

    def __init__(self, show: Callable[[Array, Reduction], None]) -> None:
        self._show = show
        self._tables: list[Array] = []
        self._shown = time.monotonic()

    def add(self, window: Window) -> None:
        """Take a window in."""
        self._tables.append(window.flows)
        seconds = time.monotonic() - self._shown
        if seconds < _DRAW_SECONDS:
            return
        table = keys.merge(self._tables)
        summaries = sum(len(part) for part in self._tables)
        self._show(table, Reduction(keys.total(table).packets, summaries, seconds))
        self._tables.clear()
        self._shown = time.monotonic()


def _print_line(report: Report) -> None:
    total = keys.total(report.flows)
    click.echo(
        f"{log_stamp(time.time())} {len(report.flows):,} flows, {total.packets:,} packets, "
        f"{total.bytes:,} bytes, reduction {report.reduction.ratio:,.1f}x"
    )


@contextlib.contextmanager
def _stop_at_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
