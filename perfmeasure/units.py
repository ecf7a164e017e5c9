"""Sizes, durations and UTC stamps as people write them, parsed and formatted in one place."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from perfmeasure.errors import UsageError

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*\Z")

_BYTES_PER_UNIT: dict[str, int] = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    **{
        name: 1024**power
        for power, prefix in enumerate(("kibi", "mebi", "gibi", "tebi"), 1)
        for name in (f"{prefix[0]}ib", f"{prefix}byte", f"{prefix}bytes")
    },
    **{
        name: 1000**power
        for power, prefix in enumerate(("kilo", "mega", "giga", "tera"), 1)
        for name in (f"{prefix[0]}b", f"{prefix}byte", f"{prefix}bytes")
    },
}  # fmt: skip

_SECONDS_PER_UNIT: dict[str, float] = {
    "": 1.0, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hr": 3600.0, "hrs": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
    "ms": 1e-3, "msec": 1e-3, "msecs": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "usec": 1e-6, "usecs": 1e-6, "microsecond": 1e-6, "microseconds": 1e-6,
    "ns": 1e-9, "nsec": 1e-9, "nsecs": 1e-9, "nanosecond": 1e-9, "nanoseconds": 1e-9,
}  # fmt: skip


def parse_bytes(text: str, where: str = "size") -> int:
    """Return the number of bytes in ``text``, such as ``5 MiB``, ``50 kb`` or ``1024``.

    ``KiB`` and its like count by 1024, ``KB`` and its like by 1000, as TGen does.

    Raises:
        UsageError: not a size.
    """
    match = _QUANTITY.match(text)
    factor = _BYTES_PER_UNIT.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UsageError(where, f"{text!r} is not a size", "a number with a unit, such as 5 MiB")
    return round(float(match[1]) * factor)


def parse_seconds(text: str, where: str = "duration") -> float:
    """Return the seconds in ``text``, such as ``270 seconds``, ``5 minutes``, ``20ms`` or ``1.5``.

    Raises:
        UsageError: not a duration.
    """
    match = _QUANTITY.match(text)
    factor = _SECONDS_PER_UNIT.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UsageError(
            where, f"{text!r} is not a duration", "a number with a unit, such as 5 minutes"
        )
    return float(match[1]) * factor


def format_bytes(count: float) -> str:
    """Return ``count`` bytes for people, such as ``5.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """Return a duration for people: ``0.120 s``, ``12.3 s``, ``4 min 05 s`` or ``3 h 04 min``."""
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def log_stamp(unix_ts: float) -> str:
    """Return the first three columns of a log line: UTC date, time, and Unix time, 6 decimals."""
    return f"{datetime.fromtimestamp(unix_ts, UTC):%Y-%m-%d %H:%M:%S} {unix_ts:.6f}"


def utc_date(unix_ts: float) -> str:
    """Return the UTC day of ``unix_ts`` as ``YYYY-MM-DD``."""
    return f"{datetime.fromtimestamp(unix_ts, UTC):%Y-%m-%d}"
