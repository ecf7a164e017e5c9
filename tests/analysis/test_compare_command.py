from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perfmeasure import cli, jsonio
from perfmeasure.analysis import datasets
from perfmeasure.analysis.compare_command import Condition
from perfmeasure.analysis.datasets import Dataset
from perfmeasure.errors import UsageError
from tests.analysis import simulated


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the paths ``fast``, ``slow`` and ``empty`` be simulated datasets."""

    def load(place: str, label: str) -> Dataset:
        if place == "empty":
            return Dataset(label)
        random = np.random.default_rng({"fast": 1, "slow": 2}[place])
        return simulated.dataset(label, random, factor={"fast": 1.0, "slow": 1.5}[place])

    monkeypatch.setattr(datasets, "load", load)


@pytest.mark.usefixtures("run")
class TestCommand:
    def test_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["compare", "fast", "slow"]) == 0
        out = capsys.readouterr().out
        assert "A: 500 transfers of host" in out
        assert "TGEN/TIMEOUT" in out
        assert "B is slower" in out
        assert "the data do not tell" in out  # of the success rate

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["compare", "slow", "fast", "--json", "--seed", "7"]) == 0
        document = jsonio.loads(capsys.readouterr().out)
        found = document["metrics"]["ttfb_p50"]
        assert found["verdict"] == "different"
        assert found["ci_low"] < found["effect"] < found["ci_high"] < 0
        assert document["warnings"] == []
        assert document["seed"] == 7
        assert document["datasets"]["a"]["transfers"] == 500

    @pytest.mark.parametrize(
        ("condition", "status"),
        [
            ("ttfb_p50 > +5%", 1),
            ("ttfb_p50>5%", 1),
            ("ttfb_p50 > +80%", 0),
            ("ttfb_p50 < -5%", 0),
            ("throughput_p50 < -5%", 1),
            ("success_rate < -1%", 0),
        ],
    )
    def test_fail_if(self, condition: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["compare", "fast", "slow", "--fail-if", condition]) == status
        assert ("--fail-if" in capsys.readouterr().err) == bool(status)

    @pytest.mark.parametrize("condition", ["ttfb_p50", "ttfb_p50 = 5%", "> 5%", "nosuch > 5%"])
    def test_no_condition(self, condition: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["compare", "fast", "slow", "--fail-if", condition]) == 2
        assert "--fail-if" in capsys.readouterr().err

    def test_nothing_to_compare(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["compare", "fast", "empty"]) == 4
        assert "empty: holds no transfer that ended" in capsys.readouterr().err

    def test_a_negative_seed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["compare", "fast", "slow", "--seed", "-1"]) == 2
        assert "--seed" in capsys.readouterr().err


def test_real_databases(fixtures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(fixtures / "onionperf-run" / "expected.onionperf-3.1.json")
    assert cli.run(["compare", path, path]) == 0
    captured = capsys.readouterr()
    assert "hold the same transfers" in captured.err
    assert "ttfb_p50.onion" in captured.out


def test_condition() -> None:
    assert Condition.parse(" ttfb_p50.5MiB < -2.5 % ") == Condition(
        "ttfb_p50.5MiB < -2.5 %", "ttfb_p50.5MiB", "<", -0.025
    )
    with pytest.raises(UsageError, match="no condition"):
        Condition.parse("ttfb_p50 > 5")
