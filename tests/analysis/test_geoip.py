from __future__ import annotations

import gzip
import hashlib
import ipaddress
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis.geoip import CountryTable, is_address
from perfmeasure.errors import InputError

TOR = "# Last updated\n\n16777216,16777471,AU\n16777472,16778239,CN\n2130706432,2147483647,??\n"
TOR_IPV6 = "2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP\n2a01:4f8::,2a01:4f8:1::,DE\n"


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str | bytes], CountryTable]:
    def make(text: str | bytes) -> CountryTable:
        path = tmp_path / "geoip"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return CountryTable(path)

    return make


@pytest.mark.parametrize(
    ("text", "countries"),
    [
        (
            TOR + TOR_IPV6,
            {
                "1.0.0.0": "au", "1.0.0.255": "au", "1.0.1.0": "cn", "1.0.3.255": "cn",
                "1.0.4.0": "", "0.255.255.255": "", "127.0.0.1": "", "255.255.255.255": "",
                "2001:200::1": "jp", "2a01:4f8:1::": "de", "2a01:4f8:1::1": "", "::": "",
            },
        ),
        ("1.0.0.0,1.0.0.255,AU\r\n2a01:4f8::,2a01:4f8:1::,DE", {"1.0.0.9": "au", "::1": ""}),
        ('"0","16777215","-","-"\n"16777216","16777471","AU","Australia"\n', {"1.0.0.1": "au"}),
        ('"16777216","16777471","A1","--","Anonymous Proxy"\n0.1.0.0,0.1.0.0,ZZ', {"1.0.0.1": ""}),
    ],
    ids=["tor", "DB-IP", "IP2Location", "no countries"],
)  # fmt: skip
def test_countries(
    table: Callable[[str], CountryTable], text: str, countries: dict[str, str]
) -> None:
    if "ZZ" in text:
        text = "\n".join(reversed(text.splitlines()))
    found = table(text)
    assert {address: found.country(address) for address in countries} == countries


def test_what_is_said_of_the_file(table: Callable[[bytes], CountryTable]) -> None:
    stored = gzip.compress(TOR.encode(), mtime=0)
    found = table(stored)
    assert (found.name, found.sha256) == ("geoip", hashlib.sha256(stored).hexdigest())
    assert found.country("1.0.0.7") == "au"


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("1.0.0.0,1.0.0.255,AU\n1.0.1.0,AU\n", "geoip:2", "'1.0.1.0,AU' is no range"),
        ("1.0.0.0,1.0.0.256,AU", "geoip:1", "is no range"),
        ("1.0.0.9,1.0.0.1,AU", "geoip:1", "is no range"),
        ("1.0.0.0,2001:200::,AU", "geoip:1", "is no range"),
        ("0,4294967296,AU", "geoip:1", "is no range"),
        ("1.0.0.0/24,2077456,2077456", "geoip:1", "wanted LOW,HIGH,COUNTRY"),
        ("1.0.0.0,1.0.0.255,AUS", "geoip:1", "is no range"),
        ("\0\xff" * 9, "geoip:1", "is no range"),
        ("5" * 10_000_000, "geoip:1", "is no range"),
        (TOR + "1.0.3.0,1.0.4.0,CN", "geoip:6", "begins before the end of an earlier one"),
        ("# nothing\n", "geoip", "without a range"),
        ("", "geoip", "without a range"),
        (gzip.compress(TOR.encode(), mtime=0)[:-9], "geoip", "end early"),
    ],
)
def test_what_is_no_table(
    table: Callable[[str | bytes], CountryTable], text: str | bytes, where: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        table(text)
    assert f"{where}: " in str(caught.value)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: cannot be read \(No such file"):
        CountryTable(tmp_path / "none")


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=40, unique=True),
    st.integers(0, 2**32 - 1),
)
def test_as_one_would_search_by_hand(
    tmp_path_factory: pytest.TempPathFactory, ends: list[int], wanted: int
) -> None:
    ends = sorted(ends[: len(ends) // 2 * 2])
    ranges = list(zip(ends[::2], ends[1::2], strict=True))
    path = tmp_path_factory.getbasetemp() / "ranges"
    codes = [chr(97 + index) * 2 for index in range(len(ranges))]
    path.write_text(
        "".join(f"{a},{b},{code}\n" for (a, b), code in zip(ranges, codes, strict=True))
    )
    table = CountryTable(path)
    for value in (wanted, *ends):
        expected = [c for (a, b), c in zip(ranges, codes, strict=True) if a <= value <= b]
        assert table.country(str(ipaddress.IPv4Address(value))) == "".join(expected)


@given(st.one_of(st.text(max_size=20), st.ip_addresses().map(str)))
def test_addresses_are_those_of_the_standard_library(text: str) -> None:
    try:
        is_one = bool(ipaddress.ip_address(text)) and "%" not in text
    except ValueError:
        is_one = False
    assert is_address(text) == is_one
