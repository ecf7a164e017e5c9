"""The records of a stored document: their order, their links, phases and summaries made anew.

The analysis works on what it parsed; a document that was read from another version, merged or cut
has only its records. Here they become what `join`, `phases` and `summaries` work on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from perfmeasure.analysis import summaries
from perfmeasure.analysis.join import Link, join
from perfmeasure.analysis.phases import phases
from perfmeasure.analysis.torlog import HOP, Stream
from perfmeasure.analysis.transfers import Transfer

Records = Mapping[str, Mapping[str, Any]]


def base_of(name: str) -> str:
    """Return a name without its ``#2``."""
    return name.partition("#")[0]


def unique(names: Iterable[str]) -> Iterator[str]:
    """Yield each name, with ``#2`` and so on when it was there before."""
    counts: dict[str, int] = {}
    for base in names:
        counts[base] = counts.get(base, 0) + 1
        yield base if counts[base] == 1 else f"{base}#{counts[base]}"


def natural(name: str) -> tuple[Any, ...]:
    """Return a key that sorts names as their numbers do: ``7``, ``7#2``, ``10``."""
    base, _, again = name.partition("#")
    number = int(base) if base.isascii() and base.isdigit() else -1
    return (number, base, int(again) if again.isdigit() else 1)


def in_order(records: Records) -> list[tuple[str, Mapping[str, Any]]]:
    """Return (name, record) by start, then by name."""
    return sorted(
        records.items(), key=lambda item: (item[1]["unix_ts_start"], natural(item[0]), item[0])
    )


def is_whole_circuit(circuit: Mapping[str, Any]) -> bool:
    """Whether it was seen from its launch to its end."""
    return _is_whole(circuit, (":LAUNCHED",))


def is_whole_stream(stream: Mapping[str, Any]) -> bool:
    """Whether it was seen from its beginning to its end."""
    return _is_whole(stream, (":NEW", ":NEWRESOLVE"))


def _is_whole(record: Mapping[str, Any], first: tuple[str, ...]) -> bool:
    return bool(record["is_complete"]) and _begins(record, first)


def _begins(record: Mapping[str, Any], first: tuple[str, ...]) -> bool:
    events = record["elapsed_seconds"]
    return bool(events) and events[0][0].endswith(first)


def last_seen(record: Mapping[str, Any]) -> float:
    """Return when a record ended, or its last sign of life, in Unix seconds."""
    if "unix_ts_end" in record:
        return float(record["unix_ts_end"])
    elapsed = record["elapsed_seconds"]
    times = list(_numbers(elapsed.values())) if isinstance(elapsed, dict) else [
        seconds for _, seconds in elapsed
    ]  # fmt: skip
    return float(record["unix_ts_start"]) + max(times, default=0.0)


def _numbers(values: Iterable[Any]) -> Iterator[float]:
    for value in values:
        if isinstance(value, dict):
            yield from _numbers(value.values())
        else:
            yield value


def _transfer_of(name: str, record: Mapping[str, Any]) -> Transfer:
    port = str(record["endpoint_local"]).rpartition(":")[2]
    return Transfer(
        base_of(name),
        dict(record),
        record["unix_ts_start"],
        last_seen(record),
        int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0,
    )


def _stream_of(record: Mapping[str, Any]) -> Stream:
    start = record["unix_ts_start"]
    events = [(name, start + seconds) for name, seconds in record["elapsed_seconds"]]
    return Stream(
        record["stream_id"],
        start,
        last_seen(record),
        started=start if _begins(record, (":NEW", ":NEWRESOLVE")) else None,
        ended=record.get("unix_ts_end"),
        events=events,
        source=record.get("source", ""),
    )


def link(node: dict[str, Any]) -> None:
    """Set ``links`` and ``phases`` of a nickname's transfers from its streams and circuits."""
    tor = node.get("tor", {})
    circuits = tor.get("circuits", {})
    streams = [(name, _stream_of(record)) for name, record in in_order(tor.get("streams", {}))]
    name_of = {stream: name for name, stream in streams}
    records = in_order(node.get("tgen", {}).get("transfers", {}))
    transfers = [_transfer_of(name, record) for name, record in records]
    links = join(transfers, [stream for _, stream in streams])
    for (name, _), transfer, found in zip(records, transfers, links, strict=True):
        record = node["tgen"]["transfers"][name]
        record["links"] = {"status": found.status}
        record["phases"] = phases(transfer, found.stream)
        if found.stream:
            stream = name_of[found.stream]
            record["links"]["stream"] = stream
            circuit = tor["streams"][stream].get("circuit_id")
            if circuit in circuits:
                record["links"]["circuit"] = circuit
                hop = HOP.match(circuits[circuit].get("path", [[""]])[0][0])
                if hop:
                    record["links"]["guard"] = hop[1].upper()
        elif found.candidates:
            record["links"]["candidates"] = [name_of[stream] for stream in found.candidates]


def summarise(node: dict[str, Any]) -> None:
    """Set the summaries of a nickname that follow from its records."""
    if "tgen" in node:
        node["tgen"]["transfers_summary"] = transfers_summary(node["tgen"]["transfers"])
    if "tor" in node:
        node["tor"]["circuits_summary"] = _circuits_summary(node["tor"]["circuits"])
        node["tor"]["streams_summary"] = _streams_summary(node["tor"]["streams"])
    if "kernel" in node:
        node["kernel"]["links"] = _kernel_links(node)


def _kernel_links(node: Mapping[str, Any]) -> dict[str, Any]:
    tor = node.get("tor", {})
    linked: dict[str, list[str | None]] = {
        "circuits": [c.get("guard_connection_status") for c in tor.get("circuits", {}).values()],
        "or_connections": [
            c.get("connection_status") for c in tor.get("or_connections", {}).values()
        ],
        "transfers": [
            transfer["links"].get("connection_status")
            for transfer in node.get("tgen", {}).get("transfers", {}).values()
        ],
    }
    return {
        what: summaries.count_statuses(Link(status) for status in statuses if status)
        for what, statuses in linked.items()
    }


def transfers_summary(records: Records) -> dict[str, Any]:
    """Return what `summaries.transfers_summary` does, of records."""
    ordered = sorted(in_order(records), key=lambda item: last_seen(item[1]))
    summary = summaries.transfers_summary(
        [_transfer_of(name, record) for name, record in ordered],
        [Link(record["links"]["status"]) for _, record in ordered],
    )
    matched = [Link(record["server"]["status"]) for _, record in ordered if "server" in record]
    if matched:
        summary["servers"] = summaries.count_statuses(matched)
    return summary


def _circuits_summary(records: Records) -> dict[str, Any]:
    whole = [circuit for _, circuit in in_order(records) if is_whole_circuit(circuit)]
    return {
        "buildtimes": [
            circuit["buildtime_seconds"]
            for circuit in whole
            if "buildtime_seconds" in circuit and len(circuit.get("path", ())) == 3
        ],
        "lifetimes": [circuit["unix_ts_end"] - circuit["unix_ts_start"] for circuit in whole],
    }


def _streams_summary(records: Records) -> dict[str, Any]:
    lifetimes: dict[str, list[float]] = {}
    for _, stream in in_order(records):
        if is_whole_stream(stream):
            purpose = stream["elapsed_seconds"][-1][0].partition(":")[0]
            lifetimes.setdefault(purpose, []).append(
                stream["unix_ts_end"] - stream["unix_ts_start"]
            )
    return {"lifetimes": lifetimes}
