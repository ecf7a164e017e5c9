from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis import transfers
from perfmeasure.analysis.transfers import Begun

if TYPE_CHECKING:
    from tests.analysis.conftest import Lines


def test_sections_of_a_line(lines: type[Lines]) -> None:
    sections = transfers.sections_of(lines.outcome(1, 2, 3, 5000).encode())
    assert sections is not None
    assert sections["stream"]["id"] == "3"
    assert sections["transport"]["local"] == "localhost:127.0.0.1:5000"
    assert sections["times"]["usecs-to-first-byte-send"] == "-1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vertexid=stream,", ""),
        ("error=NONE]", "error=NONE,error=NONE]"),
        ("] bytes [", "] bits ["),
        ("now-ts", "then-ts"),
    ],
)
def test_sections_that_are_not_as_they_should_be(lines: type[Lines], old: str, new: str) -> None:
    line = lines.outcome(1, 2, 3, 5000)
    assert old in line
    assert transfers.sections_of(line.replace(old, new).encode()) is None


def test_a_field_that_is_new_in_a_later_version_does_no_harm(lines: type[Lines]) -> None:
    line = lines.outcome(1, 2, 3, 5000).replace("fd=7,", "fd=7,tls=no,")
    assert transfers.sections_of(line.encode()) is not None


def test_marks_are_the_first_time_at_or_past_them() -> None:
    begun = Begun(100.0, b"")
    begun.reach(101.0, 0, 0, 0.0, 100.0)
    begun.reach(102.0, 25000, 0, 39.99, 100.0)
    begun.reach(103.0, 51200, 0, 100.0, 100.0)
    progress, marks = begun.elapsed("recv", 100.5)
    assert progress == {
        **dict.fromkeys(("0.0",), 0.5),
        **dict.fromkeys(("0.1", "0.2", "0.3"), 1.5),
        **dict.fromkeys(("0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0"), 2.5),
    }
    assert marks == {"10240": 1.5, "20480": 1.5, "51200": 2.5}
    sent, _ = begun.elapsed("send", 100.5)
    assert set(sent.values()) == {0.5}


def test_a_size_that_was_not_set_has_no_progress() -> None:
    assert transfers.percent_of(b"?") == transfers.percent_of("?%") == -1.0
    begun = Begun(1.0, b"")
    begun.reach(2.0, 999999, 0, -1.0, -1.0)
    assert begun.elapsed("recv", 1.0)[0] == {}


@pytest.mark.parametrize("text", ["", "1_0", " 1", "1.0", "--1", "٣", "9" * 17])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="garbled"):
        transfers.whole_number(text)


def test_a_transfer_that_ends_before_it_begins_is_none(lines: type[Lines]) -> None:
    sections = transfers.sections_of(lines.outcome(1, 2, 3, 5000).encode())
    assert sections is not None
    sections["times"]["now-ts"] = "1"
    with pytest.raises(ValueError, match="garbled"):
        transfers.ended_transfer(sections, Begun(1.0, b""), lines.day, is_error=False)
