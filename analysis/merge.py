"""Several perfmeasure-1.0 documents as one, whatever the order they are given in.

What is the same in several of them is kept once. Ids that collide are numbered by the start of
what they name, ``ID``, ``ID#2`` …, and every reference follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import perfmeasure
from perfmeasure import jsonio
from perfmeasure.analysis import records, topologymerge

_UNKNOWN = "unknown"

# (input, name there) -> name in the result
_Names = dict[tuple[int, str], str]


@dataclasses.dataclass(slots=True)
class _Record:
    """One record of one input. ``key`` is its content without its name and its references."""

    source: int
    name: str
    record: dict[str, Any]
    key: bytes


def merge(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one document of at least one; a single one is returned as it is."""
    distinct = {jsonio.canonical(document): document for document in documents}
    ordered = [distinct[text] for text in sorted(distinct)]
    if len(ordered) == 1:
        return dict(ordered[0])
    nicknames = sorted({nickname for document in ordered for nickname in document["data"]})
    merged: dict[str, Any] = {
        "type": "perfmeasure",
        "version": "1.0",
        "meta": _meta([document["meta"] for document in ordered]),
        "data": {
            nickname: _node([d["data"][nickname] for d in ordered if nickname in d["data"]])
            for nickname in nicknames
        },
    }
    filters: dict[str, list[Any]] = {}
    for document in ordered:
        for what, entries in document.get("filters", {}).items():
            filters.setdefault(what, []).extend(entries)
    if filters:
        merged["filters"] = {what: _distinct(entries) for what, entries in filters.items()}
    return merged


def _distinct(entries: Iterable[Any]) -> list[Any]:
    """Return what differs, sorted by its canonical form."""
    by_text = {jsonio.canonical(entry): entry for entry in entries}
    return [by_text[text] for text in sorted(by_text)]


def _meta(metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sources: dict[str, Any] = {}
    for meta in metas:
        for nickname, said in meta["sources"].items():
            known = sources.setdefault(nickname, {})
            for what, values in said.items():
                known[what] = _distinct([*known.get(what, ()), *values])
    merged: dict[str, Any] = {
        "tool": "perfmeasure",
        "tool_version": perfmeasure.__version__,
        "inputs": _distinct(entry for meta in metas for entry in meta["inputs"]),
        "sources": sources,
    }
    for field in ("date", "host", "period"):
        values = _distinct(meta.get(field) for meta in metas)
        if len(values) == 1 and values[0] is not None:
            merged[field] = values[0]
    # Without the counts: they are not of the guards that stand here now.
    if tables := _distinct(t for meta in metas for t in meta.get("geoip", {}).get("tables", ())):
        merged["geoip"] = {"tables": tables}
    return merged


def _node(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if len(nodes) == 1:
        return dict(nodes[0])
    merged: dict[str, Any] = {"measurement_ip": _address(nodes)}
    tors = [node.get("tor", {}) for node in nodes]
    connections, connection_names = _named(
        [node.get("kernel", {}).get("connections", {}) for node in nodes],
        without=("peer",),
        referred=[_connections_referred_to(node) for node in nodes],
    )
    circuits, circuit_names = _named(
        [tor.get("circuits", {}) for tor in tors],
        without=("conflux_circuits", "filtered_out", *_of_kernel("guard_connection")),
        referred=[_circuits_referred_to(node) for node in nodes],
    )
    streams, stream_names = _named(
        [tor.get("streams", {}) for tor in tors],
        without=("circuit_id",),
        referred=[_streams_referred_to(node) for node in nodes],
    )
    if any("tor" in node for node in nodes):
        for kept in circuits.values():
            _rename(kept, kept.record, "conflux_circuits", circuit_names)
            _rename(kept, kept.record, "guard_connection", connection_names)
        for kept in streams.values():
            _rename(kept, kept.record, "circuit_id", circuit_names)
        merged["tor"] = _tor(tors, connection_names)
        merged["tor"]["circuits"] = {name: kept.record for name, kept in circuits.items()}
        merged["tor"]["streams"] = {name: kept.record for name, kept in streams.items()}
    if any("tgen" in node for node in nodes):
        transfers, _ = _named(
            [node.get("tgen", {}).get("transfers", {}) for node in nodes],
            without=("transfer_id", "links", "phases", "kernel", "filtered_out"),
        )
        for name, kept in transfers.items():
            kept.record["transfer_id"] = name
            links = kept.record["links"] = dict(kept.record["links"])
            _rename(kept, links, "circuit", circuit_names)
            _rename(kept, links, "stream", stream_names)
            _rename(kept, links, "candidates", stream_names)
            _rename(kept, links, "connection", connection_names)
            if "kernel" in kept.record:
                kept.record["kernel"] = {"guards": _guards(kept, connection_names)}
        merged["tgen"] = {"transfers": {name: kept.record for name, kept in transfers.items()}}
    if any("kernel" in node for node in nodes):
        for kept in connections.values():
            _rename(kept, kept.record, "peer", connection_names)
        merged["kernel"] = _kernel([node.get("kernel", {}) for node in nodes], connections)
    merged |= _topology(nodes)
    records.summarise(merged)
    return merged


def _topology(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    topologies = [node["topology"] for node in nodes if "topology" in node]
    return {"topology": topologymerge.merge(topologies)} if topologies else {}


def _kernel(
    kernels: Sequence[Mapping[str, Any]], connections: Mapping[str, _Record]
) -> dict[str, Any]:
    runs = _distinct(run for kernel in kernels for run in kernel.get("accounting", ()))
    days = _distinct(day for kernel in kernels for day in kernel.get("windows_summary", ()))
    return {
        "accounting": sorted(runs, key=_begin),
        "connections": {name: kept.record for name, kept in connections.items()},
        **({"windows_summary": sorted(days, key=lambda day: str(day["date"]))} if days else {}),
    }


def _of_kernel(field: str) -> tuple[str, str]:
    """Return the fields of a record that link it to a connection of the kernel."""
    return field, f"{field}_status"


def _guards(kept: _Record, names: _Names) -> list[dict[str, Any]]:
    """Return the guards of a transfer, renamed."""
    guards = [dict(guard) for guard in kept.record["kernel"]["guards"]]
    for guard in guards:
        _rename(kept, guard, "connection", names)
    return guards


def _address(nodes: Sequence[Mapping[str, Any]]) -> str:
    """Return the known address; of several, that of the latest transfer."""
    latest: dict[str, float] = {}
    for node in nodes:
        starts = [t["unix_ts_start"] for t in node.get("tgen", {}).get("transfers", {}).values()]
        address = node["measurement_ip"]
        latest[address] = max(latest.get(address, 0.0), max(starts, default=0.0))
    known = [(start, address) for address, start in latest.items() if address != _UNKNOWN]
    return max(known)[1] if known else _UNKNOWN


def _circuits_referred_to(node: Mapping[str, Any]) -> set[str]:
    tor = node.get("tor", {})
    found = {stream.get("circuit_id") for stream in tor.get("streams", {}).values()}
    for circuit in tor.get("circuits", {}).values():
        found.update(circuit.get("conflux_circuits", ()))
    for transfer in node.get("tgen", {}).get("transfers", {}).values():
        found.add(transfer["links"].get("circuit"))
    return {name for name in found if name is not None}


def _streams_referred_to(node: Mapping[str, Any]) -> set[str]:
    found = set()
    for transfer in node.get("tgen", {}).get("transfers", {}).values():
        links = transfer["links"]
        found.update(links.get("candidates", ()))
        found.update([links["stream"]] if "stream" in links else [])
    return found


def _connections_referred_to(node: Mapping[str, Any]) -> set[str]:
    tor = node.get("tor", {})
    found = {circuit.get("guard_connection") for circuit in tor.get("circuits", {}).values()}
    found |= {entry.get("connection") for entry in tor.get("or_connections", {}).values()}
    found |= {c.get("peer") for c in node.get("kernel", {}).get("connections", {}).values()}
    for transfer in node.get("tgen", {}).get("transfers", {}).values():
        found.add(transfer["links"].get("connection"))
        found |= {guard["connection"] for guard in transfer.get("kernel", {}).get("guards", ())}
    return {name for name in found if name is not None}


def _named(
    inputs: Sequence[records.Records],
    *,
    without: tuple[str, ...],
    referred: Sequence[set[str]] = (),
) -> tuple[dict[str, _Record], _Names]:
    """Give every distinct record of the inputs a name.

    Args:
        inputs: the records of each input, by the name that they have there.
        without: fields that do not tell one record from another.
        referred: names to which each input refers, though it may not hold what they name.

    Returns:
        The records by name, and the new name of each old one.
    """
    by_base: dict[str, list[_Record]] = {}
    for source, input_records in enumerate(inputs):
        for name, record in input_records.items():
            told = {field: value for field, value in record.items() if field not in without}
            found = _Record(source, name, dict(record), jsonio.canonical(told))
            by_base.setdefault(records.base_of(name), []).append(found)
    kept: dict[str, _Record] = {}
    names: _Names = {}
    counts: dict[str, int] = {}
    for base, found_of_base in by_base.items():
        found_of_base.sort(key=lambda r: (r.record["unix_ts_start"], r.key, -_links(r.record)))
        before: dict[bytes, str] = {}
        for found in found_of_base:
            if found.key not in before:
                before[found.key] = _next(base, counts)
                kept[before[found.key]] = found
            name = names[found.source, found.name] = before[found.key]
            if "filtered_out" in found.record:
                kept[name].record["filtered_out"] = True
    # What is only referred to must not be taken for another of that name.
    for source, wanted in enumerate(referred):
        for name in sorted(wanted, key=records.natural):
            if (source, name) not in names:
                names[source, name] = _next(records.base_of(name), counts)
    return kept, names


def _links(record: Mapping[str, Any]) -> int:
    """Return how much a record refers to: of two that are the same, the one that knows more."""
    fields = ("circuit_id", "connection", "guard_connection", "kernel", "peer")
    return len(record.get("links", ())) + sum(field in record for field in fields)


def _next(base: str, counts: dict[str, int]) -> str:
    counts[base] = counts.get(base, 0) + 1
    return base if counts[base] == 1 else f"{base}#{counts[base]}"


def _rename(kept: _Record, record: dict[str, Any], field: str, names: _Names) -> None:
    value = record.get(field)
    if isinstance(value, list):
        record[field] = [names[kept.source, name] for name in value]
    elif value is not None:
        record[field] = names[kept.source, value]


def _tor(tors: Sequence[Mapping[str, Any]], connection_names: _Names) -> dict[str, Any]:
    """Return what streams and circuits do not refer to."""
    merged: dict[str, Any] = {}
    bandwidths = [tor["bandwidth_summary"] for tor in tors if "bandwidth_summary" in tor]
    if bandwidths:
        merged["bandwidth_summary"] = {
            way: _seconds([bandwidth[way] for bandwidth in bandwidths])
            for way in ("bytes_read", "bytes_written")
        }
    for field, first in (("gaps", _begin), ("guards", _begin_of_guard)):
        if any(field in tor for tor in tors):
            entries = _distinct(entry for tor in tors for entry in tor.get(field, ()))
            merged[field] = sorted(entries, key=first)
    if any("or_connections" in tor for tor in tors):
        connections, _ = _named(
            [tor.get("or_connections", {}) for tor in tors], without=_of_kernel("connection")
        )
        for kept in connections.values():
            _rename(kept, kept.record, "connection", connection_names)
        merged["or_connections"] = {name: kept.record for name, kept in connections.items()}
    return merged


def _seconds(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add by second; the same number again is the same count, seen twice."""
    values: dict[str, set[int]] = {}
    for counts in counted:
        for second, count in counts.items():
            values.setdefault(second, set()).add(count)
    return {second: sum(counts) for second, counts in values.items()}


def _begin(record: Mapping[str, Any]) -> float:
    return float(record["unix_ts_start"])


def _begin_of_guard(guard: Mapping[str, Any]) -> float:
    times = [value for name, value in guard.items() if name.endswith("_ts")]
    return float(min(times, default=0.0))
