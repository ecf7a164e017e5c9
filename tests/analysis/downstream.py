"""Reads a database of OnionPerf as the field's programs do: exactly these keys, with these types.

`visualize_rows` walks what OnionPerf's ``visualize`` reads, for the rows of its CSV; a key that is
missing, or of another type, is an exception here as it is there. `collector_reads` walks what Tor's
metrics library reads beyond that.
"""

from __future__ import annotations

import re
from typing import Any

_WINDOW_SECONDS = 150.0
_SIZES = {1048576: ("0.5", 4.194304), 5242880: ("0.8", 8.388608)}
_FINGERPRINT = re.compile(r"\$([0-9A-Fa-f]{40})")


def visualize_rows(document: dict[str, Any], label: str) -> dict[str, dict[str, Any]]:
    """Return the rows by id; what visualize leaves empty is absent."""
    assert document["type"] == "onionperf"
    assert str(document["version"]) < "6."
    is_filtered = "tor/circuits" in document.get("filters", {})
    rows = {}
    for node in document["data"].values():
        by_port: dict[str, list[dict[str, Any]]] = {}
        for stream in node["tor"]["streams"].values():
            if ":" in stream.get("source", ""):
                by_port.setdefault(stream["source"].split(":")[1], []).append(stream)
        for name, found in [*_streams(node), *_transfers(node)]:
            row = {"id": name, "label": label, **found}
            end, port = row.pop("end"), row.pop("port")
            near = [
                s for s in by_port.get(port, []) if abs(s["unix_ts_end"] - end) < _WINDOW_SECONDS
            ]
            circuit = None
            if near and near[-1]["circuit_id"]:
                circuit = node["tor"]["circuits"].get(str(near[-1]["circuit_id"]))
            if circuit:
                row.update(_circuit(circuit))
            if row["error_code"] == "NONE":
                del row["error_code"]
            else:
                row["error_code"] = _error_code(row["error_code"], near)
            if not is_filtered or (circuit and not circuit["filtered_out"]):
                rows[name] = row
    return rows


def _error_code(code: str, near: list[dict[str, Any]]) -> str:
    parts = ["TOR"] if code == "PROXY" else ["TGEN", code]
    for stream in near:
        if "failure_reason_local" in stream:
            parts.append(stream["failure_reason_local"])
            parts += [stream[key] for key in ["failure_reason_remote"] if key in stream]
    return "/".join(parts)


def _megabits_per_second(size: int, progress: dict[str, float]) -> dict[str, float]:
    if size not in _SIZES or "1.0" not in progress:
        return {}
    first, megabits = _SIZES[size]
    seconds = progress["1.0"] - progress[first]
    # Of no time at all, visualize makes one second; nothing can be said.
    return {"mbps": megabits / seconds} if seconds else {}


def _streams(node: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, stream in node.get("tgen", {}).get("streams", {}).items():
        times, info = stream["time_info"], stream["stream_info"]
        row: dict[str, Any] = {
            "filesize_bytes": int(info["recvsize"]),
            "server": "onion" if ".onion:" in stream["transport_info"]["remote"] else "public",
            "error_code": info["error"],
            "start": stream["unix_ts_start"],
            "end": stream["unix_ts_end"],
            "port": stream["transport_info"]["local"].split(":")[2],
        }
        for column, step in (("first", "first-byte-recv"), ("last", "last-byte-recv")):
            if float(times[f"usecs-to-{step}"]) >= 0:
                row[f"time_to_{column}_byte"] = float(times[f"usecs-to-{step}"]) / 1e6
        if "elapsed_seconds" in stream:
            progress = stream["elapsed_seconds"]["payload_progress_recv"]
            row.update(_megabits_per_second(row["filesize_bytes"], progress))
        found.append((name, row))
    return found


def _transfers(node: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, transfer in node.get("tgen", {}).get("transfers", {}).items():
        elapsed = transfer["elapsed_seconds"]
        row: dict[str, Any] = {
            "filesize_bytes": transfer["filesize_bytes"],
            "server": "onion" if ".onion:" in transfer["endpoint_remote"] else "public",
            "error_code": transfer["error_code"],
            "start": transfer["unix_ts_start"],
            "end": transfer["unix_ts_end"],
            "port": transfer["endpoint_local"].split(":")[2],
        }
        for column in ("first_byte", "last_byte"):
            if column in elapsed:
                row[f"time_to_{column}"] = elapsed[column]
        progress = elapsed.get("payload_progress", {})
        row.update(_megabits_per_second(row["filesize_bytes"], progress))
        found.append((name, row))
    return found


def _circuit(circuit: dict[str, Any]) -> dict[str, Any]:
    path = circuit["path"]
    row: dict[str, Any] = {"fingerprints": [hop for hop, _ in path]}
    guards = []
    if "current_guards" in circuit:
        guards = [guard["fingerprint"] for guard in circuit["current_guards"]]
        countries = [guard.get("country", "N/A") for guard in circuit["current_guards"]]
        row.update(guard_country_codes=countries, guards=len(guards))
    if match := _FINGERPRINT.match(path[0][0]):
        row["guard"] = match[1].upper()
        row["uses_guard"] = row["guard"] in guards
        row["guard_index"] = guards.index(row["guard"]) if row["uses_guard"] else -1
    return row


def collector_reads(document: dict[str, Any]) -> int:
    """Walk what the metrics library reads; return how many circuits could be used."""
    assert float(document["version"]) <= 3.999
    used = 0
    for nickname, node in document["data"].items():
        assert re.fullmatch("[A-Za-z0-9-]+", nickname)
        assert isinstance(node["measurement_ip"], str)
        for stream in node.get("tgen", {}).get("streams", {}).values():
            for section in ("byte_info", "stream_info", "time_info", "transport_info"):
                assert all(isinstance(value, str) for value in stream[section].values())
            assert len(stream["transport_info"]["local"].split(":")) == 3
            for maps in stream.get("elapsed_seconds", {}).values():
                assert all(float(mark) >= 0 and seconds >= 0 for mark, seconds in maps.items())
        for number, stream in node["tor"]["streams"].items():
            assert int(number) == stream["stream_id"]
            assert stream["circuit_id"] is None or int(stream["circuit_id"]) > 0
            for _, seconds in stream["elapsed_seconds"]:
                assert isinstance(seconds, float)
        for number, circuit in node["tor"]["circuits"].items():
            assert int(number) == circuit["circuit_id"]
            assert isinstance(circuit.get("build_timeout", 0), int)
            assert isinstance(circuit.get("build_quantile", 0.5), float)
            times = [float(seconds) for _, seconds in circuit.get("path", ())]
            used += times == sorted(times)
    return used
