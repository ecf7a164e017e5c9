from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from perfmeasure.analysis import source, tgen
from perfmeasure.analysis.phases import phases
from perfmeasure.analysis.torlog import Stream
from perfmeasure.analysis.transfers import Transfer

if TYPE_CHECKING:
    from pathlib import Path

STEPS = {
    "socket_create": 0.001,
    "socket_connect": 0.01,
    "proxy_init": 0.015,
    "proxy_choice": 0.016,
    "proxy_request": 0.02,
    "proxy_response": 0.5,
    "command": 0.51,
    "response": 0.6,
    "first_byte": 0.61,
    "last_byte": 2.0,
    "checksum": 2.01,
}


def transfer(elapsed: dict[str, float], proxy: str = "localhost:127.0.0.1:9050") -> Transfer:
    record: dict[str, Any] = {
        "elapsed_seconds": elapsed,
        "endpoint_proxy": proxy,
        "is_complete": True,
    }
    return Transfer("stream:0", record, 1000.0, 1002.5, 5000)


def stream(*events: tuple[str, float]) -> Stream:
    return Stream(1, 1000.0, 1002.0, events=[(f"USER:{name}", 1000 + at) for name, at in events])


def test_a_whole_transfer() -> None:
    assert phases(transfer(STEPS), None) == {
        "connect": 0.01,
        "socks": 0.01,
        "attach": 0.48,
        "command": 0.01,
        "response": 0.09,
        "first_byte": 0.01,
        "payload": 1.39,
        "checksum": 0.01,
        "finish": 0.49,
    }


def test_the_streams_events_divide_the_wait_for_the_proxy() -> None:
    sent = stream(("NEW", 0.02), ("SENTCONNECT", 0.3), ("SUCCEEDED", 0.49), ("CLOSED", 2.0))
    found = phases(transfer(STEPS), sent)
    assert "attach" not in found
    assert (found["circuit"], found["stream"]) == (0.28, 0.2)
    assert list(found)[:5] == ["connect", "socks", "circuit", "stream", "command"]


def test_the_last_attempt_divides() -> None:
    events = (("SENTCONNECT", 0.1), ("DETACHED", 0.2), ("SENTCONNECT", 0.4), ("SUCCEEDED", 0.5))
    assert phases(transfer(STEPS), stream(*events))["circuit"] == 0.38


@pytest.mark.parametrize(("at", "circuit"), [(-1.0, 0.0), (0.015, 0.0), (9.0, 0.48)])
def test_a_late_or_rounded_stamp_moves_nothing(at: float, circuit: float) -> None:
    found = phases(transfer(STEPS), stream(("SENTCONNECT", at)))
    assert found["circuit"] == circuit
    assert found["circuit"] + found["stream"] == pytest.approx(0.48)


def test_a_stream_that_was_never_sent_waited_for_a_circuit() -> None:
    steps = {key: STEPS[key] for key in list(STEPS)[:5]}
    assert phases(transfer(steps), stream(("NEW", 0.02), ("FAILED", 2.4))) == {
        "connect": 0.01,
        "socks": 0.01,
        "circuit": 2.48,
    }


def test_a_failed_transfer_ends_in_the_phase_in_which_it_failed() -> None:
    steps = {key: STEPS[key] for key in list(STEPS)[:9]}
    found = phases(transfer(steps), None)
    assert list(found)[-1] == "payload"
    assert found["payload"] == 1.89


def test_without_a_proxy() -> None:
    steps = {key: value for key, value in STEPS.items() if not key.startswith("proxy")}
    found = phases(transfer(steps, "NULL:0.0.0.0:0"), None)
    assert list(found)[:2] == ["connect", "command"]
    assert found["command"] == 0.5


def test_a_step_that_was_not_timed_leaves_its_time_to_the_phase_before() -> None:
    steps = {key: value for key, value in STEPS.items() if key != "proxy_response"}
    found = phases(transfer(steps), None)
    assert found["attach"] == 0.49
    assert "command" not in found


def test_what_has_not_ended_has_no_phases() -> None:
    cut = transfer({})
    cut.record["is_complete"] = False
    assert phases(cut, None) == {}


def test_they_add_up_on_real_transfers(fixtures: Path) -> None:
    for log in source.find([fixtures / "tgen"]):
        for one in tgen.read_logs([log]).transfers:
            found = phases(one, None)
            if one.record["is_complete"]:
                assert sum(found.values()) == pytest.approx(one.end - one.start, abs=2e-6)
                assert min(found.values()) >= 0
