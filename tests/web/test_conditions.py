from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.web import conditions
from perfmeasure.web.conditions import ByteRange, UnsatisfiableRangeError

ETAG = b'"abc"'


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        (b"", False),
        (b"gzip", True),
        (b"GZIP", True),
        (b"x-gzip", True),
        (b"deflate, gzip;q=1.0, *;q=0.5", True),
        (b"*", True),
        (b"*;q=0", False),
        (b"gzip;q=0", False),
        (b"gzip;q=0, *", False),
        (b"gzip;q=0.000", False),
        (b"gzip; q=0.001", True),
        (b"gzip;q=0.5, identity", False),
        (b"gzip;q=0.5, identity;q=0.5", True),
        (b"identity;q=0, gzip;q=0.1", True),
        (b"br, deflate", False),
        (b"gzip;q=nonsense", False),
        (b"gzip;q=2", False),
        (b";;;,,,", False),
    ],
)
def test_gzip_is_taken_as_the_weights_say(header: bytes | None, *, accepted: bool) -> None:
    assert conditions.accepts_gzip(header) is accepted


@pytest.mark.parametrize(
    ("header", "weak", "strong"),
    [
        (b'"abc"', True, True),
        (b'W/"abc"', True, False),
        (b'"x", "abc"', True, True),
        (b'"x",W/"abc" , "y"', True, False),
        (b'"x, \\"abc', False, False),
        (b'"a,b", "abc"', True, True),
        (b"*", True, True),
        (b"abc", False, False),
        (b"", False, False),
    ],
)
def test_lists_of_entity_tags(header: bytes, *, weak: bool, strong: bool) -> None:
    assert conditions.matches_any(header, ETAG, is_weak=True) is weak
    assert conditions.matches_any(header, ETAG, is_weak=False) is strong


def test_if_none_match_decides_alone() -> None:
    later = conditions.http_date(2000)
    assert not conditions.is_not_modified(ETAG, 1000, b'"other"', later)
    assert conditions.is_not_modified(ETAG, 1000, b'"abc"', conditions.http_date(1))
    assert conditions.is_not_modified(ETAG, 1000, None, conditions.http_date(1000))
    assert not conditions.is_not_modified(ETAG, 1000, None, conditions.http_date(999))
    assert not conditions.is_not_modified(ETAG, 1000, None, b"yesterday")
    assert not conditions.is_not_modified(ETAG, 1000, None, None)


def test_preconditions() -> None:
    assert conditions.is_precondition_failed(ETAG, 1000, b'"other"', None)
    assert conditions.is_precondition_failed(ETAG, 1000, b'W/"abc"', None)
    assert not conditions.is_precondition_failed(ETAG, 1000, b'"abc"', conditions.http_date(1))
    assert conditions.is_precondition_failed(ETAG, 1000, None, conditions.http_date(999))
    assert not conditions.is_precondition_failed(ETAG, 1000, None, conditions.http_date(1000))


@given(st.integers(0, 2**32))
def test_dates_come_back(unix_ts: int) -> None:
    assert conditions.parse_http_date(conditions.http_date(unix_ts)) == unix_ts


def test_the_rfcs_date() -> None:
    assert conditions.http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (b"bytes=0-0", ByteRange(0, 1)),
        (b"bytes=0-99", ByteRange(0, 10)),
        (b"bytes=3-", ByteRange(3, 7)),
        (b"Bytes=9-9", ByteRange(9, 1)),
        (b"bytes=-3", ByteRange(7, 3)),
        (b"bytes=-99", ByteRange(0, 10)),
        (b"bytes=5-4", None),
        (b"bytes=-", None),
        (b"bytes=", None),
        (b"bytes=a-b", None),
        (b"bytes=0-1,3-4", None),
        (b"lines=0-1", None),
        (b"bytes=0-" + b"9" * 5000, None),
        (None, None),
    ],
)
def test_ranges_of_ten_bytes(header: bytes | None, part: ByteRange | None) -> None:
    assert conditions.parse_range(header, 10) == part


@pytest.mark.parametrize("header", [b"bytes=10-", b"bytes=10-20", b"bytes=-0"])
def test_ranges_that_hold_nothing(header: bytes) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        conditions.parse_range(header, 10)
    with pytest.raises(UnsatisfiableRangeError):
        conditions.parse_range(b"bytes=0-", 0)


def test_content_range() -> None:
    assert ByteRange(3, 4).content_range(10) == b"bytes 3-6/10"


@given(st.binary(max_size=40), st.integers(0, 100))
def test_any_header_is_survived(header: bytes, size: int) -> None:
    conditions.accepts_gzip(header)
    conditions.matches_any(header, ETAG, is_weak=True)
    conditions.parse_http_date(header)
    conditions.is_range_current(header, ETAG, 1000)
    try:
        part = conditions.parse_range(b"bytes=" + header, size)
    except UnsatisfiableRangeError:
        return
    if part is not None:
        assert part.length_bytes >= 1
        assert part.offset_bytes >= 0
        assert part.offset_bytes + part.length_bytes <= size


def test_if_range() -> None:
    assert conditions.is_range_current(None, ETAG, 1000)
    assert conditions.is_range_current(ETAG, ETAG, 1000)
    assert not conditions.is_range_current(b'W/"abc"', ETAG, 1000)
    assert not conditions.is_range_current(b'"other"', ETAG, 1000)
    assert conditions.is_range_current(conditions.http_date(1000), ETAG, 1000)
    assert not conditions.is_range_current(conditions.http_date(1001), ETAG, 1000)
