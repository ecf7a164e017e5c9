"""The relays of the slowest and of the failed transfers, as OnionPerf's outlier figures have them.

A transfer is an outlier if it is slower than a quantile of the successful transfers to the same
kind of server; each relay of its circuit then has one entry for it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from perfmeasure.analysis.statistics import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = Mapping[str, Any]

SERVERS = ("onion", "public")


def slow(rows: Sequence[Row], field: str, percent: float) -> dict[str, list[dict[str, Any]]]:
    """Return, by server, an entry for each relay of each transfer above the percentile.

    ``field`` is a time of `perfmeasure.analysis.rows`. An entry is the row with one relay in
    ``fingerprints``.
    """
    found = {}
    for server in SERVERS:
        known = [
            row
            for row in rows
            if row["server"] == server
            and row["error_code"] is None
            and row["fingerprints"]
            and row[field] is not None
        ]
        if known:
            limit = percentile([row[field] for row in known], percent)
            found[server] = _by_relay([row for row in known if row[field] > limit])
    return found


def failed(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Return, by server, an entry for each relay of each failed transfer."""
    return {
        server: entries
        for server in SERVERS
        if (
            entries := _by_relay(
                [
                    row
                    for row in rows
                    if row["server"] == server and row["error_code"] and row["fingerprints"]
                ]
            )
        )
    }


def common(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Return the entries of the relays that each server has, of all servers that have any."""
    entries = [each for each in found.values() if each]
    if not entries:
        return []
    relays = set.intersection(*({entry["fingerprints"] for entry in each} for each in entries))
    return [entry for each in entries for entry in each if entry["fingerprints"] in relays]


def top(entries: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Return the relays with most entries, at most ``count``, the most frequent first."""
    counts = Counter(entry["fingerprints"] for entry in entries)
    return sorted(counts, key=lambda relay: (-counts[relay], relay))[:count]


def _by_relay(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{**row, "fingerprints": relay} for row in rows for relay in row["fingerprints"]]
