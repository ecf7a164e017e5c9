"""The kernel's count-min sketch, against the exact table of the same packets."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from flow_frames import INGRESS, Datagram, feed

from perfmeasure.flows import keys, sketch
from perfmeasure.flows.sketch import ROWS, WIDTH, Sketch
from perfmeasure.flows.windows import Windows

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

LONG_NS = 3600 * 10**9


def test_never_too_small_and_too_large_as_rarely_as_promised(
    require: Callable[..., None], is_long: bool
) -> None:
    require("root", "bpf")
    draw = random.Random(11)
    seed = sketch.new_seed()
    # As many flows as counters in a row, so that most share theirs; a few are large.
    count = WIDTH if is_long else WIDTH // 2
    windows = Windows(LONG_NS, WIDTH, definitions={"SKETCH_SEED": seed}, functions=[INGRESS])
    windows.begin()
    sent = 0
    for number in range(count):
        repeat = draw.choice((1, 1, 1, 2, 3, 40 if number % 50 else 2000))
        source = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        feed(windows, Datagram(source, 1024, "10.9.9.9", 53, number % 32), repeat)
        sent += repeat
    (window,) = windows.finish()
    exact = window.flows
    assert keys.total(exact).packets == sent
    assert len(exact) == count

    read = Sketch.read(windows.program, seed)
    for unit in ("packets", "bytes"):
        assert read.row_totals(unit) == [int(exact[unit].sum())] * ROWS
        errors = read.estimates(exact, unit).astype(np.int64) - exact[unit].astype(np.int64)
        assert errors.min() == 0  # never too small, and for most flows right
        assert errors.max() > 0  # some did meet in all rows: or nothing would be shown here
        bound = math.e * int(exact[unit].sum()) / WIDTH
        assert np.mean(errors > bound) <= math.exp(-ROWS)
        found = read.against(exact)
        assert found[f"bound_{unit}"] == bound
        assert found[f"worst_error_{unit}"] == errors.max()
        assert found[f"mean_error_{unit}"] == errors.mean()
        assert found[f"flows_above_bound_{unit}"] == np.count_nonzero(errors > bound)
        assert found[f"flows_underestimated_{unit}"] == 0
    # A wrong seed reads other counters: then the check would find flows that are too small.
    wrong = Sketch.read(windows.program, seed + 1).against(exact)
    assert wrong["flows_underestimated_packets"] > count / 10


def test_what_found_no_room_in_the_table_is_in_the_sketch(require: Callable[..., None]) -> None:
    require("root", "bpf")
    seed = sketch.new_seed()
    windows = Windows(LONG_NS, 16, definitions={"SKETCH_SEED": seed}, functions=[INGRESS])
    windows.begin()
    for number in range(200):
        feed(windows, Datagram("10.0.0.1", 2000 + number, "10.0.0.2", 53, 0), 5)
    (window,) = windows.finish()
    assert window.terms.full.packets > 0
    read = Sketch.read(windows.program, seed)
    assert read.row_totals("packets") == [1000] * ROWS

    missing = np.zeros(1, keys.TABLE)
    missing[0] = window.flows[0]
    missing["src_port"] = next(
        port for port in range(2000, 2200) if port not in window.flows["src_port"]
    )
    assert read.estimates(missing, "packets")[0] >= 5


def test_two_seeds_give_other_hashes() -> None:
    flows = np.zeros(3, keys.TABLE)
    flows["src_port"] = [1, 2, 3]
    one, other = sketch.hashes(flows, 1), sketch.hashes(flows, 2)
    assert len(set(one.tolist()) | set(other.tolist())) == 6
    assert sketch.new_seed() != sketch.new_seed()
