"""``python -m perfmeasure.recorder.child``, the privileged child: records a measurement's packets.

It opens the capture, gives up its privileges, says ``READY`` on standard output and records until
SIGTERM or SIGINT, with a console as ``perfmeasure record`` has it. Every few seconds it says
``HEALTH`` and what it has recorded, by the thread that records: without that, it does nothing.
"""

from __future__ import annotations

import os

# Capabilities are each thread's own: a pool of threads that waits for work would keep them.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import dataclasses
import signal
import sys
import threading
import time
from pathlib import Path

import click

from perfmeasure import cli
from perfmeasure.flows import privileges
from perfmeasure.recorder.capture import Capture
from perfmeasure.recorder.configuration import Setup, setup_of_options
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.server import ConsoleServer
from perfmeasure.tether import HEALTH, READY

_HEALTH_SECONDS = 10.0
_LAST_SECONDS = 8


def _tell(text: str) -> None:
    click.echo(f"perfmeasure packets: {text}", err=True)


def record(interface: str, store: Path, setup: Setup) -> None:
    """Record until a signal asks to stop.

    Args:
        interface: its name.
        store: the folder, which is there; its owner is whom this process becomes.
        setup: what is recorded.

    Raises:
        MissingError: the machine lacks something, such as the interface.
        MeasurementError: another recorder writes there, or the interface went away.
    """
    stops: list[int] = []
    recorders: list[Recorder] = []

    def stop_soon(number: int, _frame: object) -> None:
        stops.append(number)
        for each in recorders:
            each.stop()
        # Whatever hinders us: nobody may be left to send SIGKILL (perfmeasure.tether).
        signal.alarm(_LAST_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_soon)
    with Capture(interface, setup, _tell) as opened:
        privileges.drop(store)
        recorder = Recorder(store, setup, _tell)
        recorders.append(recorder)
        try:
            with ConsoleServer(recorder, setup.console_port, _tell):
                recorder.submit(lambda _: click.echo(READY))
                threading.Thread(target=_say_health, args=(recorder,), daemon=True).start()
                if stops:  # before there was anything to stop
                    recorder.stop()
                recorder.follow(opened)
        finally:
            summary = recorder.summary() if recorder.recording is not None else ""
            recorder.close()
    click.echo(f"{HEALTH}{summary}")


def _say_health(recorder: Recorder) -> None:
    asked = None
    while asked is None or not asked.cancelled():
        time.sleep(_HEALTH_SECONDS)
        asked = recorder.submit(lambda _: click.echo(f"{HEALTH}{recorder.summary()}"))


@click.command("child")
@click.option("--interface", required=True, metavar="IFACE", help="What is captured.")
@click.option(
    "--store", required=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Where the packets are kept; a folder that is there.",
)  # fmt: skip
@click.option("--filter", "expression", required=True, metavar="EXPRESSION", help="Of pcap.")
@click.option("--cutoff", required=True, metavar="SIZE|none", help="Of each connection.")
@click.option("--budget", required=True, metavar="SIZE", help="Disk space of the store.")
def child_command(
    *, interface: str, store: Path, expression: str, cutoff: str, budget: str
) -> None:
    """Record packets until SIGTERM."""
    setup = setup_of_options({"cutoff": cutoff, "budget": budget})
    record(interface, store, dataclasses.replace(setup, filter=expression))


if __name__ == "__main__":
    sys.exit(cli.run(sys.argv[1:], child_command))
