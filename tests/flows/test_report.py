from __future__ import annotations

import socket
from collections.abc import Callable

import numpy as np

from perfmeasure.flows import keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.bpfcall import ProgramStatistics
from perfmeasure.flows.collector import HookCount
from perfmeasure.flows.interfaces import Hook
from perfmeasure.flows.keys import INGRESS, Total
from perfmeasure.flows.report import Report
from perfmeasure.flows.summary import Reduction, Service


def make_report(services: tuple[Service, ...] = ()) -> Report:
    table = np.zeros(3, keys.TABLE)
    for number, row in enumerate(table, 1):
        row["src_ip"] = np.void(bytes(10) + b"\xff\xff" + socket.inet_aton(f"192.168.1.{number}"))
        row["dst_ip"] = np.void(socket.inet_pton(socket.AF_INET6, "2001:db8:1:2:3:4:5:6"))
        row["dst_port"], row["packets"], row["bytes"] = 443, 1_234_567 * number, 89_012_345
    drained = keys.total(table)
    full = Total(10, 1000)
    return Report(
        flows=table,
        seconds=10.0,
        terms=Terms(seen=drained.plus(full), drained=drained, full=full),
        reduction=Reduction(drained.packets, 30, 10.0),
        programs={"count_xdp": ProgramStatistics(1000, 123_456)},
        top_count=2,
        services=services,
        hooks=(HookCount(Hook("veth0", 7, INGRESS), Total(9, 900), Total(9, 774)),),
        overflow={(0, 17): full},
    )


def test_a_report_is_as_the_seed_prints_it(golden: Callable[[str, str], None]) -> None:
    golden("flows-report.txt", make_report().text() + "\n")


def test_services_take_the_place_of_flows() -> None:
    service = Service("veth0", "192.168.1.10", "10.0.0.5", 80, 6, connects=1_000_000)
    text = make_report((service,)).text()
    assert "TCP connects: 192.168.1.10 → 10.0.0.5:80 (count: 1,000,000)" in text
    assert "SRC_IP" not in text


def test_nothing_seen_is_no_division_by_zero() -> None:
    none = Report(np.zeros(0, keys.TABLE), 0.0, Terms(), Reduction(0, 0, 0.0), {}, 10)
    assert "Flows: 0" in none.text()
    assert "Reduction ratio: 0.0x" in none.text()
