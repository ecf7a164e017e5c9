"""Puts the facts of one measurement's packets by windows together: sums for each UTC day.

No file holds windows of two days, so what a day's files say is what its packets were.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from perfmeasure.analysis import scan
from perfmeasure.analysis.windowscan import COUNTED, TERMS, ServiceCounted, WindowsCounted
from perfmeasure.units import utc_date

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfmeasure.analysis.scan import FactsOf
    from perfmeasure.analysis.source import Input

MOST_SERVICES = 256
"""How many services a day tells of, those with the most bytes."""

_DIRECTIONS = ("ingress", "egress")


@dataclasses.dataclass(slots=True)
class _Service:
    """Sums of one service in one direction."""

    to_service: Counter[str] = dataclasses.field(default_factory=Counter)
    from_service: Counter[str] = dataclasses.field(default_factory=Counter)
    connects: int = 0

    @property
    def bytes(self) -> int:
        """What passed both ways."""
        return self.to_service["bytes"] + self.from_service["bytes"]

    def add(self, other: _Service | ServiceCounted) -> None:
        """Add what other files say of it."""
        self.to_service.update(other.to_service)
        self.from_service.update(other.from_service)
        self.connects += other.connects

    def record(self) -> dict[str, int]:
        """Return the counts as they stand in the database."""
        return {
            "connects": self.connects,
            **{f"to_service_{name}": self.to_service[name] for name in COUNTED},
            **{f"from_service_{name}": self.from_service[name] for name in COUNTED},
        }


@dataclasses.dataclass(slots=True)
class Day:
    """The packets of one UTC day."""

    window_count: int = 0
    flow_count: int = 0
    lengths: set[float] = dataclasses.field(default_factory=set)
    begins: list[float] = dataclasses.field(default_factory=list)
    ends: list[float] = dataclasses.field(default_factory=list)
    terms: Counter[str] = dataclasses.field(default_factory=Counter)
    services: dict[tuple[str, int, str, int], _Service] = dataclasses.field(default_factory=dict)

    def take(self, fact: object) -> None:
        """Take what one file says."""
        if isinstance(fact, WindowsCounted):
            self.window_count += fact.window_count
            self.flow_count += fact.flow_count
            self.lengths.add(fact.window_seconds)
            self.begins.append(fact.begin_ts)
            self.ends.append(fact.end_ts)
            self.terms.update(fact.terms)
        elif isinstance(fact, ServiceCounted):
            key = fact.direction, fact.protocol, fact.ip, fact.port
            self.services.setdefault(key, _Service()).add(fact)

    def add(self, other: Day) -> None:
        """Add the same day of another folder."""
        self.window_count += other.window_count
        self.flow_count += other.flow_count
        self.lengths |= other.lengths
        self.begins += other.begins
        self.ends += other.ends
        self.terms.update(other.terms)
        for key, service in other.services.items():
            self.services.setdefault(key, _Service()).add(service)

    def record(self, date: str) -> dict[str, Any]:
        """Return the day as it stands in the database."""
        kept = sorted(self.services, key=lambda key: (-self.services[key].bytes, key))
        return {
            "date": date,
            "windows": self.window_count,
            "window_seconds": sorted(self.lengths),
            **({"unix_ts_start": min(self.begins)} if self.begins else {}),
            **({"unix_ts_end": max(self.ends)} if self.ends else {}),
            "flows": self.flow_count,
            **{term: self.terms[term] for term in TERMS},
            **{direction: self._total(direction) for direction in _DIRECTIONS},
            "services": [
                {
                    **dict(zip(("direction", "protocol", "ip", "port"), key, strict=True)),
                    **self.services[key].record(),
                }
                for key in kept[:MOST_SERVICES]
            ],
            "services_left_out": len(kept[MOST_SERVICES:]),
        }

    def _total(self, direction: str) -> dict[str, int]:
        sums = Counter(dict.fromkeys(COUNTED, 0))
        for (one, *_), service in self.services.items():
            if one == direction:
                sums.update(service.to_service)
                sums.update(service.from_service)
        return dict(sums)


class WindowsLog:
    """The packets of one measurement, by UTC day (``YYYY-MM-DD``)."""

    def __init__(self) -> None:
        self.days: dict[str, Day] = {}

    def add(self, other: WindowsLog) -> None:
        """Add those of another folder."""
        for date, day in other.days.items():
            self.days.setdefault(date, Day()).add(day)

    def cut_to(self, begin: float, end: float) -> None:
        """Keep the days that begin from ``begin`` to before ``end`` (Unix seconds)."""
        self.days = {d: day for d, day in self.days.items() if begin <= midnight(d) < end}

    def record(self) -> list[dict[str, Any]]:
        """Return the ``windows_summary`` of the database."""
        return [day.record(date) for date, day in sorted(self.days.items())]


def midnight(date: str) -> float:
    """Return the Unix time at which a UTC day begins."""
    return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


def read_logs(logs: Iterable[Input], facts_of: FactsOf = scan.facts) -> WindowsLog:
    """Read the files of one measurement.

    Raises:
        InputError: a file cannot be read any more.
    """
    found = WindowsLog()
    for log in logs:
        for facts in facts_of(log, is_whole=False):
            for _, _, fact in facts:
                found.days.setdefault(utc_date(log.first_unix_ts), Day()).take(fact)
    return found
