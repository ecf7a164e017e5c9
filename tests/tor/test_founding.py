"""perfmeasure.tor.founding: what happens when a network does not come about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.tor import founding
from perfmeasure.tor.founding import consensus_unix_ts, forget_votes, found
from perfmeasure.tor.relay import NextVote, Relay
from perfmeasure.tor.testnet import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def test_a_relay_that_dies_is_named_with_its_last_words(
    tmp_path: Path, require: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    require("tor", "tor-gencert")
    monkeypatch.setattr(founding, "_LEADS_SECONDS", (1.0, 1.0))
    original = founding.write_torrcs

    def spoil(relays: Sequence[Relay], vote: NextVote) -> None:
        original(relays, vote)
        with relays[1].torrc_path.open("a") as torrc:
            torrc.write("NoSuchOption 1\n")

    monkeypatch.setattr(founding, "write_torrcs", spoil)
    relays = Layout(authorities=1, exits=1).relays(tmp_path)
    said: list[str] = []
    with pytest.raises(MeasurementError, match=r"in 2 attempts.*exit0: ended.*NoSuchOption"):
        found(relays, "tor", "tor-gencert", said.append, lambda _seconds: None)
    assert sum("trying again" in line for line in said) == 2


def test_pause_can_end_it(tmp_path: Path, require: Callable[..., None]) -> None:
    require("tor", "tor-gencert")

    def pause(_seconds: float) -> None:
        raise MeasurementError("test", "enough")

    with pytest.raises(MeasurementError, match="enough"):
        found([Relay("exit0", tmp_path / "exit0")], "tor", "tor-gencert", lambda _: None, pause)


def test_votes_are_forgotten_and_keys_are_not(tmp_path: Path) -> None:
    relays = Layout(authorities=1, exits=1).relays(tmp_path)
    votes = ("cached-consensus", "v3-status-votes", "diff-cache/1", "state")
    names = ("keys/secret_id_key", "cached-microdescs", "cached-descriptors", *votes)
    for relay in relays:
        for name in names:
            (relay.data / name).parent.mkdir(parents=True, exist_ok=True)
            (relay.data / name).touch()
    forget_votes(relays)
    left = [{name for name in names if (relay.data / name).exists()} for relay in relays]
    assert left == [{names[0]}, set(names[:3])]


def test_time_of_a_consensus(tmp_path: Path) -> None:
    relay = Relay("exit0", tmp_path)
    assert consensus_unix_ts(relay) == 0
    relay.data.mkdir()
    path = relay.data / "cached-microdesc-consensus"
    path.write_text("network-status-version 3 microdesc\nvalid-after 2026-11-22 03:11:44\nx\n")
    assert consensus_unix_ts(relay) == 1_795_317_104
    path.write_text("\nvalid-after yesterday\n")
    assert consensus_unix_ts(relay) == 0
