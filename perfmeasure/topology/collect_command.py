"""``perfmeasure topology collect``: tells of this machine's services for as long as it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import click

from perfmeasure.config import default_host
from perfmeasure.errors import MissingError, UsageError
from perfmeasure.flows import cgroup, existing, privileges
from perfmeasure.flows.connection_source import ConnectionSource
from perfmeasure.flows.connections import Record
from perfmeasure.logfile import DAY_SECONDS, LogFile
from perfmeasure.recordlog import now
from perfmeasure.stopping import StopSignals
from perfmeasure.topology.datagram_source import DatagramSource
from perfmeasure.topology.naming import Known, Rule, by_rules, load_rules
from perfmeasure.topology.service_log import LOG_NAME, Scope, ServiceRecorder
from perfmeasure.units import parse_bytes, parse_seconds

READY = "READY"
LOOK_SECONDS = 0.25
"""How often the ring is emptied: it holds what comes in that time many times over."""

_LISTING_SECONDS, _POLLING_SECONDS = 10.0, 1.0


@dataclass(frozen=True)
class Settings:
    """What the command line asked for."""

    prefix: Path
    instance_id: str
    rules: tuple[Rule, ...]
    poll_seconds: float | None
    rotate_every_seconds: int
    rotate_at_bytes: int | None


@click.command("collect")
@click.option(
    "-o",
    "--prefix",
    type=click.Path(path_type=Path),
    default=Path("perfmeasure-data"),
    show_default=True,
    metavar="DIR",
    help="Data directory: the log is services/services.log in it, rotated into log_archive.",
)
@click.option(
    "--instance-id",
    metavar="NAME",
    help="What this machine is called in the topology; the short host name, if it is not given.",
)
@click.option(
    "--rules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file that names services by command, unit, control group or port.",
)
@click.option(
    "--interval",
    metavar="DURATION",
    help="How often listeners are listed and live connections told of: 10 s if it is not given, "
    "1 s where connections are polled.",
)
@click.option(
    "--source",
    type=click.Choice(["auto", "ebpf", "polling"]),
    default="auto",
    show_default=True,
    help="Where connections come from: the kernel's own records, or its list of sockets, which "
    "misses what is short. auto lists where the kernel does not let us record.",
)
@click.option(
    "--rotate-every",
    default="1 day",
    show_default=True,
    metavar="DURATION",
    help="How often the log rotates, counted from midnight UTC.",
)
@click.option(
    "--rotate-at",
    default="256 MiB",
    show_default=True,
    metavar="SIZE",
    help="Rotate a log that has grown to this size, too; 0 is never.",
)
def collect(
    *, prefix: Path, instance_id: str | None, rules: Path | None, interval: str | None, source: str,
    rotate_every: str, rotate_at: str,
) -> None:  # fmt: skip
    """Tell of this machine's services and their connections until SIGTERM or Ctrl-C.

    It tells of the network namespace that it runs in.
    """
    poll_seconds = parse_seconds(interval, "--interval") if interval else None
    if poll_seconds is not None and not 0.1 <= poll_seconds <= 3600:
        raise UsageError("--interval", f"{interval!r}", "100 ms to 1 hour")
    rotate_every_seconds = parse_seconds(rotate_every, "--rotate-every")
    if not 1 <= rotate_every_seconds <= DAY_SECONDS:
        raise UsageError("--rotate-every", f"{rotate_every!r}", "1 second to 1 day")
    settings = Settings(
        prefix,
        instance_id or default_host(),
        load_rules(rules) if rules else (),
        poll_seconds,
        round(rotate_every_seconds),
        parse_bytes(rotate_at, "--rotate-at") or None,
    )
    began_unix_ts = now()
    kernel = datagrams = None
    if source != "polling":
        try:
            root = cgroup.mount_point()
            kernel = ConnectionSource(root)
            existing.adopt(kernel.storage_fd, existing.pids_of_machine())
            if root is None:
                _report("no cgroup v2 is mounted, so that UDP is not seen")
            else:
                datagrams = DatagramSource(root)
        except MissingError as error:
            if source == "ebpf":
                raise
            _report(f"{error}. Connections are polled, so that short ones are missed")
    _run(settings, kernel, datagrams, began_unix_ts)


def _run(
    settings: Settings,
    source: ConnectionSource | None,
    datagrams: DatagramSource | None,
    began_unix_ts: float,
) -> None:
    stops = StopSignals()
    is_polling = source is None
    scope = Scope(
        settings.instance_id,
        "polling" if is_polling else "ebpf",
        "host",
        settings.poll_seconds or (_POLLING_SECONDS if is_polling else _LISTING_SECONDS),
        began_unix_ts,
    )
    log = LogFile(
        settings.prefix / "services" / LOG_NAME,
        settings.prefix / "log_archive",
        settings.rotate_every_seconds,
        settings.rotate_at_bytes,
    )
    known = Known(by_rules(settings.rules), cgroup.GroupPaths(cgroup.mount_point()))
    recorder = ServiceRecorder(
        log, scope, known, _report, lost=source.lost if source else None, datagrams=datagrams
    )
    privileges.keep_only(privileges.KEPT_WHILE_LISTING)
    click.echo(READY, err=True)
    try:
        while not stops:
            time.sleep(LOOK_SECONDS)
            if source is not None:
                if recorder.is_due:
                    source.snapshot()
                recorder.take([Record.unpack(data) for data in source.read()])
            recorder.look()
    finally:
        if source is not None:
            source.snapshot(with_idle=True)
            recorder.take([Record.unpack(data) for data in source.read()])
            source.close()
        recorder.stop(stops.reason)


def _report(text: str) -> None:
    click.echo(f"perfmeasure topology: {text}", err=True)
