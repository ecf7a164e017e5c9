"""The marks of a payload at which the analysis wants to know the time."""

from __future__ import annotations

import bisect

BYTE_MARKS = (10240, 20480, 51200, 102400, 204800, 512000, 1048576, 2097152, 5242880)
"""Payload sizes, besides each per cent, at which the analysis wants to know the time."""
_NEVER = 2**63


def next_mark(size_bytes: int | None, payload_bytes: int) -> int:
    """Return the payload at which the next status line is due: the first byte, a mark, a per cent.

    Args:
        size_bytes: the whole payload; None and 0: there are no per cents.
        payload_bytes: the payload so far.
    """
    if payload_bytes == 0:
        return 1
    index = bisect.bisect_right(BYTE_MARKS, payload_bytes)
    mark = BYTE_MARKS[index] if index < len(BYTE_MARKS) else _NEVER
    if size_bytes:
        percent = payload_bytes * 100 // size_bytes + 1
        mark = min(mark, -(-size_bytes * percent // 100))
    return mark
