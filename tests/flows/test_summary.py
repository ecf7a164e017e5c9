from __future__ import annotations

import socket

import numpy as np
import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.flows import keys, summary
from perfmeasure.flows.summary import Reduction
from perfmeasure.flows.times import KernelTimes

NAMES = {1: "lo", 2: "veth0"}


def address(text: str) -> np.void:
    if ":" in text:
        return np.void(socket.inet_pton(socket.AF_INET6, text))
    return np.void(bytes(10) + b"\xff\xff" + socket.inet_aton(text))


def rows(*described: tuple[str, int, str, int, int, int]) -> keys.Array:
    """Return rows of source, port, destination, port, protocol and packets, on veth0."""
    table = np.zeros(len(described), keys.TABLE)
    for row, (source, source_port, destination, port, protocol, packets) in zip(
        table, described, strict=True
    ):
        row["src_ip"], row["dst_ip"] = address(source), address(destination)
        row["src_port"], row["dst_port"], row["protocol"] = source_port, port, protocol
        row["packets"], row["bytes"], row["interface"] = packets, 100 * packets, 2
    return table


@pytest.fixture
def times() -> KernelTimes:
    times = KernelTimes()
    times.note(ClockPair(10**18, 0))
    return times


def test_the_top_is_by_packets_then_bytes() -> None:
    table = rows(*(("10.0.0.1", port, "10.0.0.2", 80, 17, packets) for port, packets in
                   ((1, 5), (2, 9), (3, 5), (4, 1))))  # fmt: skip
    table["bytes"][2] += 1
    assert summary.top(table, 3)["src_port"].tolist() == [2, 3, 1]
    assert len(summary.top(table, None)) == 4


def test_a_flow_has_the_fields_of_the_document(times: KernelTimes) -> None:
    table = rows(("10.0.0.1", 1234, "2001:db8::1", 80, 6, 7))
    table["first_ns"], table["last_ns"], table["tcp_flags"] = 10**9, 2 * 10**9, 0x12
    table["connects"], table["closes"], table["segments"] = 1, 2, 8
    (flow,) = summary.flow_fields(table, NAMES, times)
    assert flow == {
        "interface": "veth0", "direction": "ingress", "src_ip": "10.0.0.1", "src_port": 1234,
        "dst_ip": "2001:db8::1", "dst_port": 80, "protocol": 6, "packets": 7, "bytes": 700,
        "segments": 8, "first_seen_unix_ts": 1e9 + 1, "last_seen_unix_ts": 1e9 + 2,
        "tcp_flags": 0x12, "connects": 1, "closes": 2,
    }  # fmt: skip
    (udp,) = summary.flow_fields(rows(("::1", 1, "::1", 2, 17, 1)), NAMES, times)
    assert "tcp_flags" not in udp
    assert summary.flow_fields(rows(), NAMES, times) == []


def test_both_ways_of_a_service_are_one_line() -> None:
    table = rows(
        ("192.168.1.10", 0, "10.0.0.5", 80, 6, 3_000_000),
        ("10.0.0.5", 80, "192.168.1.10", 0, 6, 2_000_000),
        ("192.168.1.10", 0, "10.0.0.5", 0, 1, 4),
        ("10.0.0.9", 0, "2001:db8::1", 53, 17, 5),
    )
    table["connects"][0], table["closes"][:2] = 1_000_000, (1_000_000, 999_999)
    web, dns = summary.services(table, NAMES)
    assert web.line() == (
        "TCP connects: 192.168.1.10 → 10.0.0.5:80 (count: 1,000,000), closes 1,000,000, "
        "packets 5,000,000, bytes 500,000,000"
    )
    assert web.fields() == {
        "interface": "veth0", "client_ip": "192.168.1.10", "service_ip": "10.0.0.5",
        "service_port": 80, "protocol": 6, "packets": 5_000_000, "bytes": 500_000_000,
        "connects": 1_000_000, "closes_by_client": 1_000_000, "closes_by_service": 999_999,
    }  # fmt: skip
    assert dns.line() == "UDP: 10.0.0.9 → [2001:db8::1]:53 (packets 5, bytes 500)"
    assert "connects" not in dns.fields()


def test_the_reduction_is_packets_for_each_summary() -> None:
    reduction = Reduction(packets=1_000_000, summaries=1000, seconds=2.0)
    assert reduction.ratio == 1000
    assert reduction.raw_bytes_per_second == 32e6
    assert reduction.aggregated_bytes_per_second == 500 * (40 + 56)
    none = Reduction(0, 0, 0.0)
    assert list(none.fields().values()) == [0, 0, 0.0, 0.0, 0.0]


def test_protocols_without_a_name_are_numbers() -> None:
    assert (summary.protocol_name(132), summary.protocol_name(253)) == ("SCTP", "253")
