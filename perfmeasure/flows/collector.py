"""``python -m perfmeasure.flows.collector``, the privileged child: records what the kernel sees.

It loads and attaches the programs, gives up its privileges, says ``READY`` on standard output and
writes connections and windows until SIGTERM or SIGINT. It does nothing else, and all of it in one
thread. What is attached goes with it, however it ends.
"""

from __future__ import annotations

import os

# Capabilities are each thread's own: a pool of threads that waits for work would keep them.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import duckdb  # noqa: F401 - now, since the user that this becomes may not be able to read it

from perfmeasure import cli
from perfmeasure.errors import MissingError, UsageError
from perfmeasure.flows import cgroup, existing, grouphooks, privileges
from perfmeasure.flows.connection_log import ConnectionRecorder
from perfmeasure.flows.connection_source import ConnectionSource
from perfmeasure.flows.counter import FlowCounter
from perfmeasure.flows.window_recorder import WindowRecorder
from perfmeasure.logfile import DAY_SECONDS, LogFile
from perfmeasure.recordlog import now
from perfmeasure.stopping import StopSignals
from perfmeasure.topology.datagram_source import DatagramSource
from perfmeasure.topology.naming import Known, of_measurement
from perfmeasure.topology.service_log import LOG_NAME, Scope, ServiceRecorder
from perfmeasure.units import parse_seconds

READY = "READY"
LOOK_SECONDS = 0.1
"""How often the ring is emptied: it holds what comes in a second many times over."""

_SERVICES_SECONDS = 5.0


def _report(text: str) -> None:
    click.echo(f"perfmeasure flows: {text}", err=True)


@dataclass(frozen=True)
class Settings:
    """What is recorded, and where it goes."""

    log_path: Path
    archive: Path | None
    """Where the log is rotated to, if it is."""
    rotate_every_seconds: int
    group: Path | None
    """The control group whose sockets are recorded; None is the whole machine."""
    snapshot_seconds: float
    """How often live connections are told of."""
    windows: Path | None
    """Where windows of the group's packets go; they are not counted if it is None."""
    window_ns: int
    """Length of a window."""
    services: Path | None
    """Data directory of the group's measurement, in which its services are told of, if at all."""
    instance_id: str
    """What the machine is called there."""


def collect(settings: Settings) -> None:
    """Record until a signal asks to stop.

    Raises:
        MissingError: the kernel or the machine lacks something.
        MeasurementError: a log cannot be opened, or packets are not accounted for.
    """
    stops = StopSignals()
    root = cgroup.mount_point()
    group = settings.group
    if group is not None and not (group / "cgroup.procs").exists():
        raise MissingError(
            str(group), "not a cgroup v2", next_step="name a folder below a mounted cgroup v2"
        )
    attached_to = group or root
    began_unix_ts = now()
    source = ConnectionSource(attached_to)
    pids = existing.pids_of_group(group) if group else existing.pids_of_machine()
    existing.adopt(source.storage_fd, pids)
    counter = None
    if group is not None and settings.windows is not None:
        counter = FlowCounter(grouphooks.both_ways(group), settings.window_ns, is_timed=False)
        counter.start()
    log = LogFile(settings.log_path, settings.archive, settings.rotate_every_seconds)
    services = _service_recorder(settings, source, began_unix_ts)
    privileges.drop(settings.log_path.parent)
    recorder = ConnectionRecorder(
        source,
        log,
        settings.snapshot_seconds,
        {
            "source": "sockops" if attached_to else "tracepoints",
            "scope": "cgroup" if group else "machine",
        },
        _report,
        tap=services.take if services is not None else lambda _records: None,
    )
    looks: list[Callable[[], None]] = [recorder.look]
    if services is not None:
        looks.append(services.look)
    packets = None
    if counter is not None and settings.windows is not None:
        packets = WindowRecorder(counter, settings.windows, settings.archive, _report)
        looks.append(packets.look)
    click.echo(READY)
    try:
        while not stops:
            time.sleep(LOOK_SECONDS)
            for look in looks:
                look()
    finally:
        recorder.stop(stops.reason)
        if services is not None:
            services.stop(stops.reason)
        source.close()
    if packets is not None:
        packets.stop()


def _service_recorder(
    settings: Settings, source: ConnectionSource, began_unix_ts: float
) -> ServiceRecorder | None:
    if settings.services is None:
        return None
    known = Known(of_measurement(settings.services), cgroup.GroupPaths(cgroup.mount_point()))
    scope = Scope(
        settings.instance_id,
        "ebpf",
        "measurement" if settings.group else "host",
        _SERVICES_SECONDS,
        began_unix_ts,
        group=settings.group,
    )
    path = settings.services / "services" / LOG_NAME
    log = LogFile(path, settings.archive, settings.rotate_every_seconds)
    datagrams = DatagramSource(settings.group) if settings.group else None
    recorder = ServiceRecorder(log, scope, known, _report, lost=source.lost, datagrams=datagrams)
    recorder.look()  # what was there before is found only with the rights of now
    return recorder


@click.command("collector")
@click.option(
    "--log", required=True, type=click.Path(path_type=Path), metavar="PATH", help="The log."
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
@click.option(
    "--cgroup",
    "group",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The cgroup v2 whose sockets are recorded; all of the machine without it.",
)
@click.option(
    "--snapshot-seconds",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="How often live connections are told of.",
)
@click.option(
    "--windows",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Count the packets of the cgroup, too, and write their windows into this folder.",
)
@click.option(
    "--window", default="1 s", show_default=True, metavar="DURATION", help="Length of a window."
)
@click.option(
    "--services",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Data directory of the measurement: its services are told of in services/.",
)
@click.option("--instance-id", default="", metavar="NAME", help="What the machine is called there.")
def collector_command(
    *, log: Path, archive: Path | None, rotate_every: str, group: Path | None,
    snapshot_seconds: float, windows: Path | None, window: str, services: Path | None,
    instance_id: str,
) -> None:  # fmt: skip
    """Record TCP connections, and packets by windows, until SIGTERM."""
    rotate_every_seconds = parse_seconds(rotate_every, "--rotate-every")
    if not 1 <= rotate_every_seconds <= DAY_SECONDS:
        raise UsageError("--rotate-every", f"{rotate_every!r}", "1 second to 1 day")
    window_seconds = parse_seconds(window, "--window")
    # The loop looks ten times a second, and a window may wait for as long as two more.
    if not 0.1 <= window_seconds <= 3600:
        raise UsageError("--window", f"{window!r}", "100 ms to 1 hour")
    if windows is not None and group is None:
        raise UsageError("--windows", "given without --cgroup", "both: it counts in a cgroup")
    collect(
        Settings(
            log,
            archive,
            round(rotate_every_seconds),
            group,
            snapshot_seconds,
            windows,
            round(window_seconds * 1e9),
            services,
            instance_id,
        )
    )


if __name__ == "__main__":
    sys.exit(cli.run(sys.argv[1:], collector_command))
