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
    facts = [*scan.batch(1, parts, counts), *scan.end(counts)]
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


def test_a_line_is_used_only_if_all_of_it_is_whole(lines: type[Lines]) -> None:
    # Not only what is needed of it: a byte that is wrong elsewhere says that others may be as well.
    garbled = lines.status(2, 0, 5000, 500).replace("recvsize=1000", "recvsize=10x0")
    facts, counts = scanned(lines.status(1, 0, 5000, 10) + garbled)
    assert facts == [(1, Seen)]
    assert counts.rejected == {"stream-status is cut or garbled": 1}


def test_stamps_of_simulations_have_nine_digits(lines: type[Lines]) -> None:
    # Simulated time begins in the year 2000.
    text = lines.status(1, 0, 5000, 10) + lines.status(2, 0, 5000, 500)
    facts, counts = scanned(text.replace(" 1795", " 795"))
    assert [fact for _, fact in facts] == [Seen, Progress, LastLine]
    assert counts.rejected == {}


def test_after_the_end_each_line_counts(lines: type[Lines]) -> None:
    text = lines.outcome(1, 5, 0, 5000) + lines.status(3, 0, 5000, 10) * 3
    facts, counts = scanned(text + lines.status(6, 0, 5000, 10) * 3)
    assert facts == [(1, Ended), (5, Seen), (0, LastLine)]
    assert counts.rejected == {"out of order: the transfer had ended": 3}


def test_whole(lines: type[Lines]) -> None:
    text = lines.created(0, 0, 5000) + lines.status(1, 0, 5000, 10) * 3
    assert scanned(text, is_whole=True)[0] == [(1, Created), (2, Seen), (3, Seen), (4, Seen)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("payload-bytes-recv=10,", f"payload-bytes-recv=1{'0' * 16},"),
        ("payload-bytes-send=0,", f"payload-bytes-send=1{'0' * 16},"),
        ("payload-progress-recv=1.00%", f"payload-progress-recv={'9' * 400}.00%"),
        ("payload-bytes-recv=10,", "payload-bytes-recv=1_0,"),
        ("payload-progress-recv=1.00%", "payload-progress-recv=1e0%"),
        ("payload-progress-recv=1.00%", "payload-progress-recv=nan%"),
    ],
)
def test_a_number_that_no_program_writes_is_none(lines: type[Lines], old: str, new: str) -> None:
    line = lines.status(1, 0, 5000, 10)
    assert old in line
    _, counts = scanned(line.replace(old, new))
    assert counts.rejected == {"stream-status is cut or garbled": 1}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[stream-status]", "[stream-stat\0s]"),
        ("] transport [", "] transp0rt ["),
        ("proxy=localhost", "pr\x01xy=localhost"),
        ("state=SUCCESS_OPEN", "state=SUCC\u00e9SS_OPEN"),
        (" [info] ", " [inf0] "),
    ],
)
def test_a_status_that_is_garbled_outside_its_numbers(
    lines: type[Lines], old: str, new: str
) -> None:
    line = lines.status(1, 0, 5000, 10)
    assert old in line
    facts, counts = scanned(line.replace(old, new) + lines.status(2, 0, 5000, 20))
    assert facts == [(2, Seen)]
    assert (counts.used, counts.skipped, sum(counts.rejected.values())) == (1, 0, 1)


def test_a_beginning_that_is_cut_or_not_text(lines: type[Lines]) -> None:
    whole = lines.initializing(0).encode().rstrip()
    other = lines.created(1, 0, 5000).encode().rstrip()
    damaged = [
        *(whole[:length] for length in range(whole.index(b"Initializing ") + 13, len(whole) - 5)),
        whole.replace(b"IGraph", b"I\xc7raph"),
        whole.replace(b"GLib", b"G\0ib"),
        whole.replace(b"v0.10.2", other),
    ]
    for line in damaged:
        counts = Counts()
        assert TgenScan().batch(1, [line], counts) == []
        assert sum(counts.rejected.values()) == 1


@pytest.mark.parametrize("digits", ["1795305601.00000", "1795305601.", "179530560.0", "17x5305601"])
def test_a_stamp_that_is_damaged(lines: type[Lines], digits: str) -> None:
    line = lines.status(1, 0, 5000, 10).replace("1795305601.000000", digits)
    assert digits in line
    _, counts = scanned(line)
    assert sum(counts.rejected.values()) == 1


def test_lines_that_were_joined(lines: type[Lines]) -> None:
    joined = lines.status(1, 0, 5000, 10).rstrip("\n") + lines.status(2, 0, 5000, 20)
    _, counts = scanned(joined + lines.outcome(0, 3, 0, 5000).rstrip("\n") + joined)
    assert (counts.used, sum(counts.rejected.values())) == (0, 2)
