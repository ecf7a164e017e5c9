"""What a request's headers ask for: an encoding, a range, or only what has changed (RFC 9110).

Pure functions over header values, as bytes; a header that is malformed counts as not sent,
as the RFC wants it. Nothing here touches a file or a socket.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

_QVALUE = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")
_ENTITY_TAG = re.compile(rb'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_RANGE = re.compile(rb"bytes=[ \t]*(\d*)-(\d*)[ \t]*\Z", re.IGNORECASE)
# More digits than any file's size has, and few enough that int() costs nothing.
_MAX_DIGITS = 18


def accepts_gzip(header: bytes | None) -> bool:
    """Say whether ``Accept-Encoding`` takes gzip at least as gladly as the plain bytes.

    ``*`` stands for every coding that is not named; a coding with ``q=0`` is refused
    (RFC 9110, 12.5.3). Without the header the answer is no: plain bytes suit everyone.
    """
    weights: dict[str, float] = {}
    for element in (header or b"").decode("latin-1").split(","):
        coding, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                value = value.strip()
                weight = float(value) if _QVALUE.match(value) else 0.0
        if coding:
            weights["gzip" if coding == "x-gzip" else coding] = weight
    of_gzip = weights.get("gzip", weights.get("*", 0.0))
    return of_gzip > 0 and of_gzip >= weights.get("identity", 0.0)


def matches_any(header: bytes, etag: bytes, *, is_weak: bool) -> bool:
    """Say whether a list of entity tags, or ``*``, holds ``etag`` (ours is always strong).

    Args:
        header: the value of ``If-None-Match`` or ``If-Match``.
        etag: the representation's entity tag, with its quotes.
        is_weak: compare weakly, as ``If-None-Match`` does: ``W/"x"`` is ``"x"``.
    """
    if header.strip() == b"*":
        return True
    tags = (match[0] for match in _ENTITY_TAG.finditer(header))
    return any(tag == etag or (is_weak and tag == b"W/" + etag) for tag in tags)


def http_date(unix_ts: float) -> bytes:
    """Return a time as ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    return formatdate(int(unix_ts), usegmt=True).encode("ascii")


def parse_http_date(header: bytes) -> int | None:
    """Return the Unix time in whole seconds of a date in a header, or None if it is none."""
    try:
        return int(parsedate_to_datetime(header.decode("ascii")).timestamp())
    except (ValueError, OverflowError, TypeError):
        return None


def is_not_modified(
    etag: bytes,
    modified_unix_ts: int,
    if_none_match: bytes | None,
    if_modified_since: bytes | None,
) -> bool:
    """Say whether the client holds the current bytes already, so that 304 answers it.

    ``If-None-Match`` decides alone when it is there (RFC 9110, 13.2.2).
    """
    if if_none_match is not None:
        return matches_any(if_none_match, etag, is_weak=True)
    if if_modified_since is not None:
        since = parse_http_date(if_modified_since)
        return since is not None and modified_unix_ts <= since
    return False


def is_precondition_failed(
    etag: bytes,
    modified_unix_ts: int,
    if_match: bytes | None,
    if_unmodified_since: bytes | None,
) -> bool:
    """Say whether the client wants these bytes only if they are others than we have: 412."""
    if if_match is not None:
        return not matches_any(if_match, etag, is_weak=False)
    if if_unmodified_since is not None:
        since = parse_http_date(if_unmodified_since)
        return since is not None and modified_unix_ts > since
    return False


@dataclass(frozen=True)
class ByteRange:
    """A part of a file: ``length_bytes`` bytes from ``offset_bytes`` on."""

    offset_bytes: int
    length_bytes: int

    def content_range(self, size_bytes: int) -> bytes:
        """Return the value of ``Content-Range`` for this part of ``size_bytes`` bytes."""
        last = self.offset_bytes + self.length_bytes - 1
        return b"bytes %d-%d/%d" % (self.offset_bytes, last, size_bytes)


class UnsatisfiableRangeError(ValueError):
    """A well-formed range that holds no byte of the file: 416."""


def parse_range(header: bytes | None, size_bytes: int) -> ByteRange | None:
    """Return the part that ``Range`` asks for, or None if the whole file answers it.

    Several ranges at once are answered with the whole file, which RFC 9110 (14.2) leaves to the
    server: no reader of measurements needs them, and many small ones are a known attack.

    Raises:
        UnsatisfiableRangeError: the range begins behind the end, or asks for the last 0 bytes.
    """
    match = _RANGE.match(header or b"")
    if match is None or match[0] == b"" or max(map(len, match.groups())) > _MAX_DIGITS:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        length = min(int(last), size_bytes)
        if length == 0:
            raise UnsatisfiableRangeError
        return ByteRange(size_bytes - length, length)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size_bytes:
        raise UnsatisfiableRangeError
    end = min(int(last), size_bytes - 1) if last else size_bytes - 1
    return ByteRange(start, end - start + 1)


def is_range_current(if_range: bytes | None, etag: bytes, modified_unix_ts: int) -> bool:
    """Say whether ``If-Range`` (an entity tag or a date) still names these bytes.

    If it does not, the range is ignored and the whole file sent. Tags are compared strongly; a
    date must be the file's own to the second.
    """
    if if_range is None:
        return True
    value = if_range.strip()
    if value.endswith(b'"'):
        return value == etag
    return parse_http_date(value) == modified_unix_ts
