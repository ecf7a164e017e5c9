from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perfmeasure import measurement
from perfmeasure.config import MeasureConfig, Network
from perfmeasure.errors import UsageError
from perfmeasure.measure_command import measure_command


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[MeasureConfig]:
    """What would have been measured."""
    configs: list[MeasureConfig] = []

    def run(config: MeasureConfig) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr(measurement, "run", run)
    return configs


def invoke(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(measure_command, arguments, env=env, catch_exceptions=False)


def test_the_defaults_are_those_of_onionperf(asked: list[MeasureConfig]) -> None:
    assert invoke().exit_code == 0
    (config,) = asked
    assert config == MeasureConfig()
    assert config.network is Network.PUBLIC
    assert (config.transfer_size_bytes, config.listen_port, config.num_transfers) == (
        5 * 2**20, 8080, 0,
    )  # fmt: skip


def test_command_line_wins_over_environment_over_file(
    asked: list[MeasureConfig], tmp_path: Path
) -> None:
    file = tmp_path / "perfmeasure.toml"
    file.write_text(
        'num_transfers = 1\nnickname = "file"\ntgen-transfer-size = "1 MiB"\nonion_only = true\n'
        'network = "testnet"\nevents = ["CIRC_BW", "INFO"]\n'
    )
    environment = {"PERFMEASURE_NUM_TRANSFERS": "2", "PERFMEASURE_NICKNAME": "environment"}
    arguments = ["--config", str(file), "--num-transfers", "3"]
    assert invoke(*arguments, env=environment).exit_code == 0
    (config,) = asked
    assert config.num_transfers == 3
    assert config.nickname == "environment"
    assert config.transfer_size_bytes == 2**20
    assert config.onion_only
    assert config.network is Network.TESTNET
    assert config.events == ("CIRC_BW", "INFO")


def test_the_names_of_onionperf_work_too(asked: list[MeasureConfig]) -> None:
    arguments = "--tgen-num-transfers 7 -o -s -n op-x --drop-guards 24 --tgen-pause-between 5"
    assert invoke(*arguments.split(), "--stop-at", "done.*").exit_code == 0
    (config,) = asked
    assert (config.num_transfers, config.onion_only, config.single_onion) == (7, True, True)
    assert (config.nickname, config.drop_guards_hours) == ("op-x", 24)
    assert config.pauses_seconds == (300, 5)
    assert config.stop_at == "done.*"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--rotate-every 0", "wanted 1 second to 1 day"),
        ("--rotate-every 2days", "wanted 1 second to 1 day"),
        ("--http-port 70000", "70000 is not in the range"),
        ("--network tornet", "'tornet' is not one of"),
        ("--config /no/such/file", "does not exist"),
    ],
)
def test_wrong_values_are_refused(asked: list[MeasureConfig], arguments: str, said: str) -> None:
    result = invoke(*arguments.split())
    assert result.exit_code == 2
    assert said in result.output
    assert not asked


def test_a_size_that_is_none_names_its_option() -> None:
    with pytest.raises(UsageError, match="--tgen-transfer-size: '5 parsecs' is not a size"):
        invoke("--tgen-transfer-size", "5 parsecs")


def test_a_dry_run_shows_the_plan_and_starts_nothing(
    asked: list[MeasureConfig], tmp_path: Path
) -> None:
    prefix = tmp_path / "data"
    arguments = ["--dry-run", "--network", "testnet", "--prefix", str(prefix)]
    result = invoke(*arguments, "--tgen-listen-port", "0", "--num-transfers", "4")
    assert result.exit_code == 0
    assert not asked
    assert not prefix.exists()
    for part in ("SocksPort 127.0.0.1:", "HiddenServicePort", "stream_exit", "stream_onion"):
        assert part in result.output
    assert '"num_transfers": 4' in result.output
