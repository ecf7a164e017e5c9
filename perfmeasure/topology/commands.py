"""``perfmeasure topology``: services, and who calls whom."""

from __future__ import annotations

import click

from perfmeasure.topology.collect_command import collect


@click.group("topology")
def topology_command() -> None:
    """Tell which services there are and who calls whom."""


topology_command.add_command(collect)
