from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.analysis.connectionscan import CollectorAbsent, CollectorLost
from perfmeasure.analysis.servicescan import (
    InstanceSeen,
    RelaySeen,
    ServiceConnectionSeen,
    ServiceScan,
    ServiceSeen,
    ServicesStarted,
    TrafficSeen,
)
from perfmeasure.analysis.source import Counts, Fact
from tests.analysis import service_lines as lines

DAY = lines.DAY
ENDS = ("10.0.0.1", 5000, "::ffff:10.0.0.2", 3306)
TRAFFIC = lines.line(
    "network_traffic", 7, instance_id="m1", interface="eth0", direction="egress", protocol="tcp",
    src_ip="10.0.0.1", dst_ip="10.0.0.2", dst_port=80, packets=2, bytes=300,
    window_start_unix_ts=DAY + 6, window_end_unix_ts=DAY + 7,
)  # fmt: skip
RELAY = lines.line("relay", 8, fingerprint="A" * 40, nickname="guard", ip="192.0.2.1", port=9001)
SAMPLES = (
    lines.start(0),
    lines.line("clock", 0, utc_ns=1, monotonic_ns=1, reason="start"),
    lines.instance(0, "m1", "10.0.0.1", "fe80::1%eth0"),
    lines.service(1, "m1", "web", ("::", 80), instance_ips=["10.0.0.1"]),
    lines.service(1, "m1", "web", ("::", 80), ended=9, pid=7, is_v6only=True),
    lines.connection(2, "m1", 1, "web", ENDS, sent=5, received=6),
    lines.connection(2, "m1", 1, None, ENDS, end=3, side="passive"),
    TRAFFIC,
    RELAY,
    lines.line("lost", 9, what="lines", count=3),
    lines.line("absent", 9, reason="no rights"),
    lines.line("stop", 9, reason="SIGTERM"),
)


def scanned(*texts: bytes) -> tuple[list[Fact], Counts]:
    scan, counts = ServiceScan(), Counts()
    return [*scan.batch(1, list(texts), counts), *scan.end(counts)], counts


def test_each_record() -> None:
    facts, counts = scanned(*(sample.strip().encode() for sample in SAMPLES))
    assert (counts.used, counts.skipped, counts.rejected) == (10, 2, {})
    assert [fact for _, _, fact in facts] == [
        ServicesStarted("m1", "m1", "ebpf", "host"),
        InstanceSeen("m1", [1] * 4, ["10.0.0.1", "fe80::1", "127.0.0.1", "::1"]),
        ServiceSeen(
            "m1", 1, "web", 100, "tcp", "::", 80, False, DAY + 1, 0.0, ["10.0.0.1"], "", ""
        ),
        ServiceSeen("m1", 1, "web", 7, "tcp", "::", 80, True, DAY + 1, DAY + 9, [], "", ""),
        ServiceConnectionSeen(
            "m1", 1, "1", "web", "active", "tcp", "10.0.0.1", 5000, "10.0.0.2", 3306,
            DAY + 2, 0.0, False, "ebpf", {"pid": 100, "bytes_sent": 5, "bytes_received": 6},
        ),
        ServiceConnectionSeen(
            "m1", 1, "1", "", "passive", "tcp", "10.0.0.1", 5000, "10.0.0.2", 3306,
            DAY + 2, DAY + 3, True, "ebpf", {"pid": 100, "bytes_sent": 0, "bytes_received": 0},
        ),
        TrafficSeen(
            "m1", "eth0", "egress", "tcp", "10.0.0.1", "10.0.0.2", 80, 2, 300, DAY + 6
        ),
        RelaySeen("A" * 40, "guard", "192.0.2.1", 9001),
        CollectorLost("lines", 3),
        CollectorAbsent("no rights"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sample", "change", "reason"),
    [
        (5, {"side": "activf"}, "side is missing or garbled"),
        (5, {"state": None}, "state is missing or garbled"),
        (5, {"protocol": "sctp"}, "protocol is missing or garbled"),
        (5, {"src_ip": "10.0.0.256"}, "src_ip is missing or garbled"),
        (5, {"dst_ip": 7}, "dst_ip is missing or garbled"),
        (5, {"dst_port": 65536}, "dst_port is missing or garbled"),
        (5, {"bytes_sent": 1 << 53}, "bytes_sent is missing or garbled"),
        (5, {"bytes_received": -1}, "bytes_received is missing or garbled"),
        (5, {"service": ""}, "service is missing or garbled"),
        (5, {"id": 5}, "id is missing or garbled"),
        (5, {"end_unix_ts": 5.0}, "end before start"),
        (5, {"start_unix_ts": "now"}, "start_unix_ts is missing or garbled"),
        (5, {"unix_ts": 5}, "no time stamp"),
        (5, {"record": "service_connectiom"}, "a record of a name that is not known"),
        (3, {"is_v6only": 1}, "is_v6only is missing or garbled"),
        (3, {"name": "a\nb"}, "name is missing or garbled"),
        (3, {"instance_ips": "10.0.0.1"}, "instance_ips is missing or garbled"),
        (3, {"valid_from_unix_ts": 0.0}, "valid_from_unix_ts is missing or garbled"),
        (3, {"valid_to_unix_ts": 5.0}, "valid_to before valid_from"),
        (2, {"addresses": [{"netns": 1}]}, "addresses is missing or garbled"),
        (2, {"addresses": [{"netns": 1, "ips": ["x"]}]}, "addresses is missing or garbled"),
        (2, {"addresses": {}}, "addresses is missing or garbled"),
        (7, {"direction": "up"}, "direction is missing or garbled"),
    ],
)
def test_what_cannot_be_is_rejected_by_its_reason(
    sample: int, change: dict[str, Any], reason: str
) -> None:
    record = jsonio.loads(SAMPLES[sample])
    facts, counts = scanned(jsonio.compact({**record, **change}).encode())
    assert facts == []
    assert counts.rejected == {reason: 1}


@settings(max_examples=200)
@given(data=st.data())
def test_a_cut_line_is_never_a_record(data: st.DataObject) -> None:
    line = data.draw(st.sampled_from(SAMPLES)).strip().encode()
    facts, counts = scanned(line[: data.draw(st.integers(0, len(line) - 1))])
    assert facts == []
    assert sum(counts.rejected.values()) == 1


@settings(max_examples=300)
@given(data=st.data())
def test_flipped_bytes_raise_nothing_and_every_line_is_counted(data: st.DataObject) -> None:
    line = bytearray(data.draw(st.sampled_from(SAMPLES)).strip().encode())
    for place in data.draw(st.lists(st.integers(0, len(line) - 1), min_size=1, max_size=3)):
        line[place] ^= data.draw(st.integers(1, 255))
    parts = bytes(line).split(b"\n")
    facts, counts = scanned(*parts)
    assert counts.used + counts.skipped + sum(counts.rejected.values()) == len(parts)
    assert len(facts) == counts.used
    for _, _, fact in facts:
        if isinstance(fact, ServiceConnectionSeen):
            assert 0 <= fact.src_port < 65536
            assert fact.end_unix_ts == 0 or fact.end_unix_ts >= fact.start_unix_ts
