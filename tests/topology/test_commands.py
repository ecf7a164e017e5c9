from __future__ import annotations

from click.testing import CliRunner

from perfmeasure.topology.commands import topology_command


def test_the_agent_is_one_of_its_commands() -> None:
    ran = CliRunner().invoke(topology_command, ["--help"])
    assert ran.exit_code == 0
    assert "collect" in ran.output
