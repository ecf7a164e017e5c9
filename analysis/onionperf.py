"""Writes a perfmeasure-1.0 document as a database of OnionPerf, for the field's other programs.

Version 3.1 (OnionPerf 0.9 to 1.1) holds what OnionPerf itself would have kept: streams of the
generator and of tor with an outcome, circuits that were seen being launched and ending. Numbers
of the generator are text there, as in its log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECTIONS = ("byte_info", "stream_info", "time_info", "transport_info")
_CIRCUIT_FIELDS = (
    "build_quantile", "build_timeout", "buildtime_seconds", "cbt_set", "circuit_id",
    "current_guards", "elapsed_seconds", "failure_reason_local", "failure_reason_remote",
    "path", "unix_ts_end", "unix_ts_start",
)  # fmt: skip
_STREAM_FIELDS = (
    "elapsed_seconds", "failure_reason_local", "failure_reason_remote", "source", "stream_id",
    "target", "unix_ts_end", "unix_ts_start",
)  # fmt: skip


def to_3_1(database: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OnionPerf database, version 3.1, of a perfmeasure-1.0 one."""
    return {
        "type": "onionperf",
        "version": "3.1",
        "data": {nickname: _node(node) for nickname, node in database["data"].items()},
    }


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    transfers = node.get("tgen", {}).get("transfers", {})
    tor = node.get("tor", {})
    # Both parts are always there: OnionPerf's own schema wants them.
    return {
        "measurement_ip": node["measurement_ip"],
        "tgen": {
            "streams": dict(
                _tgen_stream(transfer)
                for transfer in transfers.values()
                if transfer["is_complete"] and "time_info" in transfer
            )
        },
        "tor": {
            "circuits": {
                name: _circuit(circuit)
                for name, circuit in tor.get("circuits", {}).items()
                if _is_whole(circuit, (":LAUNCHED",))
            },
            "guards": tor.get("guards", []),
            "streams": {
                name: _stream(stream)
                for name, stream in tor.get("streams", {}).items()
                if _is_whole(stream, (":NEW", ":NEWRESOLVE"))
            },
        },
    }


def _is_whole(record: Mapping[str, Any], first: tuple[str, ...]) -> bool:
    events = record["elapsed_seconds"]
    return bool(record["is_complete"] and events and events[0][0].endswith(first))


def _tgen_stream(transfer: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    transport, stream = transfer["transport_info"], transfer["stream_info"]
    name = ":".join((stream["id"], transport["fd"], transport["local"], transport["remote"]))
    if "#" in transfer["transfer_id"]:  # an id that came again never hides the first
        name += "#" + transfer["transfer_id"].rpartition("#")[2]
    record: dict[str, Any] = {section: transfer[section] for section in _SECTIONS}
    for field in ("is_complete", "is_error", "is_success", "unix_ts_end", "unix_ts_start"):
        record[field] = transfer[field]
    record["stream_id"] = name
    if not transfer["is_error"]:
        elapsed = transfer["elapsed_seconds"]
        main = "send" if transfer["method"] == "PUT" else "recv"
        record["elapsed_seconds"] = {
            f"{field}_{direction}": elapsed[field if direction == main else f"{field}_{direction}"]
            for field in ("payload_bytes", "payload_progress")
            for direction in ("recv", "send")
        }
    return name, record


def _circuit(circuit: Mapping[str, Any]) -> dict[str, Any]:
    record = {field: circuit[field] for field in _CIRCUIT_FIELDS if field in circuit}
    record["filtered_out"] = False
    return record


def _stream(stream: Mapping[str, Any]) -> dict[str, Any]:
    record = {field: stream[field] for field in _STREAM_FIELDS if field in stream}
    record["circuit_id"] = stream.get("circuit_id")
    return record
