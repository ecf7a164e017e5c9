from __future__ import annotations

import dataclasses
import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.flows.connections import LAYOUT, ORIGINS, SIDES, STATES, Flag, Record

ACTIVE, PASSIVE = SIDES.index("active"), SIDES.index("passive")
UNKNOWN = 0xFFFFFFFF


def record(**fields: object) -> Record:
    base = Record(
        family=socket.AF_INET,
        local_address=bytes((127, 0, 0, 1)) + bytes(12),
        remote_address=bytes((10, 0, 0, 9)) + bytes(12),
        minimum_rtt_us=UNKNOWN,
    )
    return dataclasses.replace(base, **fields)  # type: ignore[arg-type]


@given(st.binary(min_size=LAYOUT.size, max_size=LAYOUT.size))
def test_what_the_kernel_writes_is_read_and_packed_alike(data: bytes) -> None:
    padded = data[:155] + bytes(5) + data[160:]
    assert Record.unpack(padded).pack() == padded


def test_what_is_unknown_is_absent() -> None:
    line = record().line(1.5)
    assert line == {
        "record": "connection",
        "unix_ts": 1.5,
        "state": "open",
        "cookie": 0,
        "netns": 0,
        "side": "unknown",
        "existed_before_start": False,
        "family": 4,
        "local_ip": "127.0.0.1",
        "local_port": 0,
        "remote_ip": "10.0.0.9",
        "remote_port": 0,
        "bytes_sent": 0,
        "bytes_received": 0,
        "segments_sent": 0,
        "segments_received": 0,
        "retransmitted_segments": 0,
        "tcp_state": "",
    }
    assert next(iter(line)) == "record"


def test_addresses_are_plain_text() -> None:
    v6 = socket.inet_pton(socket.AF_INET6, "2001:db8::5")
    mapped = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7")
    line = record(family=socket.AF_INET6, local_address=v6, remote_address=v6).line(0)
    assert (line["family"], line["local_ip"], line["remote_ip"]) == (
        6,
        "2001:db8::5",
        "2001:db8::5",
    )
    line = record(family=socket.AF_INET6, local_address=mapped, remote_address=mapped).line(0)
    assert (line["family"], line["local_ip"], line["remote_ip"]) == (4, "192.0.2.7", "192.0.2.7")


@pytest.mark.parametrize(
    ("fields", "sent", "received"),
    [
        # The kernel counts 1 for the active side's SYN, 1 for a FIN acknowledged or received.
        ({"side": ACTIVE, "flags": Flag.WAS_ESTABLISHED, "acknowledged": 101}, 100, 0),
        ({"side": ACTIVE, "flags": 0, "acknowledged": 0}, 0, 0),
        ({"side": PASSIVE, "flags": Flag.WAS_ESTABLISHED, "acknowledged": 100}, 100, 0),
        (
            {"side": PASSIVE, "flags": Flag.LOCAL_FIN_SENT, "acknowledged": 101},
            100,
            0,
        ),
        (
            {
                "side": PASSIVE,
                "flags": Flag.LOCAL_FIN_SENT,
                "acknowledged": 100,
                "unacknowledged": 1,
            },
            100,
            0,
        ),
        ({"side": PASSIVE, "received": 8, "socket_flags": 2}, 0, 7),
        ({"side": PASSIVE, "received": 8, "socket_flags": 1}, 0, 8),
    ],
)
def test_bytes_are_payload(fields: dict[str, int], sent: int, received: int) -> None:
    line = record(**fields).line(0)
    assert (line["bytes_sent"], line["bytes_received"]) == (sent, received)


def test_bytes_sent_of_a_socket_whose_side_is_not_known_are_absent() -> None:
    line = record(flags=Flag.EXISTED_BEFORE, acknowledged=7, first_sent_ns=5, last_sent_ns=6).line(
        0
    )
    assert "bytes_sent" not in line
    assert "first_sent_monotonic_ns" not in line  # it is only the first that we saw
    assert line["last_sent_monotonic_ns"] == 6


@pytest.mark.parametrize(
    ("state", "error", "flags", "end"),
    [
        ("FIN_WAIT2", 0, Flag.LOCAL_FIN_FIRST | Flag.LOCAL_FIN_SENT, "fin_local"),
        ("CLOSING", 0, Flag.LOCAL_FIN_FIRST | Flag.LOCAL_FIN_SENT, "fin_local"),
        ("LAST_ACK", 0, Flag.REMOTE_FIN_FIRST | Flag.LOCAL_FIN_SENT, "fin_remote"),
        ("ESTABLISHED", 0, 0, "reset_local"),
        ("CLOSE_WAIT", 0, Flag.REMOTE_FIN_FIRST, "reset_local"),
        ("FIN_WAIT1", 0, Flag.LOCAL_FIN_FIRST, "reset_local"),
        ("ESTABLISHED", errno.ECONNRESET, 0, "reset_remote"),
        ("CLOSE_WAIT", errno.EPIPE, Flag.REMOTE_FIN_FIRST, "reset_remote"),
        ("SYN_SENT", errno.ECONNREFUSED, 0, "refused"),
        ("SYN_SENT", errno.ETIMEDOUT, 0, "timeout"),
        ("ESTABLISHED", errno.ETIMEDOUT, 0, "timeout"),
        ("SYN_SENT", 0, 0, "unknown"),
        ("SYN_SENT", errno.EHOSTUNREACH, 0, "unknown"),
    ],
)
def test_how_it_ended(state: str, error: int, flags: int, end: str) -> None:
    closed = record(state=STATES.index(state), error=error, flags=flags | Flag.IS_CLOSED)
    line = closed.line(0)
    assert (line["state"], line["end"], line["last_tcp_state"]) == ("closed", end, state)
    assert line.get("error") == (errno.errorcode[error] if error else None)


def test_a_full_line() -> None:
    times = {name.name: 10**12 + at for at, name in enumerate(dataclasses.fields(Record)[1:9])}
    line = record(
        **times, pid=7, origin=ORIGINS.index("connect"), command=b"tor\0\0x", cgroup_id=3,
        timeouts=2, flags=Flag.COUNTS_TIMEOUTS, srtt_us_times_8=81, minimum_rtt_us=0,
    ).line(0)  # fmt: skip
    assert line["smoothed_rtt_us"] == 10
    assert line["minimum_rtt_us"] == 0
    assert line["retransmission_timeouts"] == 2
    assert (line["pid"], line["command"], line["process_seen_at"]) == (7, "tor", "connect")
    assert [line[f"{name[:-3]}_monotonic_ns"] for name in times] == list(times.values())
    assert jsonio.loads(jsonio.compact(line)) == line
