"""Files of windows as the collector writes them, made without a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perfmeasure.clock import ClockPair
from perfmeasure.flows import keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.keys import EGRESS, INGRESS, Total
from perfmeasure.flows.window_store import WindowStore
from perfmeasure.flows.windows import Window

if TYPE_CHECKING:
    from pathlib import Path

DAY = 1795305600  # 2026-11-22 00:00:00 UTC
CLIENT, PROXY = 40000, 9050


def window(second: int, flows: int = 1) -> Window:
    """Return a window of DAY with connections to a proxy, each 2 packets out and 3 in."""
    table = np.zeros(2 * flows, keys.TABLE)
    for number in range(flows):
        for at, direction, packets in ((2 * number, EGRESS, 2), (2 * number + 1, INGRESS, 3)):
            ends = ("src_port", "dst_port") if direction == EGRESS else ("dst_port", "src_port")
            row = table[at]
            row[ends[0]], row[ends[1]] = CLIENT + number, PROXY
            row["src_ip"] = row["dst_ip"] = np.void(bytes(10) + b"\xff\xff\x7f\0\0\1")
            row["protocol"], row["direction"], row["interface"] = 6, direction, 1
            row["packets"] = row["segments"] = packets
            row["bytes"] = 100 * packets
            row["connects"] = direction == EGRESS
            row["first_ns"] = row["last_ns"] = second * 10**9 + 1
    drained = keys.total(table)
    terms = Terms(seen=drained.plus(Total(1, 60)), drained=drained, unparsed=Total(1, 60))
    return Window(second, 10**9, table, terms, (), ClockPair(DAY * 10**9, 0))


def write(folder: Path, *seconds: int, flows: int = 1) -> None:
    """Write windows that begin so many seconds after DAY."""
    store = WindowStore(folder, {1: "lo"})
    for second in seconds:
        store.add(window(second, flows))
    store.flush()
