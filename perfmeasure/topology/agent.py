"""The loop of whoever tells of services: from the kernel, or by polling, until a signal."""

from __future__ import annotations

import time

import click

from perfmeasure.flows.connection_source import ConnectionSource
from perfmeasure.flows.connections import Record
from perfmeasure.stopping import StopSignals
from perfmeasure.topology.service_log import ServiceRecorder

READY = "READY"
LOOK_SECONDS = 0.25
"""How often the ring is emptied: it holds what comes in that time many times over."""


def follow(recorder: ServiceRecorder, source: ConnectionSource | None, stops: StopSignals) -> None:
    """Say ``READY`` on standard error, and write until a signal comes.

    Args:
        recorder: has been made.
        source: the kernel's records; None if the recorder polls.
        stops: has been made.
    """
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
