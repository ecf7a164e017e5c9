from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.errors import MeasurementError
from perfmeasure.flows import keys, ledger
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.keys import Total
from perfmeasure.flows.ledger import Ledger
from perfmeasure.flows.window_store import WindowStore
from perfmeasure.flows.windows import Overflow, Window


def make_window(number: int, *ports: int, overflow: tuple[Overflow, ...] = ()) -> Window:
    table = np.zeros(len(ports), keys.TABLE)
    table["src_port"], table["packets"] = ports, 1
    return Window(number, 10**9, table, Terms(), overflow, ClockPair(10**18, 0))


def test_flows_are_summed_over_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_PENDING_ROWS", 5)  # they are merged on the way as well
    book = Ledger()
    for number in range(20):
        book.add([make_window(number, 1, 2), make_window(100 + number, 2)])
    table = book.close()
    assert sorted(zip(table["src_port"].tolist(), table["packets"].tolist(), strict=True)) == [
        (1, 20),
        (2, 40),
    ]
    assert book.summary_count == 60
    assert book.times.unix_ts(np.zeros(1, "u8")).tolist() == [1e9]


def test_without_sums_only_the_count_is_kept() -> None:
    book = Ledger(is_summing=False)
    book.add([make_window(1, 1, 2)])
    assert len(book.close()) == 0
    assert book.summary_count == 2


def test_what_found_no_room_is_summed_by_direction_and_protocol() -> None:
    book = Ledger()
    udp = Overflow(keys.INGRESS, 17, Total(2, 200))
    book.add([make_window(1, overflow=(udp, Overflow(keys.EGRESS, 6, Total(1, 50))))])
    book.add([make_window(2, overflow=(udp,))])
    book.close()
    assert book.overflow == {(0, 17): Total(4, 400), (1, 6): Total(1, 50)}


def test_windows_go_to_the_store(tmp_path: Path) -> None:
    book = Ledger(WindowStore(tmp_path, {0: "lo"}))
    book.add([make_window(1, 1)])
    book.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_each_window_is_shown_in_the_thread() -> None:
    shown: list[tuple[int, str]] = []
    book = Ledger(on_window=lambda w: shown.append((w.number, threading.current_thread().name)))
    book.add([make_window(1), make_window(2, 7)])
    book.close()
    assert shown == [(1, "ledger"), (2, "ledger")]


def test_a_store_that_fails_fails_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    book = Ledger(WindowStore(folder, {0: "lo"}))
    folder.rmdir()
    book.add([make_window(1, 1)])
    with pytest.raises(MeasurementError, match="cannot be written"):
        book.close()


def test_the_failure_is_raised_at_the_next_windows(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    book = Ledger(WindowStore(folder, {0: "lo"}))
    folder.rmdir()

    def add_minutes() -> None:
        for minute in range(1000):
            book.add([make_window(60 * minute, 1)])

    with pytest.raises(MeasurementError, match="cannot be written"):
        add_minutes()
    with pytest.raises(MeasurementError):
        book.close()
    assert "ledger" not in {thread.name for thread in threading.enumerate()}
