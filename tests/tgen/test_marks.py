"""perfmeasure.tgen.marks."""

from __future__ import annotations

import pytest

from perfmeasure.tgen.marks import BYTE_MARKS, next_mark


@pytest.mark.parametrize(
    ("size", "payload", "mark"),
    [
        (5242880, 0, 1),
        (5242880, 1, 10240),
        (5242880, 10240, 20480),
        (5242880, 51200, 52429),  # 1 per cent, rounded up
        (5242880, 5242879, 5242880),
        (None, 5242880, 2**63),
        (None, 1, 10240),
        (50, 1, 2),
        (3, 1, 2),
    ],
)
def test_the_next_mark_is_the_nearest_of_bytes_and_per_cents(
    size: int | None, payload: int, mark: int
) -> None:
    assert next_mark(size, payload) == mark


def test_few_lines_meet_every_tenth_and_every_size() -> None:
    size, payload, lines = 5 * 2**20, 0, []
    mark = next_mark(size, 0)
    while payload < size:
        payload = min(size, payload + 498)  # what one Tor cell carries
        if payload >= mark:
            lines.append(payload)
            mark = next_mark(size, payload)
    assert len(lines) <= 101 + len(BYTE_MARKS)
    for wanted in [*BYTE_MARKS, *(size * tenth // 10 for tenth in range(1, 11))]:
        first = next(line for line in lines if line >= wanted)
        assert first < wanted + 498 + 1
