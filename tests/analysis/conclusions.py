"""Holds what a database concludes from its own records against these records: sums and summaries.

The records themselves are held against the lines by `oracle`. Written from docs/formats.md.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Node = dict[str, Any]
_NEAR_SECONDS = 2e-6


def faults(node: Node) -> Iterator[str]:
    """Yield each conclusion of a nickname's data that does not follow from its records."""
    tgen, tor = node.get("tgen", {}), node.get("tor", {})
    transfers = list(tgen.get("transfers", {}).values())
    for transfer in transfers:
        phases = transfer.get("phases")
        if phases and not _are_near(
            [sum(phases.values())], [transfer["unix_ts_end"] - transfer["unix_ts_start"]]
        ):
            yield f"the phases of {transfer['transfer_id']}"
    if tgen:
        yield from _transfers(transfers, tgen["transfers_summary"])
    if tor:
        yield from _circuits(tor["circuits"].values(), tor["circuits_summary"])
        yield from _streams(tor["streams"].values(), tor["streams_summary"])


def _are_near(said: Iterable[float], wanted: Iterable[float]) -> bool:
    pairs = zip(sorted(said), sorted(wanted), strict=True)
    return all(abs(one - other) < _NEAR_SECONDS for one, other in pairs)


def _transfers(transfers: list[Node], summary: Node) -> Iterator[str]:
    wanted: dict[str, dict[tuple[str, str], list[float]]] = {
        name: collections.defaultdict(list)
        for name in ("time_to_first_byte", "time_to_last_byte", "errors")
    }
    for transfer in transfers:
        second = str(int(transfer.get("unix_ts_end", 0)))
        size, elapsed = transfer["filesize_bytes"], transfer["elapsed_seconds"]
        if transfer["is_error"]:
            wanted["errors"][transfer["error_code"], second].append(size)
        for step in ("first_byte", "last_byte") if transfer["is_success"] else ():
            if step in elapsed:
                wanted[f"time_to_{step}"][str(size), second].append(
                    elapsed[step] - elapsed["command"]
                )
    for name, by_key in wanted.items():
        said = {
            (key, second): values
            for key, by_second in summary[name].items()
            for second, values in by_second.items()
        }
        if said.keys() != by_key.keys() or not all(
            len(said[key]) == len(by_key[key]) and _are_near(said[key], by_key[key]) for key in said
        ):
            yield name
    for name, field in (("links", "links"), ("servers", "server")):
        counts = collections.Counter(t[field]["status"] for t in transfers if field in t)
        if any(counts[status] != count for status, count in summary.get(name, {}).items()):
            yield f"the counts of {name}"


def _circuits(circuits: Iterable[Node], summary: Node) -> Iterator[str]:
    whole = [
        circuit
        for circuit in circuits
        if circuit["is_complete"]
        and any(name.endswith(":LAUNCHED") for name, _ in circuit["elapsed_seconds"])
    ]
    lifetimes = [circuit["unix_ts_end"] - circuit["unix_ts_start"] for circuit in whole]
    build_times = [
        circuit["buildtime_seconds"]
        for circuit in whole
        if "buildtime_seconds" in circuit and len(circuit["path"]) == 3
    ]
    for name, wanted in (("lifetimes", lifetimes), ("buildtimes", build_times)):
        if len(summary[name]) != len(wanted) or not _are_near(summary[name], wanted):
            yield f"{name} of circuits"


def _streams(streams: Iterable[Node], summary: Node) -> Iterator[str]:
    wanted: dict[str, list[float]] = collections.defaultdict(list)
    for stream in streams:
        names = [name for name, _ in stream["elapsed_seconds"]]
        if stream["is_complete"] and any(name.endswith((":NEW", ":NEWRESOLVE")) for name in names):
            purpose = names[-1].partition(":")[0]
            wanted[purpose].append(stream["unix_ts_end"] - stream["unix_ts_start"])
    said = summary["lifetimes"]
    if said.keys() != wanted.keys() or not all(
        len(said[key]) == len(wanted[key]) and _are_near(said[key], wanted[key]) for key in said
    ):
        yield "lifetimes of streams"
