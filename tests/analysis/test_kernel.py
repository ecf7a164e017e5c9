from __future__ import annotations

import pytest

from perfmeasure.analysis.kernel import Ends, KernelConnection
from tests.analysis import kernel_lines as kernel


def one(*lines: str) -> KernelConnection:
    log, _ = kernel.assembled(kernel.start(0) + kernel.clock(0) + "".join(lines))
    [found] = log.connections
    return found


def test_the_other_end() -> None:
    ends = Ends("127.0.0.1", 5000, "127.0.0.2", 9050)
    assert ends.reversed() == Ends("127.0.0.2", 9050, "127.0.0.1", 5000)
    assert ends.reversed().reversed() == ends


def snapshots(*, existed: bool = False) -> KernelConnection:
    """Of a connection that began at 1.5, at 2, 3 and 5, with 10 bytes more in each second."""
    stamps = {} if existed else {"connect": 1.5}
    return one(
        *(
            kernel.connection(
                at,
                7,
                stamps=stamps,
                bytes_sent=at * 10,
                smoothed_rtt_us=at,
                existed_before_start=existed,
            )
            for at in (2, 3, 5)
        )
    )


@pytest.mark.parametrize(
    ("begin", "end", "before", "after"),
    [
        (2.5, 2.6, 2, 3),
        (2.0, 3.0, 2, 3),
        (3.5, 4.5, 3, 5),
        (2.5, 9.0, 2, 5),
        (6.0, 7.0, 5, 5),
    ],
)
def test_the_share_of_a_time_lies_between_the_snapshots_around_it(
    begin: float, end: float, before: float, after: float
) -> None:
    found = snapshots().share(kernel.DAY + begin, kernel.DAY + end)
    assert found is not None
    assert [sample.unix_ts - kernel.DAY for sample in found] == [before, after]
    assert [sample.numbers["bytes_sent"] for sample in found] == [before * 10, after * 10]
    assert "retransmitted_segments" not in found[0].numbers


def test_a_connection_that_began_within_the_time_counts_from_nothing() -> None:
    found = snapshots().share(kernel.DAY + 1, kernel.DAY + 2.5)
    assert found is not None
    assert found[0].unix_ts == kernel.DAY + 1.5
    assert (found[0].numbers["bytes_sent"], found[1].numbers["bytes_sent"]) == (0, 30)


def test_without_a_snapshot_before_the_share_is_not_known() -> None:
    older = snapshots(existed=True)
    assert older.share(kernel.DAY + 1, kernel.DAY + 2.5) is None
    assert older.share(kernel.DAY + 2, kernel.DAY + 2.5) is not None


def test_when_it_lived() -> None:
    stamps = {"connect": 2.0, "closed": 4.0}
    found = one(kernel.connection(4, 7, end="fin_local", stamps=stamps))
    spans = [(0, 1), (0, 2), (3, 3), (4, 9), (5, 9)]
    lived = [found.lived_at(kernel.DAY + begin, kernel.DAY + end) for begin, end in spans]
    assert lived == [False, True, True, True, False]
    still_open = one(kernel.connection(4, 7, existed_before_start=True))
    assert still_open.lived_at(kernel.DAY, kernel.DAY + 1)
    assert still_open.lived_at(kernel.DAY + 99, kernel.DAY + 100)


def test_a_process_is_of_a_boot() -> None:
    assert one(kernel.connection(1, 7)).process is None
    assert one(kernel.connection(1, 7, pid=3)).process == (kernel.BOOT, 3)
