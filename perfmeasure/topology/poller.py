"""``python -m perfmeasure.topology.poller``: tells of a measurement's services without any right.

``measure`` starts it where the kernel's records cannot be had. It lists the sockets of the programs
that its parent has started, and is done when it gets SIGTERM or SIGINT.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from perfmeasure import cli
from perfmeasure.errors import UsageError
from perfmeasure.flows import cgroup
from perfmeasure.logfile import DAY_SECONDS, LogFile
from perfmeasure.recordlog import now
from perfmeasure.stopping import StopSignals
from perfmeasure.topology import agent, processes
from perfmeasure.topology.naming import Known, of_measurement
from perfmeasure.topology.relays import relays_of
from perfmeasure.topology.service_log import LOG_NAME, Scope, ServiceRecorder
from perfmeasure.units import parse_seconds

_POLL_SECONDS = 1.0


def _report(text: str) -> None:
    click.echo(f"perfmeasure topology: {text}", err=True)


@click.command("poller")
@click.option(
    "--prefix",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Data directory of the measurement.",
)
@click.option(
    "--archive",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Rotate the log into this folder.",
)
@click.option("--instance-id", required=True, metavar="NAME", help="What the machine is called.")
@click.option(
    "--rotate-every",
    default="1 day",
    show_default=True,
    metavar="DURATION",
    help="How often, counted from midnight UTC.",
)
def poller_command(*, prefix: Path, archive: Path, instance_id: str, rotate_every: str) -> None:
    """Tell of the services of the measurement that started this, by polling, until SIGTERM."""
    rotate_every_seconds = parse_seconds(rotate_every, "--rotate-every")
    if not 1 <= rotate_every_seconds <= DAY_SECONDS:
        raise UsageError("--rotate-every", f"{rotate_every!r}", "1 second to 1 day")
    stops = StopSignals()
    parent = os.getppid()
    recorder = ServiceRecorder(
        LogFile(prefix / "services" / LOG_NAME, archive, round(rotate_every_seconds)),
        Scope(instance_id, "polling", "measurement", _POLL_SECONDS, now()),
        Known(of_measurement(prefix), cgroup.GroupPaths(cgroup.mount_point())),
        _report,
        lost=None,
        relays=relays_of(prefix),
        pids=lambda: processes.descendants(parent),
    )
    agent.follow(recorder, None, stops)


if __name__ == "__main__":
    sys.exit(cli.run(sys.argv[1:], poller_command))
