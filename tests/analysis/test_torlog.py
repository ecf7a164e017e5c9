from __future__ import annotations

import pytest

from perfmeasure.analysis.torlog import Circuit, Stream


@pytest.mark.parametrize(
    ("source", "port"),
    [
        ("127.0.0.1:5000", 5000),
        ("[::1]:5000", 5000),
        ("", 0),
        ("127.0.0.1:x", 0),
        ("(Tor_internal):0", 0),
    ],
)
def test_source_port(source: str, port: int) -> None:
    assert Stream(1, 0.0, 0.0, source=source).source_port == port


def test_the_guard_is_the_first_hop() -> None:
    circuit = Circuit(1, 0.0, 0.0, path=[("$" + "a" * 40 + "~x", None), ("$" + "b" * 40, 1.0)])
    assert circuit.guard_fingerprint == "A" * 40
    assert Circuit(1, 0.0, 0.0).guard_fingerprint == ""


def test_a_circuit_begins_when_it_was_launched_or_by_its_own_word() -> None:
    assert Circuit(1, 9.0, 9.0, launched=5.0, created=4.0).start == 5.0
    assert Circuit(1, 9.0, 9.0, created=4.0).start == 4.0
    assert Circuit(1, 9.0, 9.0).start is None
