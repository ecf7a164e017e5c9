from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis.source import Counts
from perfmeasure.analysis.tgenscan import (
    Created,
    Ended,
    LastLine,
    Program,
    Progress,
    Seen,
    TgenScan,
)

if TYPE_CHECKING:
    from tests.analysis.conftest import Lines


def scanned(text: str, *, is_whole: bool = False) -> tuple[list[tuple[int, type]], Counts]:
    scan, counts = TgenScan(is_whole=is_whole), Counts()
    parts = text.encode().split(b"\n")[:-1]
    facts = [*scan.batch(1, parts, counts), *scan.end()]
    return [(number, type(fact)) for number, _, fact in facts], counts


def test_of_many_lines_about_a_transfer_few_are_facts(lines: type[Lines]) -> None:
    text = lines.created(0, 0, 5000) + "".join(
        lines.status(at, 0, 5000, at) for at in range(1, 1000)
    )
    facts, counts = scanned(text + lines.outcome(0, 1001, 0, 5000))
    # The first status passes what nothing is enough for, then each tenth of the payload.
    assert facts == [
        (1, Created),
        (2, Progress),
        *((at + 1, Progress) for at in range(100, 1000, 100)),
        (0, LastLine),
        (1001, Ended),
    ]
    assert counts.used == 1001


def test_the_first_line_in_a_log_stands_by_itself(lines: type[Lines]) -> None:
    facts, _ = scanned(
        lines.status(1, 0, 5000, 10)
        + lines.status(2, 0, 5000, 20)
        + lines.initializing(3)
        + lines.status(4, 0, 5000, 30)
    )
    assert facts == [(1, Seen), (0, LastLine), (3, Program), (4, Seen)]


def test_a_line_that_does_not_do_for_a_first_one_is_kept_without_its_text(
    lines: type[Lines],
) -> None:
    garbled = lines.status(1, 0, 5000, 10).replace("recvsize=1000", "recvsize=10x0")
    scan, counts = TgenScan(), Counts()
    parts = (garbled + garbled).encode().split(b"\n")[:-1]
    facts = [fact for _, _, fact in scan.batch(1, parts, counts)]
    # It may go on with a transfer that an earlier log began; so both are there.
    assert [type(fact) for fact in facts] == [Seen, Seen]
    assert [fact.line for fact in facts if isinstance(fact, Seen)] == [b"", b""]


def test_after_the_end_each_line_counts(lines: type[Lines]) -> None:
    text = lines.outcome(1, 5, 0, 5000) + lines.status(3, 0, 5000, 10) * 3
    facts, _ = scanned(text + lines.status(6, 0, 5000, 10) * 3)
    assert facts == [(1, Ended), (2, Seen), (3, Seen), (4, Seen), (5, Seen), (0, LastLine)]


def test_whole(lines: type[Lines]) -> None:
    text = lines.created(0, 0, 5000) + lines.status(1, 0, 5000, 10) * 3
    assert scanned(text, is_whole=True)[0] == [(1, Created), (2, Seen), (3, Seen), (4, Seen)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("payload-bytes-recv=10,", f"payload-bytes-recv=1{'0' * 16},"),
        ("payload-bytes-send=0,", f"payload-bytes-send=1{'0' * 16},"),
        ("payload-progress-recv=1.00%", f"payload-progress-recv={'9' * 400}.00%"),
    ],
)
def test_a_number_that_no_program_writes_is_none(lines: type[Lines], old: str, new: str) -> None:
    line = lines.status(1, 0, 5000, 10)
    assert old in line
    _, counts = scanned(line.replace(old, new))
    assert counts.rejected == {"stream-status is cut or garbled": 1}
