"""Reads a database of OnionPerf, any version, as a perfmeasure-1.0 document.

What the document has no place for is counted by what it is, never dropped in silence. Links,
phases and the summaries that the version lacks are made from its records.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import perfmeasure
from perfmeasure.analysis import records, validation
from perfmeasure.analysis.onionperf import (
    CIRCUIT_FIELDS,
    SECTIONS,
    STREAM_FIELDS,
    SUMMARIES,
    TRANSFER_FIELDS,
    TRANSFERS_SUMMARY,
    more_circuit_fields,
)
from perfmeasure.analysis.transfers import Begun, ended_transfer
from perfmeasure.errors import InputError

_GUARD_FIELDS = (
    "fingerprint", "nickname", "country", "new_ts", "up_ts", "down_ts", "dropped_ts",
)  # fmt: skip
_FAULTS_SHOWN = 3
_TGEN_STREAM_FIELDS = (
    *SECTIONS, "elapsed_seconds", "is_complete", "is_error", "is_success", "stream_id",
    "unix_ts_end", "unix_ts_start",
)  # fmt: skip
_PASSIVE = re.compile(r"passive-stream")


class _Stored(Begun):
    """A transfer whose payload times are known already."""

    __slots__ = ("_maps",)

    def __init__(self, maps: Mapping[str, Any]) -> None:
        super().__init__(0.0, b"")
        self._maps = maps

    def elapsed(
        self, direction: str, start: float, end: float
    ) -> tuple[dict[str, float], dict[str, float]]:
        del start, end
        return (
            self._maps.get(f"payload_progress_{direction}", {}),
            self._maps.get(f"payload_bytes_{direction}", {}),
        )


def read(document: Mapping[str, Any], where: str, losses: Counter[str]) -> dict[str, Any]:
    """Return the perfmeasure-1.0 document of a database of any version that we know.

    Args:
        document: the database; one that is perfmeasure-1.0 is returned as it is.
        where: its name, for errors.
        losses: counts what could not be carried over, by what it is.

    Raises:
        InputError: its version has no schema here, or it does not follow it.
    """
    kind = validation.kind_of(document, where)
    _check(document, where)
    if document["type"] == "perfmeasure":
        return dict(document)
    version = kind.partition("-")[2]
    _known(document, ("type", "version", "data", "filters"), "database", losses)
    read_document: dict[str, Any] = {
        "type": "perfmeasure",
        "version": "1.0",
        "meta": {
            "tool": "perfmeasure",
            "tool_version": perfmeasure.__version__,
            "inputs": [],
            "sources": {},
        },
        "data": {
            name: _node(node, version, f"{where}: data/{name}", losses)
            for name, node in document["data"].items()
        },
    }
    filters = document.get("filters", {})
    _known(filters, ("tor/circuits",), "filters", losses)
    if entries := filters.get("tor/circuits"):
        read_document["filters"] = {
            "tor/circuits": [_known(e, ("name", "filepath"), "filter", losses) for e in entries]
        }
    return read_document


def _check(document: Mapping[str, Any], where: str) -> None:
    """Raise an InputError for a document that does not follow its schema.

    OnionPerf's own analysis of one kind of log leaves out the other part, though its schema wants
    both: that is no reason to refuse it.
    """
    checked = dict(document)
    if document["type"] == "onionperf" and isinstance(document.get("data"), dict):
        empty: dict[str, Any] = {"tgen": {"streams": {}}, "tor": {"circuits": {}, "streams": {}}}
        checked["data"] = {
            name: {**empty, **node} if isinstance(node, dict) else node
            for name, node in document["data"].items()
        }
        if str(document["version"]) < "3":
            checked["data"] = document["data"]
    faults = list(itertools.islice(validation.errors(checked, where), _FAULTS_SHOWN))
    if faults:
        raise InputError(where, "; ".join(faults), "a database that follows its schema")


def _known(
    record: Mapping[str, Any], fields: tuple[str, ...], what: str, losses: Counter[str]
) -> dict[str, Any]:
    """Return the known fields that have a value; count the others."""
    for field in record.keys() - set(fields):
        losses[f"{what}: {field}"] += 1
    return {f: record[f] for f in fields if f in record and record[f] is not None}


def _node(
    node: Mapping[str, Any], version: str, where: str, losses: Counter[str]
) -> dict[str, Any]:
    _known(node, ("measurement_ip", "tgen", "tor"), "nickname", losses)
    found: dict[str, Any] = {"measurement_ip": node["measurement_ip"]}
    stored: dict[str, Any] = {}
    if tgen := node.get("tgen"):
        if "transfers" in tgen:
            _known(tgen, ("transfers", "transfers_summary"), "tgen", losses)
            stored = dict(tgen.get("transfers_summary", {}))
            transfers = {
                name: _old_transfer(transfer, losses)
                for name, transfer in tgen["transfers"].items()
            }
        else:
            _known(tgen, ("streams",), "tgen", losses)
            transfers = _transfers(tgen["streams"], where, losses)
        found["tgen"] = {"transfers": transfers}
    tor = node.get("tor")
    if tor is not None:
        found["tor"] = _tor(tor, version, losses)
    records.link(found)
    records.summarise(found)
    # What the version itself says of these stands; only what it leaves out is ours.
    if "tgen" in found:
        found["tgen"]["transfers_summary"].update(
            _known(stored, TRANSFERS_SUMMARY, "transfers_summary", losses)
        )
    if tor is not None:
        found["tor"].update({field: tor[field] for field in SUMMARIES if field in tor})
    return found


def _old_transfer(transfer: Mapping[str, Any], losses: Counter[str]) -> dict[str, Any]:
    record = _known(transfer, TRANSFER_FIELDS, "transfer", losses)
    _known(
        record["elapsed_seconds"],
        (
            "socket_create", "socket_connect", "proxy_init", "proxy_choice", "proxy_request",
            "proxy_response", "command", "response", "first_byte", "last_byte", "checksum",
            "payload_progress", "payload_bytes",
        ),
        "transfer: elapsed_seconds",
        losses,
    )  # fmt: skip
    if not record["is_complete"]:
        losses["unix_ts_end of a transfer that is not complete"] += 1
        del record["unix_ts_end"]
        record["is_error"] = record["is_success"] = False
    return record


def _transfers(
    streams: Mapping[str, Mapping[str, Any]], where: str, losses: Counter[str]
) -> dict[str, Any]:
    transfers: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for name, stream in records.in_order(streams):
        known = _known(stream, _TGEN_STREAM_FIELDS, "stream of the generator", losses)
        sections = {section.removesuffix("_info"): stream[section] for section in SECTIONS}
        sections["bytes"], sections["times"] = stream["byte_info"], stream["time_info"]
        maps = known.get("elapsed_seconds", {})
        try:
            transfer = ended_transfer(
                sections, _Stored(maps), known["unix_ts_end"], is_error=known["is_error"]
            )
        except ValueError as error:
            raise InputError(
                f"{where}/tgen/streams/{name}", "numbers that cannot be", "those of one stream"
            ) from error
        record = transfer.record
        record["unix_ts_start"] = known["unix_ts_start"]
        record["elapsed_seconds"] = _without_unknown(record, maps)
        if _PASSIVE.match(stream["stream_info"]["vertexid"]):
            record["is_commander"] = False
        if not known["is_complete"]:
            losses["stream of the generator that is not complete"] += 1
            continue
        counts[transfer.base_id] += 1
        number = counts[transfer.base_id]
        record["transfer_id"] = transfer.base_id + (f"#{number}" if number > 1 else "")
        transfers[record["transfer_id"]] = record
    return transfers


def _without_unknown(record: Mapping[str, Any], maps: Mapping[str, Any]) -> dict[str, Any]:
    """Return elapsed_seconds without the payload times that the version did not have."""
    main = "send" if record["method"] == "PUT" else "recv"
    elapsed = dict(record["elapsed_seconds"])
    for field in ("payload_bytes", "payload_progress"):
        for direction in ("recv", "send"):
            if f"{field}_{direction}" not in maps:
                del elapsed[field if direction == main else f"{field}_{direction}"]
    return elapsed


def _tor(tor: Mapping[str, Any], version: str, losses: Counter[str]) -> dict[str, Any]:
    parts = ("circuits", "streams", *(SUMMARIES if version < "3" else ("guards",)))
    _known(tor, parts, "tor", losses)
    found: dict[str, Any] = {
        "circuits": {
            name: _circuit(circuit, version, losses)
            for name, circuit in tor.get("circuits", {}).items()
        },
        "streams": {
            name: {**_known(stream, STREAM_FIELDS, "stream of tor", losses), "is_complete": True}
            for name, stream in tor.get("streams", {}).items()
        },
    }
    if "guards" in parts and "guards" in tor:
        found["guards"] = [_known(g, _GUARD_FIELDS, "guard", losses) for g in tor["guards"]]
    return found


def _circuit(circuit: Mapping[str, Any], version: str, losses: Counter[str]) -> dict[str, Any]:
    fields = (*CIRCUIT_FIELDS, *more_circuit_fields(version))
    record = {**_known(circuit, fields, "circuit", losses), "is_complete": True}
    if not record.get("path", True):
        del record["path"]
    if not record.get("filtered_out", True):
        del record["filtered_out"]
    if "current_guards" in record:
        guards = [_known(g, _GUARD_FIELDS, "guard", losses) for g in record["current_guards"]]
        record["current_guards"] = guards
        if not guards:
            del record["current_guards"]
    return record
