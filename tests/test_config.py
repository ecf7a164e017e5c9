from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmeasure.config import MeasureConfig, Network, load_toml
from perfmeasure.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"onion_only": True, "inet_only": True}, "both were given"),
        ({"single_onion": True, "inet_only": True}, "both were given"),
        ({"nickname": "a b"}, "letters, digits and dashes"),
        ({"stop_at": "("}, "wanted a regex"),
        ({"publish_packets": True, "record": "off"}, "given with --record off"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        MeasureConfig(**settings)


def test_pauses_are_short_on_the_testnet_and_as_asked_elsewhere() -> None:
    assert MeasureConfig().pauses_seconds == (300, 300)
    testnet = MeasureConfig(network=Network.TESTNET)
    assert testnet.pauses_seconds == (0, 1)
    asked = MeasureConfig(network=Network.TESTNET, pause_initial_seconds=5, pause_between_seconds=0)
    assert asked.pauses_seconds == (5, 0)


def test_kinds_of_destination() -> None:
    assert MeasureConfig().kinds == ("exit", "onion")
    assert MeasureConfig(onion_only=True).kinds == ("onion",)
    assert MeasureConfig(inet_only=True).kinds == ("exit",)


def test_the_key_stays_in_private_unless_asked_otherwise() -> None:
    assert MeasureConfig(prefix=Path("p")).private == Path("p/private")
    assert MeasureConfig(key_prefix=Path("k")).private == Path("k")


def test_the_host_has_a_name_that_a_database_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "my_host.example.org")
    assert MeasureConfig().host == "my-host"
    assert MeasureConfig(nickname="op-1").host == "op-1"


def test_a_file_may_use_dashes(tmp_path: Path) -> None:
    path = tmp_path / "perfmeasure.toml"
    path.write_text('num-transfers = 5\nnetwork = "testnet"\n')
    assert load_toml(path, {"num_transfers": "num_transfers", "network": "network"}) == {
        "num_transfers": 5,
        "network": "testnet",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("transfers = 5", "transfers: no such setting; wanted one of num_transfers"),
        ("num_transfers = ", "not TOML"),
        ("[num_transfers]\na = 1", "a table; wanted a plain value"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "perfmeasure.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_toml(path, {"num_transfers": "count"})
    with pytest.raises(UsageError, match="cannot be read"):
        load_toml(tmp_path / "none.toml", {})
