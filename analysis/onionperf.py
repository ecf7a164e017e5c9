"""Writes a perfmeasure-1.0 document as a database of OnionPerf, for the field's other programs.

Versions 1.0, 2.0, 3.0, 3.1 and 4.0 hold what OnionPerf itself would have kept: transfers and
streams of tor with an outcome, circuits that were seen being launched and ending. From 3.0 on, the
numbers of the generator are text, as in its log. What a version cannot hold is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from perfmeasure.analysis import filters
from perfmeasure.analysis.records import (
    in_order,
    is_whole_circuit,
    is_whole_stream,
    transfers_summary,
)

VERSIONS = ("1.0", "2.0", "3.0", "3.1", "4.0")
"""What can be written, and read."""

SECTIONS = ("byte_info", "stream_info", "time_info", "transport_info")
"""The parts of a generator's line, which versions from 3.0 on keep as text."""
CIRCUIT_FIELDS = (
    "build_quantile", "build_timeout", "buildtime_seconds", "circuit_id", "elapsed_seconds",
    "failure_reason_local", "failure_reason_remote", "path", "unix_ts_end", "unix_ts_start",
)  # fmt: skip
"""The fields of a circuit in every version; 3.1 and 4.0 have more."""
STREAM_FIELDS = (
    "circuit_id", "elapsed_seconds", "failure_reason_local", "failure_reason_remote", "source",
    "stream_id", "target", "unix_ts_end", "unix_ts_start",
)  # fmt: skip
"""The fields of a stream of tor in every version."""
TRANSFER_FIELDS = (
    "elapsed_seconds", "endpoint_local", "endpoint_proxy", "endpoint_remote", "error_code",
    "filesize_bytes", "hostname_local", "hostname_remote", "is_commander", "is_complete",
    "is_error", "is_success", "method", "payload_bytes_status", "total_bytes_read",
    "total_bytes_write", "transfer_id", "unix_ts_end", "unix_ts_start",
)  # fmt: skip
"""The fields of a transfer in 1.0 and 2.0."""
SUMMARIES = ("bandwidth_summary", "circuits_summary", "streams_summary")
"""The summaries of tor in 1.0 and 2.0."""
TRANSFERS_SUMMARY = ("time_to_first_byte", "time_to_last_byte", "errors")
"""The summary of transfers in 1.0 and 2.0."""
_NO_TOR: dict[str, Any] = {
    "circuits_summary": {"buildtimes": [], "lifetimes": []},
    "streams_summary": {"lifetimes": {}},
}
_ELAPSED_OF_OTHER_DIRECTION = (
    "payload_bytes_recv", "payload_bytes_send", "payload_progress_recv", "payload_progress_send",
)  # fmt: skip
_MARKED = ("3.1", "4.0")


def more_circuit_fields(version: str) -> tuple[str, ...]:
    """Return the fields of a circuit that only this version has."""
    more = ("filtered_out",) if version in _MARKED else ()
    return (*more, "cbt_set", "current_guards") if version == "3.1" else more


def to_3_1(database: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OnionPerf database, version 3.1, of a perfmeasure-1.0 one."""
    return written(database, "3.1", Counter())


def written(database: Mapping[str, Any], version: str, losses: Counter[str]) -> dict[str, Any]:
    """Return an OnionPerf database of a perfmeasure-1.0 one.

    Args:
        database: the document; it is not changed.
        version: one of `VERSIONS`.
        losses: counts what the version cannot hold, by what it is.
    """
    data = {}
    for name, node in database["data"].items():
        if connections := node.get("kernel", {}).get("connections"):
            losses["connections of the kernel"] += len(connections)
        kept = _kept(database, node, version, losses)
        if version < "3":
            data[name] = _old_node(node, kept, version, losses)
        else:
            data[name] = _node(node, kept, version, losses)
    document: dict[str, Any] = {
        "type": "onionperf",
        # The first version was a JSON number, all later ones are text.
        "version": 1.0 if version == "1.0" else version,
        "data": data,
    }
    if circuit_filters := database.get("filters", {}).get("tor/circuits"):
        if version in _MARKED:
            document["filters"] = {
                "tor/circuits": [
                    {key: entry[key] for key in ("name", "filepath") if key in entry}
                    for entry in circuit_filters
                ]
            }
        else:
            losses["filters of circuits"] += len(circuit_filters)
    return document


def _kept(
    database: Mapping[str, Any], node: Mapping[str, Any], version: str, losses: Counter[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the transfers with an outcome that no filter took out, in order of their start.

    Where circuits are marked, that is left to the marks.
    """
    kept = {}
    for name, transfer in in_order(node.get("tgen", {}).get("transfers", {})):
        is_out = transfer.get("filtered_out", False)
        if version not in _MARKED:
            is_out = not filters.is_kept(database, node, transfer)
        if not transfer["is_complete"]:
            losses["transfers that had not ended"] += 1
        elif is_out:
            losses["transfers that were filtered out"] += 1
        else:
            kept[name] = transfer
    return kept


def _node(
    node: Mapping[str, Any],
    kept: Mapping[str, Mapping[str, Any]],
    version: str,
    losses: Counter[str],
) -> dict[str, Any]:
    streams: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for transfer in kept.values():
        if "time_info" not in transfer:
            losses["transfers without the generator's own line"] += 1
            continue
        transport, stream = transfer["transport_info"], transfer["stream_info"]
        name = ":".join((stream["id"], transport["fd"], transport["local"], transport["remote"]))
        counts[name] += 1
        if counts[name] > 1:  # an id that came again never hides the first
            name += f"#{counts[name]}"
        streams[name] = _tgen_stream(name, transfer)
    tor = _tor(node.get("tor", {}), version, losses)
    if version == "3.1" and ("guards" in node.get("tor", {}) or "tor" not in node):
        tor["guards"] = node.get("tor", {}).get("guards", [])
    # Both parts are always there: OnionPerf's own schema wants them.
    return {
        "measurement_ip": node["measurement_ip"],
        "tgen": {"streams": streams},
        "tor": tor,
    }


def _old_node(
    node: Mapping[str, Any],
    kept: Mapping[str, Mapping[str, Any]],
    version: str,
    losses: Counter[str],
) -> dict[str, Any]:
    written_node: dict[str, Any] = {"measurement_ip": node["measurement_ip"]}
    if "tgen" in node:
        ended = [t for t in node["tgen"]["transfers"].values() if t["is_complete"]]
        summary = node["tgen"]["transfers_summary"]
        if len(kept) < len(ended):
            summary = transfers_summary(kept)
        written_node["tgen"] = {
            "transfers": {name: _old_transfer(transfer) for name, transfer in kept.items()},
            "transfers_summary": {
                field: summary[field] for field in TRANSFERS_SUMMARY if field in summary
            },
        }
    tor = node.get("tor", _NO_TOR)  # visualize wants one
    written_node["tor"] = _tor(tor, version, losses)
    written_node["tor"].update({field: tor[field] for field in SUMMARIES if field in tor})
    return written_node


def _old_transfer(transfer: Mapping[str, Any]) -> dict[str, Any]:
    record = {field: transfer[field] for field in TRANSFER_FIELDS}
    record["elapsed_seconds"] = {
        name: value
        for name, value in transfer["elapsed_seconds"].items()
        if name not in _ELAPSED_OF_OTHER_DIRECTION
    }
    return record


def _tgen_stream(name: str, transfer: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {section: transfer[section] for section in SECTIONS}
    for field in ("is_complete", "is_error", "is_success", "unix_ts_end", "unix_ts_start"):
        record[field] = transfer[field]
    record["stream_id"] = name
    if not transfer["is_error"]:
        elapsed = transfer["elapsed_seconds"]
        main = "send" if transfer["method"] == "PUT" else "recv"
        maps = {
            f"{field}_{direction}": elapsed.get(
                field if direction == main else f"{field}_{direction}"
            )
            for field in ("payload_bytes", "payload_progress")
            for direction in ("recv", "send")
        }
        if known := {field: times for field, times in maps.items() if times is not None}:
            record["elapsed_seconds"] = known
    return record


def _tor(tor: Mapping[str, Any], version: str, losses: Counter[str]) -> dict[str, Any]:
    circuits = {}
    for name, circuit in tor.get("circuits", {}).items():
        if not is_whole_circuit(circuit):
            losses["circuits not seen from launch to end"] += 1
        elif any(len(hop) == 1 for hop in circuit.get("path", ())):
            # Readers of these versions want a time with each relay, and a path for each stream.
            losses["circuits with a relay whose time was not seen"] += 1
        else:
            circuits[name] = _circuit(circuit, version)
    streams = {}
    for name, stream in tor.get("streams", {}).items():
        if is_whole_stream(stream):
            streams[name] = {field: stream[field] for field in STREAM_FIELDS if field in stream}
            streams[name].setdefault("circuit_id", None)
        else:
            losses["streams not seen from beginning to end"] += 1
    return {"circuits": circuits, "streams": streams}


def _circuit(circuit: Mapping[str, Any], version: str) -> dict[str, Any]:
    fields = (*CIRCUIT_FIELDS, *more_circuit_fields(version))
    record = {field: circuit[field] for field in fields if field in circuit}
    if "path" in record:
        # A relay of which tor told no nickname: OnionPerf writes what its language calls nothing.
        record["path"] = [[h if "~" in h else f"{h}~None", ts] for h, ts in record["path"]]
    if version in _MARKED:
        record["filtered_out"] = circuit.get("filtered_out", False)
    return record
