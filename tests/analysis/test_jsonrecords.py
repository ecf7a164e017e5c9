from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from perfmeasure.analysis import jsonrecords
from perfmeasure.analysis.events import RejectedError
from perfmeasure.analysis.jsonrecords import RecordScan
from perfmeasure.analysis.source import Counts


class Said(NamedTuple):
    what: str


def said(record: dict[str, Any]) -> Said:
    return Said(jsonrecords.text(record, "what"))


def test_lines_are_used_skipped_or_rejected() -> None:
    scan, counts = RecordScan({"say": said, "sleep": None}), Counts()
    lines = [
        b'{"record":"say","unix_ts":5.5,"what":"yes"}',
        b'{"record":"sleep","unix_ts":6.5}',
        b'{"record":"say","unix_ts":7.5}',
        b'{"record":"walk","unix_ts":7.5}',
        b'{"record":"say","unix_ts":7.5,"what":"cu',
        b"[]}",
        b'{"record":"say","unix_ts":true,"what":"yes"}',
    ]
    assert scan.batch(3, lines, counts) == [(3, 5.5, Said("yes"))]
    assert scan.end(counts) == []
    assert (counts.used, counts.skipped, scan.last_ts) == (1, 1, 6.5)
    assert counts.examples == [
        (5, "what is missing or garbled"),
        (6, "a record of a name that is not known"),
        (7, "line is cut"),
        (8, "no JSON object"),
        (9, "no time stamp"),
    ]


@pytest.mark.parametrize("value", [None, -1, 1.0, True, "5", 1 << 63])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(RejectedError, match="n is missing or garbled"):
        jsonrecords.number({"n": value}, "n")


@pytest.mark.parametrize("value", [-1.0, 1e10, 5, "5", None])
def test_what_is_no_moment(value: object) -> None:
    with pytest.raises(RejectedError, match="t is missing or garbled"):
        jsonrecords.moment({"t": value}, "t")


def test_what_may_be_absent() -> None:
    assert jsonrecords.moment({}, "t") == 0.0
    assert jsonrecords.text({}, "t", "") == ""
    assert jsonrecords.numbers({"a": 1}, ("a", "b")) == {"a": 1}
    with pytest.raises(RejectedError):
        jsonrecords.text({"t": ""}, "t", "")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("10.0.0.1", (4, "10.0.0.1")), ("FD00::0:1", (6, "fd00::1")), ("10.0.0", (0, ""))],
)
def test_addresses(text: str, parsed: tuple[int, str]) -> None:
    assert jsonrecords.parsed_address(text) == parsed
