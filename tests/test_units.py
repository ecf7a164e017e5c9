from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import units
from perfmeasure.errors import UsageError


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("5 MiB", 5 * 2**20), ("1 mib", 2**20), ("50 kb", 50_000), ("1024", 1024), ("0", 0),
        ("1.5 KiB", 1536), ("2gib", 2 * 2**30), ("10 kibibytes", 10_240), ("3 bytes", 3),
    ],
)  # fmt: skip
def test_sizes(text: str, count: int) -> None:
    assert units.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "-5", "5 parsecs", "1e3", "nan", "5 Mi B"])
def test_what_is_no_size_is_refused_with_the_option_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"--size: .* is not a size"):
        units.parse_bytes(text, "--size")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("270 seconds", 270), ("5 minutes", 300), ("1 h", 3600), ("20ms", 0.02), ("1.5", 1.5),
     ("100 microseconds", 1e-4), ("2 days", 172_800)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1 s", "1 fortnight", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        units.parse_seconds(text)


@given(st.text(max_size=12))
def test_no_text_makes_the_parsers_fail_in_another_way(text: str) -> None:
    for parse in (units.parse_bytes, units.parse_seconds):
        try:
            assert parse(text) >= 0
        except UsageError:
            continue


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**20, "5.0 MiB"), (2**41, "2.0 TiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert units.format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1234, "0.123 s"), (12.34, "12.3 s"), (245, "4 min 05 s"), (11_040, "3 h 04 min")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert units.format_seconds(seconds) == text


def test_stamps_are_utc_with_six_decimals() -> None:
    assert units.log_stamp(1795305600.000001) == "2026-11-22 00:00:00 1795305600.000001"
    assert units.log_stamp(1795305599.999999) == "2026-11-21 23:59:59 1795305599.999999"
    assert units.utc_date(1795305599.999999) == "2026-11-21"
