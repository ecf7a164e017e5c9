from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import UsageError
from perfmeasure.recorder.keys import (
    Address,
    Connection,
    Port,
    Side,
    address_bytes,
    address_text,
    connection4_text,
    parse_key,
    protocol_name,
    protocol_number,
)
from perfmeasure.recorder.records import MAPPED

addresses = st.ip_addresses().map(str).map(address_bytes)
ends = st.tuples(addresses, st.integers(0, 65535))


def test_the_keys_of_the_original() -> None:
    one, other = MAPPED + bytes([1, 2, 3, 4]), MAPPED + bytes([5, 6, 7, 8])
    key = parse_key("connection4", "tcp 1.2.3.4:80 5.6.7.8:88")
    assert key == Connection((one, other), 6, (80, 88))
    key = parse_key("connection3", "tcp 1.2.3.4 5.6.7.8:80")
    assert key == Connection((one, other), 6, (None, 80))
    assert parse_key("connection2", "1.2.3.4 5.6.7.8") == Connection((one, other))
    assert parse_key("ip", "1.2.3.4") == Address(one, one)
    six = address_bytes("2001:db8::1")
    assert six is not None
    assert parse_key("ip", "[2001:db8::1]") == parse_key("ip", "2001:db8::1") == Address(six, six)
    key = parse_key("connection4", "udp [2001:db8::1]:53 [2001:db8::1]:54")
    assert key == Connection((six, six), 17, (53, 54))
    assert parse_key("connection2", "2001:db8::1 [2001:db8::1]") == Connection((six, six))
    assert parse_key("srcport", "80") == Port(80, Side.SOURCE)
    assert parse_key("dstip", "1.2.3.4") == Address(one, one, Side.TARGET)


@pytest.mark.parametrize(
    ("index", "text"),
    [
        ("connection4", "tcp 1.2.3.4:80 5.6.7.8"),
        ("connection4", "tcp 1.2.3.4 5.6.7.8:80"),
        ("connection4", "tcp 1.2.3.4:80 5.6.7.8:65536"),
        ("connection4", "nonsense 1.2.3.4:80 5.6.7.8:80"),
        ("connection4", "256 1.2.3.4:80 5.6.7.8:80"),
        ("connection3", "tcp 1.2.3.4:80 5.6.7.8"),
        ("connection2", "1.2.3.4:80 5.6.7.8"),
        ("connection2", "1.2.3.4"),
        ("connection2", ""),
        ("ip", "1.2.3"),
        ("ip", "example.org"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "http"),
        ("port", "²"),
        ("host", "1.2.3.4"),
        ("connection5", "tcp 1.2.3.4:80 5.6.7.8:80"),
        ("srcdstip", "1.2.3.4"),
    ],
)
def test_what_is_no_key_is_refused(index: str, text: str) -> None:
    with pytest.raises(UsageError):
        parse_key(index, text)


@given(st.integers(0, 255), ends, ends)
def test_a_connection_as_text_is_read_back(
    protocol: int, one: tuple[bytes, int], other: tuple[bytes, int]
) -> None:
    key = parse_key("connection4", connection4_text(protocol, one, other))
    assert key == Connection((one[0], other[0]), protocol, (one[1], other[1]))


@given(st.sampled_from(["connection4", "connection3", "connection2", "ip", "port"]), st.text())
def test_no_text_breaks_the_parser(index: str, text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_key(index, text)


@given(addresses)
def test_an_address_as_text_is_read_back(address: bytes) -> None:
    assert address_bytes(address_text(address)) == address


@given(st.integers(0, 255))
def test_a_protocol_as_text_is_read_back(number: int) -> None:
    assert protocol_number(protocol_name(number)) == number
