"""perfmeasure.tor.readiness: what a look at real relays shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.tor.ports import free_ports
from perfmeasure.tor.readiness import NetworkWatch
from perfmeasure.tor.relay import Relay

if TYPE_CHECKING:
    from pathlib import Path


def test_a_running_network_is_ready(testnet: Any) -> None:
    with NetworkWatch(testnet.relays) as watch:
        state = watch.look()
        assert state.is_ready
        assert str(state) == "ready: 6 relays"
        assert watch.look().is_ready


def test_a_consensus_without_one_of_the_relays_is_incomplete(testnet: Any) -> None:
    # The authority is asked under another name, too: seven relays are wanted, six are listed.
    twice = replace(testnet.relays[0], name="again")
    with NetworkWatch([*testnet.relays, twice]) as watch:
        state = watch.look()
    assert state.is_incomplete
    assert "6 of 7" in state.detail


def test_who_does_not_answer_is_named(testnet: Any, tmp_path: Path) -> None:
    absent = Relay("absent", tmp_path, control_port=free_ports(1)[0])
    with NetworkWatch([testnet.relays[0], absent]) as watch:
        assert str(watch.look()) == "starting: no answer yet from absent"


def test_who_ended_is_named_with_its_last_words(tmp_path: Path) -> None:
    relay = Relay("dead", tmp_path, control_port=free_ports(1)[0])
    with NetworkWatch([relay], is_alive=lambda name: name != "dead") as watch:
        relay.log_path.write_text("x [notice] hello\n")
        with pytest.raises(MeasurementError, match=r"relay dead: ended; .*\[notice\] hello"):
            watch.look()


def test_an_error_in_the_log_is_an_end_but_not_one_of_an_earlier_run(tmp_path: Path) -> None:
    relay = Relay("dead", tmp_path, control_port=free_ports(1)[0])
    relay.log_path.write_text("x [err] of yesterday\n")
    with NetworkWatch([relay]) as watch:
        assert watch.look().phase == "starting"
        with relay.log_path.open("a") as log:
            log.write("x [err] Reading config failed\n")
        with pytest.raises(MeasurementError, match="Reading config failed"):
            watch.look()
