"""Servers for the tests of the topology: VictoriaMetrics and Prometheus, as Debian has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.topology import tsdb


@pytest.fixture
def start_server(
    require: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., tsdb.Program]]:
    """Start a server, by its name, with nothing in it; it is stopped when the test ends."""
    commands = {"victoria-metrics": tsdb.victoria_metrics, "prometheus": tsdb.prometheus}
    started: list[tsdb.Program] = []

    def start(
        name: str = "victoria-metrics", arguments: Mapping[str, str] | None = None, config: str = ""
    ) -> tsdb.Program:
        require(name)
        folder = tmp_path_factory.mktemp(name)
        if config:
            (folder / "prometheus.yml").write_text(config)

        def command(port: int, place: Path) -> list[str]:
            changed = [f"{option}={value}" for option, value in (arguments or {}).items()]
            return commands[name](port, place) + changed

        program = tsdb.Program(command, folder)
        started.append(program)
        program.start()
        return program

    yield start
    for program in started:
        program.stop(is_killed=True)


@pytest.fixture
def misbehaving() -> Iterator[tsdb.Misbehaving]:
    """A server that does as it is told."""
    with tsdb.misbehaving() as server:
        yield server
