from __future__ import annotations

import socket

import numpy as np

from perfmeasure.clock import ClockPair
from perfmeasure.flows import keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.windows import Window
from perfmeasure.topology.traffic import TrafficTable

_CLOCK = ClockPair(1_800_000_000 * 10**9, 0)


def _mapped(ip: str) -> bytes:
    return bytes(10) + b"\xff\xff" + socket.inet_aton(ip)


def window(second: int, *flows: tuple[str, int, str, int, int, int]) -> Window:
    table = np.zeros(len(flows), keys.TABLE)
    for row, (src, src_port, dst, dst_port, packets, count) in zip(table, flows, strict=True):
        row["src_ip"], row["dst_ip"] = _mapped(src), _mapped(dst)
        row["src_port"], row["dst_port"] = src_port, dst_port
        row["protocol"], row["interface"] = 6, 1
        row["packets"], row["bytes"] = packets, count
    return Window(second, 10**9, table, Terms(), (), _CLOCK)


def test_connections_to_a_service_are_one_line_and_the_answers_another() -> None:
    table = TrafficTable({1: "lo"})
    table.add(
        window(
            10,
            ("10.0.0.1", 40000, "10.0.0.2", 80, 2, 100),
            ("10.0.0.1", 40001, "10.0.0.2", 80, 3, 200),
            ("10.0.0.2", 80, "10.0.0.1", 40000, 4, 4000),
        )
    )
    table.add(window(11, ("10.0.0.1", 40002, "10.0.0.2", 80, 5, 300)))
    there, back = sorted(table.flush([]), key=lambda line: -line["dst_port"])
    assert there == {
        "interface": "lo", "direction": "ingress", "protocol": "tcp", "src_ip": "10.0.0.1",
        "dst_ip": "10.0.0.2", "dst_port": 80, "packets": 10, "bytes": 600,
        "window_start_unix_ts": 1_800_000_010.0, "window_end_unix_ts": 1_800_000_012.0,
    }  # fmt: skip
    assert (back["src_ip"], back["dst_port"], back["packets"], back["bytes"]) == (
        "10.0.0.2", 0, 4, 4000,
    )  # fmt: skip
    assert table.flush([]) == []


def test_who_listens_is_known_better_than_by_the_lower_port() -> None:
    table = TrafficTable({})
    flows = (("10.0.0.1", 2000, "10.0.0.2", 9000, 1, 1), ("10.0.0.2", 9000, "10.0.0.1", 2000, 1, 1))
    table.add(window(0, *flows))
    assert {line["dst_port"] for line in table.flush([])} == {0, 2000}
    table.add(window(0, *flows))
    found = {line["dst_ip"]: line["dst_port"] for line in table.flush([9000])}
    assert found == {"10.0.0.2": 9000, "10.0.0.1": 0}


def test_a_window_is_not_changed() -> None:
    table = TrafficTable({})
    ours = window(0, ("10.0.0.1", 2000, "10.0.0.2", 9000, 1, 1))
    table.add(ours)
    table.flush([])
    assert ours.flows["src_port"][0] == 2000
