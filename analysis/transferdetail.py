"""What the page shows of one transfer: its phases, its circuit, its connections.

The moments of the sources (generator, tor, kernel, the far end) become seconds from the start of
the transfer, so that they can be drawn over one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmeasure.analysis.statistics import destination_kind
from perfmeasure.analysis.torlog import HOP

_OF_CONNECTIONS = (
    "end",
    "minimum_rtt_seconds",
    "received_bytes",
    "retransmission_timeouts",
    "retransmitted_segments",
    "sent_bytes",
    "smoothed_rtt_seconds",
)


def detail(
    name: str, nickname: str, transfer: Mapping[str, Any], node: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one transfer for the page; unknown is absent.

    Args:
        name: its name in the database.
        nickname: key of ``node`` in the database.
        transfer: its record.
        node: what the database has of the nickname.

    Returns:
        ``id``, ``nickname``, ``destination``, ``size_bytes``, ``unix_ts_start``, ``seconds`` (its
        duration), ``outcome`` (``success``, ``error``, ``incomplete``), ``error_code``, ``links``
        (how it was linked), ``phases`` (seconds), and in seconds from its start ``steps`` of the
        generator, ``progress`` of the payload, ``stream``, ``server``; ``circuit`` with its
        ``path``; ``connection`` (to tor) and ``guards`` (to the first relays) of the kernel;
        ``packets``, as in the database.
    """
    start = transfer["unix_ts_start"]
    elapsed = transfer["elapsed_seconds"]
    links = transfer["links"]
    found: dict[str, Any] = {
        "id": name,
        "nickname": nickname,
        "destination": destination_kind(transfer),
        "size_bytes": transfer["filesize_bytes"],
        "unix_ts_start": start,
        "outcome": outcome(transfer),
        "links": links["status"],
        "steps": {key: value for key, value in elapsed.items() if isinstance(value, float | int)},
        "progress": elapsed.get("payload_progress", {}),
    }
    if "unix_ts_end" in transfer:
        found["seconds"] = round(transfer["unix_ts_end"] - start, 6)
    if transfer["is_error"]:
        found["error_code"] = transfer["error_code"]
    if "phases" in transfer:
        found["phases"] = transfer["phases"]
    tor = node.get("tor", {})
    stream = tor.get("streams", {}).get(links.get("stream"))
    if stream is not None:
        shift = stream["unix_ts_start"] - start
        found["stream"] = {"id": links["stream"], "events": _events(stream, shift)}
    circuit = tor.get("circuits", {}).get(links.get("circuit"))
    if circuit is not None:
        found["circuit"] = _circuit(links["circuit"], circuit, start)
    server = transfer.get("server", {})
    if server.get("status") == "linked":
        found["server"] = _server(server, start)
    connections = node.get("kernel", {}).get("connections", {})
    connection = connections.get(links.get("connection"))
    if connection is not None:
        found["connection"] = _connection(connection, start)
    guards = transfer.get("kernel", {}).get("guards", [])
    if guards:
        found["guards"] = [
            {key: guard[key] for key in _OF_CONNECTIONS if key in guard} for guard in guards
        ]
    if "packets" in transfer:
        found["packets"] = dict(transfer["packets"])
    return found


def outcome(transfer: Mapping[str, Any]) -> str:
    """Return ``success``, ``error`` or ``incomplete``."""
    if not transfer["is_complete"]:
        return "incomplete"
    return "error" if transfer["is_error"] else "success"


def _events(record: Mapping[str, Any], shift: float) -> list[list[Any]]:
    return [[event, round(shift + seconds, 6)] for event, seconds, *_ in record["elapsed_seconds"]]


def _circuit(name: str, circuit: Mapping[str, Any], start: float) -> dict[str, Any]:
    shift = circuit["unix_ts_start"] - start
    path = []
    for hop, *built in circuit.get("path", []):
        match = HOP.match(hop)
        relay: dict[str, Any] = {"fingerprint": match[1].upper()} if match else {"fingerprint": hop}
        relay["nickname"] = hop.partition("~")[2]
        if built:
            relay["seconds"] = round(built[0], 6)
        path.append(relay)
    found = {"id": name, "events": _events(circuit, shift), "path": path}
    if "buildtime_seconds" in circuit:
        found["buildtime_seconds"] = circuit["buildtime_seconds"]
    if len(circuit.get("conflux_circuits", [])) > 1:
        found["conflux_circuits"] = circuit["conflux_circuits"]
    return found


def _server(server: Mapping[str, Any], start: float) -> dict[str, Any]:
    shift = server["unix_ts_start"] - start
    steps = {
        key: round(shift + value, 6)
        for key, value in server["elapsed_seconds"].items()
        if isinstance(value, float | int)
    }
    return {"steps": steps, "error_code": server["error_code"]}


def _connection(connection: Mapping[str, Any], start: float) -> dict[str, Any]:
    found = {key: connection[key] for key in _OF_CONNECTIONS if key in connection}
    shift = connection["unix_ts_start"] - start
    found["steps"] = {
        key: round(shift + value, 6) for key, value in connection["elapsed_seconds"].items()
    }
    return found
