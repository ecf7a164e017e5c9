"""Some days cut out of a perfmeasure-1.0 document, exactly: what ended on them, whole.

Names stay as they are, so the days of one database, cut apart and merged, are that database.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from perfmeasure.analysis import records
from perfmeasure.analysis.windows import midnight
from perfmeasure.errors import UsageError

_DAY_SECONDS = 86400


def span_of(first: str | None, last: str | None) -> tuple[float, float]:
    """Return the Unix seconds from the begin of a UTC day to the end of another, both included.

    Raises:
        UsageError: one is not ``YYYY-MM-DD``, or they are the wrong way round.
    """
    begin = _day(first, "--from") if first else 0.0
    end = _day(last, "--to") + _DAY_SECONDS if last else float("inf")
    if begin >= end:
        raise UsageError("--to", f"{last} is before {first}", "a day on or after --from")
    return begin, end


def _day(text: str, where: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise UsageError(where, f"{text!r} is not a day", "YYYY-MM-DD") from error


def cut(document: Mapping[str, Any], first: str | None, last: str | None) -> dict[str, Any]:
    """Return the document of the days from ``first`` to ``last``; None leaves that side open.

    What has not ended counts as of its last sign of life. Streams and circuits to which a kept
    transfer or stream refers are kept with it.

    Raises:
        UsageError: a day is none, or they are the wrong way round.
    """
    begin, end = span_of(first, last)
    days = {"from": first, "to": last}
    cut_out = dict(document)
    period = {name: day for name, day in days.items() if day}
    cut_out["meta"] = {**document["meta"], "period": period}
    cut_out["data"] = {name: _node(node, begin, end) for name, node in document["data"].items()}
    return cut_out


def _node(node: Mapping[str, Any], begin: float, end: float) -> dict[str, Any]:
    def is_within(record: Mapping[str, Any]) -> bool:
        return begin <= records.last_seen(record) < end

    cut_out: dict[str, Any] = {"measurement_ip": node["measurement_ip"]}
    streams: set[str] = set()
    circuits: set[str] = set()
    connections: set[str] = set()  # of the kernel
    if "tgen" in node:
        transfers = {n: t for n, t in node["tgen"]["transfers"].items() if is_within(t)}
        cut_out["tgen"] = {"transfers": transfers}
        for transfer in transfers.values():
            links = transfer["links"]
            streams.update(links.get("candidates", ()), [links.get("stream", "")])
            circuits.add(links.get("circuit", ""))
            connections.add(links.get("connection", ""))
            connections.update(
                g["connection"] for g in transfer.get("kernel", {}).get("guards", ())
            )
    if "tor" in node:
        tor = node["tor"]
        kept = {n: s for n, s in tor["streams"].items() if is_within(s) or n in streams}
        circuits.update(stream.get("circuit_id", "") for stream in kept.values())
        cut_out["tor"] = _rest_of_tor(tor, begin, end)
        cut_out["tor"]["streams"] = kept
        cut_out["tor"]["circuits"] = {
            n: c for n, c in tor["circuits"].items() if is_within(c) or n in circuits
        }
        connections.update(
            c.get("guard_connection", "") for c in cut_out["tor"]["circuits"].values()
        )
        connections.update(
            c.get("connection", "") for c in cut_out["tor"]["or_connections"].values()
        )
    if "kernel" in node:
        cut_out["kernel"] = _kernel(node["kernel"], begin, end, connections)
    records.summarise(cut_out)
    return cut_out


def _kernel(
    kernel: Mapping[str, Any], begin: float, end: float, linked: set[str]
) -> dict[str, Any]:
    """Return what ended in the days or is linked to what is kept, and the other ends of it."""
    kept = {
        name
        for name, connection in kernel["connections"].items()
        if begin <= connection.get("unix_ts_end", connection.get("unix_ts_last")) < end
        or name in linked
    }
    kept |= {kernel["connections"][name].get("peer", name) for name in kept}
    cut_out = {
        "accounting": [
            run
            for run in kernel["accounting"]
            if run["unix_ts_start"] < end and run["unix_ts_end"] >= begin
        ],
        "connections": {n: c for n, c in kernel["connections"].items() if n in kept},
    }
    if "windows_summary" in kernel:
        cut_out["windows_summary"] = [
            day for day in kernel["windows_summary"] if begin <= midnight(day["date"]) < end
        ]
    return cut_out


def _rest_of_tor(tor: Mapping[str, Any], begin: float, end: float) -> dict[str, Any]:
    """Return what belongs to a time, not to a moment: kept if it overlaps the days."""
    rest: dict[str, Any] = {}
    if "bandwidth_summary" in tor:
        rest["bandwidth_summary"] = {
            way: {second: n for second, n in counts.items() if begin <= int(second) < end}
            for way, counts in tor["bandwidth_summary"].items()
        }
    if "gaps" in tor:
        rest["gaps"] = [
            gap
            for gap in tor["gaps"]
            if gap["unix_ts_start"] < end and gap.get("unix_ts_end", end) >= begin
        ]
    if "guards" in tor:
        rest["guards"] = [
            guard
            for guard in tor["guards"]
            if min((v for n, v in guard.items() if n.endswith("_ts")), default=0.0) < end
            and guard.get("dropped_ts", end) >= begin
        ]
    if "or_connections" in tor:
        rest["or_connections"] = {
            name: connection
            for name, connection in tor["or_connections"].items()
            if connection["unix_ts_start"] < end and connection.get("unix_ts_end", end) >= begin
        }
    return rest
