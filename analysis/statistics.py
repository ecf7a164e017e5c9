"""Figures over the transfers of a database: counts, medians and percentiles, for people."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds from the start of a transfer to some event, over the transfers that had it."""

    median_seconds: float
    percentile_95_seconds: float


@dataclasses.dataclass(frozen=True)
class DestinationSummary:
    """The transfers to one kind of destination.

    ``count`` is all of them, ``incomplete`` those that had not ended; ``errors`` counts the failed
    by code; the times are of the successful ones, None if there was none.
    """

    count: int
    successes: int
    incomplete: int
    linked: int
    errors: dict[str, int]
    first_byte: Times | None
    last_byte: Times | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """`DestinationSummary` by kind of destination, ``exit`` or ``onion``; kinds without any miss.

    What goes to an onion service is ``onion``, all else ``exit``.
    """

    destinations: dict[str, DestinationSummary]

    @property
    def successes(self) -> int:
        """How many transfers succeeded, whatever the destination."""
        return sum(summary.successes for summary in self.destinations.values())

    @property
    def count(self) -> int:
        """How many transfers there were, whatever the destination."""
        return sum(summary.count for summary in self.destinations.values())


def destination_kind(transfer: Mapping[str, Any]) -> str:
    """Return ``onion`` or ``exit``, by the host in ``endpoint_remote`` (``HOST:IP:PORT``)."""
    host = str(transfer["endpoint_remote"]).split(":", 1)[0]
    return "onion" if host.endswith(".onion") else "exit"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile of at least one value, with linear interpolation between two."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def describe(database: Mapping[str, Any], since_unix_ts: float = 0.0) -> Summary:
    """Summarise the transfers of a perfmeasure-1.0 database that began since then.

    All nicknames are taken together.
    """
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for node in database["data"].values():
        for transfer in node.get("tgen", {}).get("transfers", {}).values():
            if transfer["unix_ts_start"] >= since_unix_ts:
                by_kind.setdefault(destination_kind(transfer), []).append(transfer)
    return Summary({kind: _describe(by_kind[kind]) for kind in sorted(by_kind)})


def _describe(transfers: Sequence[Mapping[str, Any]]) -> DestinationSummary:
    errors: dict[str, int] = {}
    for transfer in transfers:
        if transfer["is_error"]:
            errors[transfer["error_code"]] = errors.get(transfer["error_code"], 0) + 1
    successful = [transfer for transfer in transfers if transfer["is_success"]]
    return DestinationSummary(
        count=len(transfers),
        successes=len(successful),
        incomplete=sum(not transfer["is_complete"] for transfer in transfers),
        linked=sum(transfer["links"]["status"] == "linked" for transfer in transfers),
        errors=dict(sorted(errors.items())),
        first_byte=_times(successful, "first_byte"),
        last_byte=_times(successful, "last_byte"),
    )


def _times(transfers: Sequence[Mapping[str, Any]], field: str) -> Times | None:
    seconds = [t["elapsed_seconds"][field] for t in transfers if field in t["elapsed_seconds"]]
    return Times(percentile(seconds, 50), percentile(seconds, 95)) if seconds else None
