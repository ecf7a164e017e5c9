"""``python -m perfmeasure.flows.collector``, the privileged child: records what the kernel sees.

It loads and attaches the programs, says ``READY`` on standard output, gives up its privileges and
writes the log until SIGTERM or SIGINT. It does nothing else. What is attached goes with it, however
it ends.
"""

from __future__ import annotations

import os

# Capabilities are each thread's own: a pool of threads that waits for work would keep them.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import signal
import sys
import time
from pathlib import Path

import click

from perfmeasure import cli
from perfmeasure.errors import MissingError, UsageError
from perfmeasure.flows import cgroup, existing, privileges
from perfmeasure.flows.connection_log import ConnectionRecorder
from perfmeasure.flows.connection_source import ConnectionSource
from perfmeasure.logfile import DAY_SECONDS, LogFile
from perfmeasure.units import parse_seconds

READY = "READY"
LOOK_SECONDS = 0.1
"""How often the ring is emptied: it holds what comes in a second many times over."""

_LAST_SECONDS = 8


def _report(text: str) -> None:
    click.echo(f"perfmeasure flows: {text}", err=True)


def collect(
    log_path: Path,
    archive: Path | None,
    rotate_every_seconds: int,
    group: Path | None,
    snapshot_seconds: float,
) -> None:
    """Record until a signal asks to stop.

    Args:
        log_path: the live log.
        archive: where it is rotated to, if it is.
        rotate_every_seconds: length of a period of the log.
        group: the control group whose sockets are recorded; None is the whole machine.
        snapshot_seconds: how often live connections are told of.

    Raises:
        MissingError: the kernel or the machine lacks something.
        MeasurementError: the log cannot be opened.
    """
    stops: list[int] = []

    def stop_soon(number: int, _frame: object) -> None:
        stops.append(number)
        # Whatever hinders us: nobody may be left to send SIGKILL (perfmeasure.tether).
        signal.alarm(_LAST_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_soon)
    root = cgroup.mount_point()
    if group is not None and not (group / "cgroup.procs").exists():
        raise MissingError(
            str(group), "not a cgroup v2", next_step="name a folder below a mounted cgroup v2"
        )
    attached_to = group or root
    source = ConnectionSource(attached_to)
    pids = existing.pids_of_group(group) if group else existing.pids_of_machine()
    existing.adopt(source.storage_fd, pids)
    log = LogFile(log_path, archive, rotate_every_seconds)
    privileges.drop(log_path.parent)
    recorder = ConnectionRecorder(
        source,
        log,
        snapshot_seconds,
        {
            "source": "sockops" if attached_to else "tracepoints",
            "scope": "cgroup" if group else "machine",
        },
        _report,
    )
    click.echo(READY)
    while not stops:
        time.sleep(LOOK_SECONDS)
        recorder.look()
    recorder.stop(signal.Signals(stops[0]).name)
    source.close()


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
def collector_command(
    *, log: Path, archive: Path | None, rotate_every: str, group: Path | None,
    snapshot_seconds: float,
) -> None:  # fmt: skip
    """Record the machine's TCP connections until SIGTERM."""
    rotate_every_seconds = parse_seconds(rotate_every, "--rotate-every")
    if not 1 <= rotate_every_seconds <= DAY_SECONDS:
        raise UsageError("--rotate-every", f"{rotate_every!r}", "1 second to 1 day")
    collect(log, archive, round(rotate_every_seconds), group, snapshot_seconds)


if __name__ == "__main__":
    sys.exit(cli.run(sys.argv[1:], collector_command))
