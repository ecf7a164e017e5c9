"""Transfers as ``@type torperf 1.1``, the one-line records that Tor's metrics took until 2020.

A file holds the transfers of one nickname, one size and the UTC day of their start, and is named
``NICKNAME-SIZE-YYYY-MM-DD.tpf``. Each is the annotation and one line of sorted KEY=value, both
ended by CR LF. Times are Unix seconds with two decimals; 0.0 is a step that was not reached.
BUILDTIMES are seconds since LAUNCH, with all the digits that OnionPerf wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from perfmeasure.analysis import filters, records
from perfmeasure.units import utc_date

_STEPS = {
    "SOCKET": "socket_create",
    "CONNECT": "socket_connect",
    "NEGOTIATE": "proxy_choice",
    "REQUEST": "proxy_request",
    "RESPONSE": "proxy_response",
    "DATAREQUEST": "command",
    "DATARESPONSE": "response",
    "DATACOMPLETE": "last_byte",
}


def files(document: Mapping[str, Any], losses: Counter[str]) -> dict[str, bytes]:
    """Return the .tpf files of a perfmeasure-1.0 document by name.

    Args:
        document: the document; it is not changed.
        losses: counts the transfers that the format cannot hold.
    """
    texts: dict[str, list[str]] = {}
    for nickname, node in sorted(document["data"].items()):
        for _, transfer in records.in_order(node.get("tgen", {}).get("transfers", {})):
            if not transfer["is_complete"]:
                losses["transfers that had not ended"] += 1
            elif not filters.is_kept(document, node, transfer):
                losses["transfers that were filtered out"] += 1
            else:
                day = utc_date(transfer["unix_ts_start"])
                name = f"{nickname}-{transfer['filesize_bytes']}-{day}.tpf"
                texts.setdefault(name, []).append(_text(nickname, node, transfer))
    return {name: "".join(of_file).encode() for name, of_file in texts.items()}


def _text(nickname: str, node: Mapping[str, Any], transfer: Mapping[str, Any]) -> str:
    start = transfer["unix_ts_start"]
    elapsed = transfer["elapsed_seconds"]
    fields: dict[str, str] = {
        "DIDTIMEOUT": str(int(transfer["is_error"])),  # any failure, as the field's reader has it
        "ENDPOINTLOCAL": transfer["endpoint_local"],
        "ENDPOINTPROXY": transfer["endpoint_proxy"],
        "ENDPOINTREMOTE": transfer["endpoint_remote"],
        "FILESIZE": str(transfer["filesize_bytes"]),
        "HOSTNAMELOCAL": transfer["hostname_local"],
        "HOSTNAMEREMOTE": transfer["hostname_remote"],
        "LAUNCH": "0.0",
        "READBYTES": str(transfer["total_bytes_read"]),
        "SOURCE": nickname,
        "SOURCEADDRESS": node["measurement_ip"],
        "START": f"{start:.2f}",
        "WRITEBYTES": str(transfer["total_bytes_write"]),
    }
    for key, step in _STEPS.items():
        fields[key] = f"{start + elapsed[step]:.2f}" if step in elapsed else "0.0"
    progress = elapsed.get("payload_progress", {})
    for decile in range(11):
        seconds = progress.get(f"{decile / 10:.1f}")
        if seconds is not None:
            fields[f"DATAPERC{decile * 10}"] = f"{start + seconds:.2f}"
        elif 0 < decile < 10:
            fields[f"DATAPERC{decile * 10}"] = "0.0"
    fields.update(_of_tor(node.get("tor", {}), transfer["links"]))
    line = " ".join(f"{key}={_word(fields[key])}" for key in sorted(fields))
    return f"@type torperf 1.1\r\n{line}\r\n"


def _word(value: str) -> str:
    """Return a value without white space, which ends it in this format."""
    return "_".join(value.split()) or "unknown"


def _of_tor(tor: Mapping[str, Any], links: Mapping[str, Any]) -> dict[str, str]:
    fields = {}
    if stream := tor.get("streams", {}).get(links.get("stream")):
        fields["USED_BY"] = str(stream["stream_id"])
        if "unix_ts_end" in stream:
            fields["USED_AT"] = f"{stream['unix_ts_end']:.2f}"
    circuit = tor.get("circuits", {}).get(links.get("circuit"))
    if not circuit:
        return fields
    fields["LAUNCH"] = f"{circuit['unix_ts_start']:.2f}"
    if path := circuit.get("path"):
        fields["CIRC_ID"] = str(circuit["circuit_id"])
        fields["PATH"] = ",".join(hop[0].partition("~")[0].partition("=")[0] for hop in path)
        if all(len(hop) == 2 for hop in path):
            fields["BUILDTIMES"] = ",".join(str(float(f"{hop[1]:.12g}")) for hop in path)
        if "build_timeout" in circuit:
            fields["TIMEOUT"] = str(circuit["build_timeout"])
        if "build_quantile" in circuit:
            fields["QUANTILE"] = str(float(circuit["build_quantile"]))
    return fields
