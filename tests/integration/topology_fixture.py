"""The logs of three machines, played once for all tests of a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import topology_machines
from topology_machines import Amount, Edge, Machine


class Played(NamedTuple):
    """What was told of three machines, and what has happened on them."""

    folder: Path
    """The log of ``web`` is ``web/services/services.log`` in it."""
    machines: dict[str, Machine]
    truth: dict[Edge, Amount]


@pytest.fixture(scope="session")
def three_machine_logs(
    require: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Played:
    """Three machines told of by their agents; see `topology_machines`."""
    require("root", "bpf", "cgroup2", "ip")
    folder = tmp_path_factory.mktemp("machines")
    with topology_machines.three_machines() as world:
        with topology_machines.agents(world, folder):
            topology_machines.play(world)
        return Played(folder, world.machines, world.truth)
