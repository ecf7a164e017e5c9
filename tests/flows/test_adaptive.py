"""Windows whose length follows the load, and the law when it changes in the midst of a run."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from flow_frames import INGRESS, Datagram, feed

from perfmeasure.clock import ClockPair
from perfmeasure.flows import keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.adaptive import Bounds
from perfmeasure.flows.keys import Total
from perfmeasure.flows.windows import Window, Windows

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

MS = 10**6
SECONDS = 2.5


def window(flows: int, full: int = 0, late: int = 0, length_ns: int = 100 * MS) -> Window:
    terms = Terms(seen=Total(flows + full + late, 0), full=Total(full, 0), late=Total(late, 0))
    return Window(1, length_ns, np.zeros(flows, keys.TABLE), terms, (), ClockPair(0, 0))


@pytest.mark.parametrize(
    ("windows", "wanted_ms"),
    [
        ([window(10)], 200),
        ([window(200)], 100),
        ([window(501)], 50),
        ([window(10), window(501), window(10)], 50),
        ([window(10, full=1)], 50),
        ([window(600, late=1)], 200),
        ([window(600, full=1, late=1)], 100),
        ([window(600, late=1, length_ns=400 * MS)], 400),
        ([window(10, length_ns=400 * MS)], 400),
        ([window(600, length_ns=25 * MS)], 25),
    ],
    ids=[
        "little",
        "some",
        "much",
        "much once",
        "full",
        "late",
        "full and late",
        "late and longest",
        "longest",
        "shortest",
    ],
)
def test_the_length_follows_the_load_within_the_bounds(
    windows: list[Window], wanted_ms: int
) -> None:
    assert Bounds(25 * MS, 400 * MS).next_length_ns(windows, 1000) == wanted_ms * MS


def sweep_and_change(windows: Windows) -> list[Window]:
    """Sweep for some time, and ask for another length each time that one has come."""
    swept: list[Window] = []
    wanted = itertools.cycle((20 * MS, 10 * MS, 80 * MS, 40 * MS, 160 * MS))
    length_ns = next(wanted)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = windows.sweep()
        swept += found
        if found and found[-1].length_ns == length_ns:
            length_ns = next(wanted)
        windows.change_length(length_ns)
        time.sleep(max(windows.wait_ns() / 1e9, 0.001))
    return swept


def test_the_law_holds_when_the_length_changes_in_the_midst_of_a_run(
    require: Callable[..., None],
) -> None:
    require("root", "bpf")
    windows = Windows(40 * MS, 4096, is_adaptive=True, functions=[INGRESS])
    flows = [Datagram("10.0.0.1", 1000 + n, "10.0.0.2", 53, n) for n in range(64)]
    stop, sent = threading.Event(), Total()

    def send() -> None:
        nonlocal sent
        while not stop.is_set():
            for flow in flows:
                feed(windows, flow, 3)
                sent = sent.plus(Total(3, 3 * len(flow.frame())))

    sender = threading.Thread(target=send)
    windows.begin()
    sender.start()
    try:
        swept = sweep_and_change(windows)
    finally:
        stop.set()
        sender.join()
    swept += windows.finish()

    total = Terms()
    for found_window in swept:
        found_window.terms.check(str(found_window.number))
        total = total.plus(found_window.terms)
    assert total.seen == sent
    assert total.drained.packets + total.late.packets == sent.packets
    assert total.drained.packets > sent.packets / 2
    assert {part.length_ns for part in swept} >= {10 * MS, 20 * MS, 40 * MS, 80 * MS}
    for before, after in itertools.pairwise(swept):
        assert before.begin_ns + before.length_ns == after.begin_ns
    for part in swept:  # each packet is in the window that its own time says
        if len(part.flows):
            assert part.begin_ns <= part.flows["first_ns"].min()
            assert part.flows["last_ns"].max() < part.begin_ns + part.length_ns


def test_a_change_waits_for_the_one_before(require: Callable[..., None]) -> None:
    require("root", "bpf")
    windows = Windows(20 * MS, 64, is_adaptive=True, functions=[INGRESS])
    windows.begin()
    windows.change_length(10 * MS)
    windows.change_length(160 * MS)  # the first has not begun: the kernel has room for two
    lengths: set[int] = set()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        lengths |= {part.length_ns for part in windows.sweep()}
        time.sleep(0.01)
    assert lengths == {20 * MS, 10 * MS}
    windows.change_length(10 * MS)  # nothing to change
    assert {part.length_ns for part in windows.finish()} == {10 * MS}


def test_short_windows_find_room_where_long_ones_did_not(require: Callable[..., None]) -> None:
    require("root", "bpf")
    room = 2048
    windows = Windows(640 * MS, room, is_adaptive=True, functions=[INGRESS])
    bounds = Bounds(5 * MS, 640 * MS)
    numbers = itertools.count()
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():  # each packet is a new flow
            number = next(numbers)
            source = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            feed(windows, Datagram(source, 1, "10.255.0.1", 53, 0))

    sender = threading.Thread(target=send)
    swept: list[Window] = []
    windows.begin()
    sender.start()
    try:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            found = windows.sweep()
            swept += found
            if found:
                windows.change_length(bounds.next_length_ns(found, room))
            time.sleep(max(windows.wait_ns() / 1e9, 0.001))
    finally:
        stop.set()
        sender.join()
    swept += windows.finish()
    total = Terms()
    for part in swept:
        part.terms.check(str(part.number))
        total = total.plus(part.terms)
    assert total.seen.packets == next(numbers)
    shares = []  # of what found no room, in long and in short windows
    for length_ns in (640 * MS, min(part.length_ns for part in swept)):
        terms = Terms()
        for part in swept:
            if part.length_ns == length_ns:
                terms = terms.plus(part.terms)
        shares.append(terms.full.packets / terms.seen.packets)
    assert shares[0] > 0
    assert shares[1] < shares[0]
