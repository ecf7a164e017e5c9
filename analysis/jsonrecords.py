"""Logs of one JSON object a line: what their scans have in common.

Each line has ``record``, the name of what it says, and ``unix_ts``, the time of its writing.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from perfmeasure import jsonio
from perfmeasure.analysis.events import RejectedError
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perfmeasure.analysis.source import Counts, Fact

_LATEST_UNIX_TS = 1e10
_PORTS = 1 << 16
_NUMBERS = 1 << 63


class RecordScan:
    """The scan of one log: `batch` for its lines in their order, then `end`.

    Args:
        readers: by the name of a record what gives the fact in it, or raises `RejectedError`;
            None for a record of no use.
    """

    def __init__(
        self, readers: Mapping[str, Callable[[dict[str, Any]], NamedTuple] | None]
    ) -> None:
        self.last_ts = 0.0
        self._readers = readers

    def batch(self, first: int, lines: list[bytes], counts: Counts) -> list[Fact]:
        """Return the facts in consecutive lines, of which the first has the number ``first``."""
        facts: list[Fact] = []
        for number, line in enumerate(lines, first):
            try:
                fact = self._fact(line)
            except RejectedError as error:
                counts.reject(number, str(error))
                continue
            if fact is None:
                counts.skipped += 1
            else:
                counts.used += 1
                facts.append((number, self.last_ts, fact))
        return facts

    def end(self, _counts: Counts) -> list[Fact]:
        """Return what is known only at the end of the log: nothing."""
        return []

    def _fact(self, line: bytes) -> NamedTuple | None:
        """Return the fact in a line, None if it is of no use.

        Raises:
            RejectedError: it cannot be used.
        """
        record = _record(line)
        ts = record.get("unix_ts")
        if not isinstance(ts, float) or not 0 < ts < _LATEST_UNIX_TS:
            raise RejectedError("no time stamp")
        kind = record.get("record")
        if not isinstance(kind, str) or kind not in self._readers:
            raise RejectedError("a record of a name that is not known")
        reader = self._readers[kind]
        fact = reader(record) if reader else None
        self.last_ts = ts
        return fact


def _record(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"}"):
        raise RejectedError("line is cut")
    try:
        record = jsonio.loads(line)
    except InputError:
        record = None
    if not isinstance(record, dict):
        raise RejectedError("no JSON object")
    return record


def garbled(field: str) -> NoReturn:
    """Reject a line for one of its fields.

    Raises:
        RejectedError: always.
    """
    raise RejectedError(f"{field} is missing or garbled")


def number(record: dict[str, Any], field: str, limit: int = _NUMBERS) -> int:
    """Return a whole number from 0 to before ``limit``."""
    value = record.get(field)
    if type(value) is not int or not 0 <= value < limit:
        garbled(field)
    return value


def port(record: dict[str, Any], field: str) -> int:
    """Return the number of a port."""
    return number(record, field, _PORTS)


def numbers(record: dict[str, Any], fields: tuple[str, ...]) -> dict[str, int]:
    """Return those of some numbers that are there."""
    return {field: number(record, field) for field in fields if field in record}


def text(record: dict[str, Any], field: str, otherwise: str | None = None) -> str:
    """Return a printable text that is not empty, or ``otherwise`` if the field is absent."""
    if otherwise is not None and field not in record:
        return otherwise
    value = record.get(field)
    if not isinstance(value, str) or not value or not value.isprintable():
        garbled(field)
    return value


def moment(record: dict[str, Any], field: str) -> float:
    """Return a time in Unix seconds, 0.0 if the field is absent."""
    value = record.get(field, 0.0)
    if not isinstance(value, float) or not 0 <= value < _LATEST_UNIX_TS:
        garbled(field)
    return value


@functools.lru_cache(4096)
def parsed_address(address: str) -> tuple[int, str]:
    """Return the version of an address and its usual form; 0 and nothing if it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return 0, ""
    return parsed.version, str(parsed)
