"""A day of a database as figures: small enough to be drawn by a page that never sees the database.

Of each day there are points (at most a thousand a curve, extremes kept), a summary that can be
added to those of other days, and what there is to see of each transfer.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfmeasure.analysis import filters, records, rows
from perfmeasure.analysis.statistics import destination_kind, percentile
from perfmeasure.analysis.thinning import histogram, significant, thin
from perfmeasure.analysis.torlog import HOP
from perfmeasure.analysis.transferdetail import detail, outcome

METRICS = {
    "ttfb": "time_to_first_byte",
    "ttlb": "time_to_last_byte",
    "mbps": "mbps",
}
"""What is drawn of a transfer, and the column of `rows` that has it."""
_PERCENTS = (0, 5, 50, 95, 100)
_GUARDS_SHOWN = 30

Series = dict[tuple[str, int], list[dict[str, Any]]]


@dataclass(frozen=True)
class DayFigures:
    """What the page can show of one UTC day.

    Args:
        points: by nickname ``series`` (the curves of each destination and size), ``errors`` (their
            number by code and hour), ``circuits`` (build times) and ``guards``.
        summary: by nickname the counts, percentiles and histograms of each series.
        transfers: of each transfer, in the order of their starts, what `detail` says.
    """

    points: dict[str, Any]
    summary: dict[str, Any]
    transfers: list[dict[str, Any]]


def day_figures(document: Mapping[str, Any], date: str) -> DayFigures:
    """Return the figures of one UTC day of a perfmeasure-1.0 document.

    A transfer is of the day on which it ended, or showed its last sign of life. What a filter took
    out is left out.
    """
    begin = dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC).timestamp()
    span = (begin, begin + 86400)
    found = sorted(
        _transfers(document, span), key=lambda item: (item[2]["unix_ts_start"], item[0], item[1])
    )
    places = {(nickname, name): place for place, (nickname, name, _) in enumerate(found)}
    points, summary = {}, {}
    by_row = _rows_by_nickname(document, places)
    for nickname, node in sorted(document["data"].items()):
        transfers = [transfer for of, _, transfer in found if of == nickname]
        series = _series(by_row[nickname])
        built = _circuits(node.get("tor", {}), span)
        guards = _guards(node.get("tor", {}), transfers)
        if not (transfers or built):
            continue
        points[nickname] = {
            "series": [_points(key, series[key]) for key in sorted(series)],
            "errors": _errors_by_hour(by_row[nickname], begin),
            "circuits": _curve([ts for ts, _ in built], [seconds for _, seconds in built]),
            "guards": guards,
        }
        summary[nickname] = {
            "series": [_summary(key, series.get(key, []), transfers) for key in _keys(transfers)],
            "circuits": _distribution([seconds for _, seconds in built]),
            "guards": [[guard["fingerprint"], guard["nickname"], guard["transfers"]]
                       for guard in guards],
        }  # fmt: skip
    details = [
        detail(name, nickname, transfer, document["data"][nickname])
        for nickname, name, transfer in found
    ]
    return DayFigures(points, summary, details)


def _transfers(
    document: Mapping[str, Any], span: tuple[float, float]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for nickname, node in document["data"].items():
        for name, transfer in node.get("tgen", {}).get("transfers", {}).items():
            is_of_day = span[0] <= records.last_seen(transfer) < span[1]
            if is_of_day and filters.is_kept(document, node, transfer):
                yield nickname, name, transfer


def _rows_by_nickname(
    document: Mapping[str, Any], places: Mapping[tuple[str, str], int]
) -> defaultdict[str, list[dict[str, Any]]]:
    by_nickname = defaultdict(list)
    for row in rows.rows(document, Counter()):
        place = places.get((row["label"], row["id"]))
        if place is not None:
            by_nickname[row["label"]].append({**row, "place": place})
    return by_nickname


def _series(found: Sequence[dict[str, Any]]) -> Series:
    series: Series = {}
    for row in sorted(found, key=lambda row: row["place"]):
        destination = "onion" if row["server"] == "onion" else "exit"
        series.setdefault((destination, row["filesize_bytes"]), []).append(row)
    return series


def _keys(transfers: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    return sorted({(destination_kind(t), t["filesize_bytes"]) for t in transfers})


def _points(key: tuple[str, int], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    curves: dict[str, Any] = {"destination": key[0], "size_bytes": key[1]}
    for metric, column in METRICS.items():
        told = _successes(found, column)
        curves[metric] = _curve(
            [row["start"] for row in told],
            [row[column] for row in told],
            [row["place"] for row in told],
        )
    return curves


def _successes(found: Sequence[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return [row for row in found if row["error_code"] is None and row[column] is not None]


def _curve(
    times: Sequence[float], values: Sequence[float], places: Sequence[int] | None = None
) -> dict[str, Any]:
    kept = thin(values)
    curve: dict[str, Any] = {
        "unix_ts": [round(times[at], 3) for at in kept],
        "values": [significant(values[at], 5) for at in kept],
        "count": len(values),
    }
    if places is not None:
        curve["transfers"] = [places[at] for at in kept]
    return curve


def _errors_by_hour(found: Sequence[dict[str, Any]], begin: float) -> dict[str, list[int]]:
    hours: dict[str, list[int]] = {}
    for row in found:
        if row["error_code"] is not None:
            hour = min(max(int((row["start"] - begin) // 3600), 0), 23)
            hours.setdefault(row["error_code"], [0] * 24)[hour] += 1
    return hours


def _circuits(tor: Mapping[str, Any], span: tuple[float, float]) -> list[tuple[float, float]]:
    """Return (when, seconds) of the circuits of three hops that were built."""
    return sorted(
        (circuit["unix_ts_start"], circuit["buildtime_seconds"])
        for circuit in tor.get("circuits", {}).values()
        if "buildtime_seconds" in circuit
        and len(circuit.get("path", [])) == 3
        and span[0] <= records.last_seen(circuit) < span[1]
    )


def _guards(tor: Mapping[str, Any], transfers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the relays that carried transfers as the first of their circuit, most used first."""
    names = {guard["fingerprint"]: guard for guard in tor.get("guards", [])}
    used: Counter[str] = Counter()
    nicknames: dict[str, str] = {}
    for transfer in transfers:
        circuit = tor.get("circuits", {}).get(transfer["links"].get("circuit"), {})
        for hop, *_ in circuit.get("path", [])[:1]:
            if match := HOP.match(hop):
                used[match[1].upper()] += 1
                nicknames[match[1].upper()] = hop.partition("~")[2]
    guards = []
    for fingerprint, count in used.most_common(_GUARDS_SHOWN):
        known = names.get(fingerprint, {})
        guard = {
            "fingerprint": fingerprint,
            "nickname": known.get("nickname", nicknames[fingerprint]),
            "transfers": count,
        }
        wanted = ("country", "new_ts", "up_ts", "down_ts", "dropped_ts")
        guards.append(guard | {key: known[key] for key in wanted if key in known})
    return guards


def _summary(
    key: tuple[str, int],
    found: Sequence[dict[str, Any]],
    transfers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    own = [t for t in transfers if (destination_kind(t), t["filesize_bytes"]) == key]
    outcomes = Counter(map(outcome, own))
    errors = Counter(row["error_code"] for row in found if row["error_code"] is not None)
    summary: dict[str, Any] = {
        "destination": key[0],
        "size_bytes": key[1],
        "success": outcomes["success"],
        "incomplete": outcomes["incomplete"],
        "errors": dict(errors),
    }
    for metric, column in METRICS.items():
        summary[metric] = _distribution([row[column] for row in _successes(found, column)])
    return summary


def _distribution(values: Sequence[float]) -> dict[str, Any]:
    """Return the percentiles 0, 5, 50, 95 and 100, and the histogram; nothing of nothing."""
    if not values:
        return {}
    percentiles = [significant(percentile(values, percent)) for percent in _PERCENTS]
    return {"percentiles": percentiles, "histogram": histogram(values)}
