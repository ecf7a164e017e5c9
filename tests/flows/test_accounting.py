from __future__ import annotations

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.keys import Total

TERMS = Terms(
    seen=Total(10, 1000),
    drained=Total(5, 600),
    full=Total(3, 250),
    late=Total(1, 100),
    unparsed=Total(1, 50),
)


def test_what_adds_up_passes() -> None:
    TERMS.check("here")
    assert TERMS.missing() == Total(0, 0)


@pytest.mark.parametrize(
    ("drained", "said"),
    [
        (Total(4, 600), "1 packets and 0 bytes"),
        (Total(5, 601), "0 packets and -1 bytes"),
    ],
)
def test_what_does_not_add_up_is_an_error_with_all_terms(drained: Total, said: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        TERMS.with_drained(drained).check("window of noon")
    text = str(caught.value)
    assert text.startswith("window of noon: packets are not accounted for: seen 10 (1000 bytes)")
    assert said in text
    assert "full 3 (250 bytes), late 1 (100 bytes), unparsed 1 (50 bytes)" in text


def test_terms_are_summed_one_by_one() -> None:
    twice = TERMS.plus(TERMS)
    assert twice.seen == Total(20, 2000)
    assert twice.fields() == {name: 2 * value for name, value in TERMS.fields().items()}


def test_the_fields_are_those_of_the_document() -> None:
    assert list(TERMS.fields()) == [
        "seen_packets", "drained_packets", "full_packets", "late_packets", "unparsed_packets",
        "seen_bytes", "drained_bytes", "full_bytes", "late_bytes", "unparsed_bytes",
    ]  # fmt: skip
    assert TERMS.fields()["full_bytes"] == 250
