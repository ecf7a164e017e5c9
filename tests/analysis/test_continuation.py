from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis.continuation import Continuation, NeedsWholeError
from perfmeasure.analysis.source import Counts
from perfmeasure.analysis.tgenscan import TgenScan
from tests.analysis.conftest import Lines

if TYPE_CHECKING:
    from perfmeasure.analysis.source import Fact


def scanned(parts: list[list[bytes]], *, is_whole: bool) -> tuple[list[Fact], Counts]:
    """Return what is left of the scans of logs that follow one another."""
    continuation, counts = Continuation(), Counts()
    facts = []
    for lines in parts:
        continuation.begin(is_whole=is_whole)
        scan = TgenScan(is_whole=is_whole)
        found = [*scan.batch(1, lines, counts), *scan.end(counts)]
        facts += continuation.take(found, counts.withdraw)
    return facts + continuation.end(), counts


def said(facts: list[Fact]) -> list[tuple[float, object]]:
    return [(ts, fact) for _, ts, fact in facts]


@st.composite
def logs(draw: st.DrawFn) -> list[bytes]:
    """Lines of three transfers in any order, with any stamps."""
    text = ""
    for _ in range(draw(st.integers(1, 30))):
        at, number = draw(st.integers(0, 30)), draw(st.integers(0, 2))
        kind = draw(st.sampled_from(["status"] * 5 + ["created", "ended", "begun"]))
        if kind == "status":
            text += Lines.status(at, number, 5000 + number, draw(st.integers(0, 1000)))
        elif kind == "created":
            text += Lines.created(at, number, 5000 + number)
        elif kind == "ended":
            text += Lines.outcome(at, at + 2, number, 5000 + number)
        else:
            text += Lines.initializing(at)
    return text.encode().splitlines()


@given(logs(), st.integers(0, 30))
def test_two_scans_say_what_one_says(lines: list[bytes], cut: int) -> None:
    whole, counts = scanned([lines], is_whole=False)
    parts = [lines[:cut], lines[cut:]]
    try:
        found, of_both = scanned(parts, is_whole=False)
    except NeedsWholeError:
        found, of_both = scanned(parts, is_whole=True)
    assert said(found) == said(whole)
    assert (of_both.used, of_both.rejected) == (counts.used, counts.rejected)


def test_a_line_after_an_end_in_an_earlier_log_needs_the_whole_of_its_log(
    lines: type[Lines],
) -> None:
    parts = [
        [lines.outcome(1, 9, 0, 5000).encode().rstrip()],
        [lines.status(8, 0, 5000, 100).encode().rstrip()],
    ]
    with pytest.raises(NeedsWholeError) as raised:
        scanned(parts, is_whole=False)
    assert raised.value.number == 1
    _, counts = scanned(parts, is_whole=True)
    assert counts.rejected == {"out of order: the transfer had ended": 1}
