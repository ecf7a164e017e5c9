"""The reader of tor's events: a torctl log, each event stamped with the moment of its arrival.

A process of its own (``python -m perfmeasure.tor.monitor``, or ``perfmeasure monitor``) with
nothing to do but this, because a late reader makes late stamps. See `perfmeasure.tor.reader` for
how it reads and `perfmeasure.tor.eventlog` for what it writes.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perfmeasure.errors import UsageError
from perfmeasure.logfile import DAY_SECONDS, LogFile
from perfmeasure.tor.control import ControlAddress
from perfmeasure.tor.eventlog import EventLog, Sink, StandardOutput
from perfmeasure.tor.reader import DEFAULT_EVENTS, MonitorConfig, Reader, Stop
from perfmeasure.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LAST_SECONDS = 8
_EVENT_NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")


def run_monitor(config: MonitorConfig) -> None:
    """Read events until SIGTERM or SIGINT, then write what has come and return.

    To be called in the main thread.

    Raises:
        ControlError: the first connection failed, and ``config.is_waiting`` was not set.
        UsageError: tor knows none of the events.
        MeasurementError: the log cannot be opened.
    """
    sink: Sink = StandardOutput()
    if config.log:
        sink = LogFile(config.log, config.archive, config.rotate_every_seconds)
    log = EventLog(sink, _report)
    with _stop_at_signals() as stop:
        try:
            try:
                Reader(config, log, _report, stop).run()
            finally:
                log.close()
        except BrokenPipeError:
            # Like any program whose reader has gone; nothing may fail on it again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report(text: str) -> None:
    click.echo(f"perfmeasure monitor: {text}", err=True)


@contextlib.contextmanager
def _stop_at_signals() -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a `Stop`."""
    stop = Stop()
    # A handler runs between two steps of Python, which may be just before a wait; what the
    # interpreter itself writes to the descriptor ends the wait in that case too.
    wakeup = signal.set_wakeup_fd(stop.writable_fd, warn_on_full_buffer=False)
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop_soon(*_: object) -> None:
        stop.set()
        # Whatever hinders us: nobody may be left to send SIGKILL, since a harness that was killed
        # sends SIGTERM only (perfmeasure.tether).
        signal.alarm(_LAST_SECONDS)

    before = [signal.signal(number, stop_soon) for number in numbers]
    try:
        yield stop
    finally:
        signal.alarm(0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        stop.close()


def parse_events(names: Iterable[str], more: Iterable[str] = ()) -> tuple[str, ...]:
    """Return event names from the command line, each once.

    Any name is allowed (tor decides); several may stand in one word, with commas between.

    Args:
        names: the events, the default ones when there are none.
        more: what comes on top of them.

    Raises:
        UsageError: something that cannot be a name.
    """
    events = [*(_split(names) or DEFAULT_EVENTS), *_split(more)]
    for name in events:
        if not _EVENT_NAME.match(name):
            raise UsageError(
                "--events", f"{name!r} is not an event", "names such as CIRC or STREAM"
            )
    return tuple(dict.fromkeys(events))


def _split(words: Iterable[str]) -> list[str]:
    return [name.upper() for word in words for name in word.split(",") if name]


@click.command("monitor")
@click.option(
    "-p",
    "--port",
    type=click.IntRange(1, 65535),
    default=9051,
    show_default=True,
    help="Control port on this machine.",
)
@click.option(
    "--control",
    metavar="ADDRESS",
    help="Control port elsewhere: HOST:PORT or unix:PATH, instead of --port.",
)
@click.option(
    "-l",
    "--log",
    default="-",
    show_default=True,
    metavar="PATH",
    help="Where to write; - is standard output.",
)
@click.option(
    "-e",
    "--events",
    multiple=True,
    metavar="EVENT…",
    help=f"Events to record instead of {' '.join(DEFAULT_EVENTS)}.",
)
@click.argument("more_events", nargs=-1, metavar="")
@click.option(
    "-c",
    "--custom-events",
    multiple=True,
    metavar="EVENT…",
    help="Events to record on top of those.",
)
@click.option(
    "--cookie",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Tor's control_auth_cookie, when it is not where tor says.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File with the control password; PERFMEASURE_CONTROL_PASSWORD may hold it, too.",
)
@click.option(
    "--archive",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Rotate the log into this folder.",
)
@click.option(
    "--rotate-every",
    default="1 day",
    show_default=True,
    metavar="DURATION",
    help="How often, counted from midnight UTC.",
)
@click.option("-n", "--nickname", metavar="NAME", help="Name of this host in the log.")
@click.option("--wait", is_flag=True, help="Keep trying when nothing answers at first.")
def monitor_command(
    *, port: int, control: str | None, log: str, events: tuple[str, ...],
    more_events: tuple[str, ...], custom_events: tuple[str, ...], cookie: Path | None,
    password_file: Path | None, archive: Path | None, rotate_every: str,
    nickname: str | None, wait: bool,
) -> None:  # fmt: skip
    """Record the events of a running tor, each with the time of its arrival.

    Runs until interrupted. Survives restarts of tor and marks the gaps.
    """
    rotate_every_seconds = parse_seconds(rotate_every, "--rotate-every")
    if not 1 <= rotate_every_seconds <= DAY_SECONDS:
        raise UsageError("--rotate-every", f"{rotate_every!r}", "1 second to 1 day")
    optional = {"nickname": nickname} if nickname else {}
    run_monitor(
        MonitorConfig(
            address=ControlAddress.parse(control) if control else ControlAddress(port=port),
            log=None if log == "-" else Path(log),
            events=parse_events([*events, *more_events], custom_events),
            cookie=cookie,
            password=_read_password(password_file),
            archive=archive,
            rotate_every_seconds=round(rotate_every_seconds),
            is_waiting=wait,
            **optional,
        )
    )


def _read_password(path: Path | None) -> str | None:
    """Return the control password from its file or the environment, never from an argument."""
    if path is None:
        return os.environ.get("PERFMEASURE_CONTROL_PASSWORD")
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("--password-file", f"{path} cannot be read ({error})") from error


if __name__ == "__main__":
    from perfmeasure import cli

    sys.exit(cli.run(["monitor", *sys.argv[1:]]))
