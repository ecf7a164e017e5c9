"""Countries of addresses, by tables of ranges that the user gives; nothing is asked of a network.

A line is ``LOW,HIGH,COUNTRY``, both ends included; what follows is not read. LOW and HIGH are IPv4
or IPv6 addresses as text, or IPv4 addresses as whole numbers. That is what the ``geoip`` and
``geoip6`` files of tor hold (Debian: tor-geoipdb; read by tor's geoip.c), DB-IP's country CSV, and
IP2Location's DB1 CSV of IPv4. Values may be in double quotes; empty lines and those that begin with
``#`` are passed over.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import re
import socket
from typing import TYPE_CHECKING

from perfmeasure.analysis.compression import BLOCK_BYTES, plain_blocks
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RANGE = re.compile(rb'"?([0-9A-Fa-f:.]+)"?,"?([0-9A-Fa-f:.]+)"?,"?([A-Za-z0-9?-]{1,2})"?(?:,|\Z)')
_ISO_3166 = re.compile(r"[a-z]{2}\Z")
_UNKNOWN = "zz"  # which ISO 3166 leaves to its users, and tables use for "not known"
_LONGEST_LINE_BYTES = 4096
_NONE = (0, 0)
_WANTED = "LOW,HIGH,COUNTRY: two addresses, or two IPv4 addresses as numbers, and two letters"


@dataclasses.dataclass(slots=True)
class _Ranges:
    """Ranges of one family, in rising order, none overlapping; a country may be empty."""

    lows: list[int] = dataclasses.field(default_factory=list)
    highs: list[int] = dataclasses.field(default_factory=list)
    countries: list[str] = dataclasses.field(default_factory=list)


class CountryTable:
    """The ranges of one file, which may hold both IPv4 and IPv6.

    ``name`` is the file's, without its folder; ``sha256`` is of the file as stored.

    Args:
        path: the file, plain or compressed.

    Raises:
        InputError: it cannot be read, holds no range, or has a line that is none, or ranges that
            overlap or fall.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self._digest = hashlib.sha256()
        self._ranges: dict[int, _Ranges] = {
            socket.AF_INET: _Ranges(),
            socket.AF_INET6: _Ranges(),
        }
        codes: dict[bytes, str] = {}
        for number, line in enumerate(self._lines(), 1):
            text = line.strip()
            if text and not text.startswith(b"#"):
                self._add(text, number, codes)
        self.sha256 = self._digest.hexdigest()
        if not any(ranges.lows for ranges in self._ranges.values()):
            raise InputError(str(path), "a table of countries without a range", _WANTED)

    def country(self, address: str) -> str:
        """Return the country of an IPv4 or IPv6 address, two small letters; "" if not known."""
        family, value = _parse(address.encode("ascii"))
        ranges = self._ranges[family]
        index = bisect.bisect_right(ranges.lows, value) - 1
        return ranges.countries[index] if index >= 0 and value <= ranges.highs[index] else ""

    def _add(self, line: bytes, number: int, codes: dict[bytes, str]) -> None:
        match = _RANGE.match(line)
        family, low = _parse(match[1]) if match else _NONE
        family_of_high, high = _parse(match[2]) if match else _NONE
        if not match or not family or family != family_of_high or low > high:
            shown = line[:60].decode("utf-8", "backslashreplace")
            raise InputError(f"{self._path}:{number}", f"{shown!r} is no range", _WANTED)
        ranges = self._ranges[family]
        if ranges.highs and low <= ranges.highs[-1]:
            raise InputError(
                f"{self._path}:{number}",
                "a range that begins before the end of an earlier one",
                "ranges in rising order that do not overlap",
            )
        code = codes.get(match[3])
        if code is None:
            text = match[3].decode().lower()
            # Tables have codes for what is not known (??, -) or no country (A1: a proxy).
            code = text if _ISO_3166.match(text) and text != _UNKNOWN else ""
            codes[match[3]] = code
        ranges.lows.append(low)
        ranges.highs.append(high)
        ranges.countries.append(code)

    def _lines(self) -> Iterator[bytes]:
        def stored() -> Iterator[bytes]:
            try:
                with self._path.open("rb") as file:
                    while block := file.read(BLOCK_BYTES):
                        self._digest.update(block)
                        yield block
            except OSError as error:
                got = f"cannot be read ({error.strerror})"
                raise InputError(str(self._path), got, "a table of countries") from error

        def cut_short(reason: str) -> None:
            raise InputError(str(self._path), reason, "a whole file", "fetch it again")

        rest = b""
        for block in plain_blocks(stored(), cut_short):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > _LONGEST_LINE_BYTES:
                break  # no table: this line says so, however long it would become
        yield rest


def _parse(text: bytes) -> tuple[int, int]:
    """Return the family and the value of an address, or `_NONE`."""
    if text.isdigit():
        value = int(text[:11])
        return (socket.AF_INET, value) if value < 1 << 32 else _NONE
    family = socket.AF_INET6 if b":" in text else socket.AF_INET
    try:
        return family, int.from_bytes(socket.inet_pton(family, text.decode("ascii")))
    except (OSError, ValueError):
        return _NONE


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    return not text.isdecimal() and _parse(text.encode("ascii", "replace")) != _NONE
