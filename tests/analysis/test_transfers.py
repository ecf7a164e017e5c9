from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis import transfers
from perfmeasure.analysis.sections import sections_of
from perfmeasure.analysis.transfers import Begun

if TYPE_CHECKING:
    from tests.analysis.conftest import Lines


def test_marks_are_the_first_time_at_or_past_them() -> None:
    begun = Begun(100.0, b"")
    begun.reach(101.0, 0, 0, 0.0, 100.0)
    begun.reach(102.0, 25000, 0, 39.99, 100.0)
    begun.reach(103.0, 51200, 0, 100.0, 100.0)
    progress, marks = begun.elapsed("recv", 100.5, 104.0)
    assert progress == {
        **dict.fromkeys(("0.0",), 0.5),
        **dict.fromkeys(("0.1", "0.2", "0.3"), 1.5),
        **dict.fromkeys(("0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0"), 2.5),
    }
    assert marks == {"10240": 1.5, "20480": 1.5, "51200": 2.5}
    sent, _ = begun.elapsed("send", 100.5, 104.0)
    assert set(sent.values()) == {0.5}


def test_a_stamp_outside_of_the_transfer_is_none_of_its_times() -> None:
    begun = Begun(100.0, b"")
    begun.reach(100.0, 0, 0, 0.0, -1.0)
    begun.reach(103.9985, 10240, 0, 10.0, -1.0)  # rounded
    begun.reach(105.0, 20480, 0, 20.0, -1.0)
    begun.reach(106.001, 51200, 0, 100.0, -1.0)
    begun.reach(107.0, 102400, 0, 100.0, -1.0)
    progress, marks = begun.elapsed("recv", 104.0, 106.0)
    assert progress == {}
    assert marks == {"10240": 0, "20480": 1, "51200": 2}


def test_a_size_that_was_not_set_has_no_progress() -> None:
    begun = Begun(1.0, b"")
    begun.reach(2.0, 999999, 0, -1.0, -1.0)
    assert begun.elapsed("recv", 1.0, 9.0)[0] == {}


def test_a_transfer_that_ends_before_it_begins_is_none(lines: type[Lines]) -> None:
    sections = sections_of(lines.outcome(1, 2, 3, 5000).encode())
    assert sections is not None
    sections["times"]["now-ts"] = "1"
    with pytest.raises(ValueError, match="garbled"):
        transfers.ended_transfer(sections, Begun(1.0, b""), lines.day, is_error=False)
