from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import source, tgen
from perfmeasure.analysis.kernel import Collector, Ends, KernelConnection
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


def test_the_time_beside_a_step_that_was_not_timed_is_nobody_s() -> None:
    steps = {key: value for key, value in STEPS.items() if key != "proxy_response"}
    found = phases(transfer(steps), None)
    assert found["rest"] == 0.49
    assert not {"attach", "command"} & set(found)
    assert sum(found.values()) == pytest.approx(2.5)


def connected(**stamps: float) -> KernelConnection:
    """A connection with stamps in seconds from the start of the transfer."""
    at = {name: ns_of(seconds) for name, seconds in stamps.items()}
    return KernelConnection(
        Collector(None, 1000.0, 1000.0), 1, 1, Ends("127.0.0.1", 5000, "127.0.0.1", 9050), 4,
        "active", 1000.0, 1003.0, stamps=at, start_ts=1000 + stamps.get("connect", 0.0),
    )  # fmt: skip


def ns_of(seconds: float) -> int:
    return CREATED_US * 1000 + round(seconds * 1e9)


CREATED_US = 77_000_000


def timed(elapsed: dict[str, float]) -> Transfer:
    """A transfer that tells when it began by the monotonic clock."""
    one = transfer(elapsed)
    one.record["time_info"] = {"created-ts": str(CREATED_US)}
    return one


WIRE = {"connect": 0.0015, "established": 0.009, "first_sent": 0.0151, "first_received": 0.0159}


def test_the_kernel_s_stamps_divide_connecting_and_the_handshake() -> None:
    found = phases(timed(STEPS), None, connected(**WIRE, last_sent=2.0, closed=2.4))
    assert found == {
        "socket": 0.0015,
        "connect": 0.0075,
        "greeting": 0.0061,
        "choice": 0.0008,
        "request": 0.0041,
        "attach": 0.48,
        "command": 0.01,
        "response": 0.09,
        "first_byte": 0.01,
        "payload": 1.39,
        "checksum": 0.01,
        "finish": 0.49,
    }


@pytest.mark.parametrize("lost", ["first_sent", "first_received"])
def test_a_stamp_of_the_kernel_that_is_lost_leaves_the_handshake_whole(lost: str) -> None:
    wire = {name: at for name, at in WIRE.items() if name != lost}
    found = phases(timed(STEPS), None, connected(**wire))
    assert found["socks"] == 0.011
    assert not {"greeting", "choice", "request", "rest"} & set(found)


def test_a_proxy_that_refuses() -> None:
    refused = connected(connect=0.002, closed=0.003)
    found = phases(timed({"socket_create": 0.001}), None, refused)
    assert found == {"socket": 0.002, "connect": 2.498}


@pytest.mark.parametrize("seconds", [-2.0, 2.0])
def test_stamps_of_another_machine_s_clock_are_left_out(seconds: float) -> None:
    other = connected(**{name: at + seconds for name, at in WIRE.items()})
    other.start_ts = 1000.0015  # by UTC it fits
    assert phases(timed(STEPS), None, other) == phases(timed(STEPS), None)


def test_without_a_monotonic_start_the_kernel_s_stamps_are_left_out() -> None:
    assert phases(transfer(STEPS), None, connected(**WIRE)) == phases(transfer(STEPS), None)


micros = st.integers(0, 2_600_000).map(lambda us: us / 1e6)


@given(
    st.dictionaries(st.sampled_from(sorted(STEPS)), micros),
    st.dictionaries(st.sampled_from(sorted(WIRE)), micros),
    st.lists(st.tuples(st.sampled_from(("SENTCONNECT", "SUCCEEDED")), micros), max_size=3),
)
def test_whatever_is_stamped_they_add_up(
    elapsed: dict[str, float], wire: dict[str, float], events: list[tuple[str, float]]
) -> None:
    found = phases(timed(elapsed), stream(*events), connected(**wire))
    assert round(sum(found.values()) * 1e6) == 2_500_000
    assert min(found.values()) >= 0


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
