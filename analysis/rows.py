"""One row for each transfer that ended, with the columns of OnionPerf's CSV, as CSV and Parquet."""

from __future__ import annotations

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfmeasure import jsonio
from perfmeasure.analysis import filters, records, sql
from perfmeasure.analysis.statistics import destination_kind
from perfmeasure.analysis.torlog import HOP

COLUMNS = {
    "id": "VARCHAR",
    "time_to_first_byte": "DOUBLE",
    "time_to_last_byte": "DOUBLE",
    "error_code": "VARCHAR",
    "mbps": "DOUBLE",
    "label": "VARCHAR",
    "filesize_bytes": "BIGINT",
    "server": "VARCHAR",
    "start": "TIMESTAMP",
    "fingerprints": "VARCHAR[]",
    "guard_country_codes": "VARCHAR[]",
    "guards": "BIGINT",
    "guard": "VARCHAR",
    "uses_guard": "BOOLEAN",
    "guard_index": "BIGINT",
}
"""The columns in order, with their types in SQL."""

NOT_ENDED = "transfers that had not ended"
FILTERED_OUT = "transfers that were filtered out"
"""The reasons why a transfer has no row, as `rows` counts them."""

# Size -> (the decile to begin with, megabits from there to the end), as the field does.
_THROUGHPUT = {1048576: ("0.5", 4.194304), 5242880: ("0.8", 8.388608)}


def rows(document: Mapping[str, Any], losses: Counter[str]) -> list[dict[str, Any]]:
    """Return the rows of a perfmeasure-1.0 document; unknown is None.

    What is not complete or was filtered out has none, and is counted in ``losses``. ``label`` is
    the nickname. Times are seconds from the start of the transfer. ``mbps`` is the throughput over
    the last fifth of 5 MiB or the last half of 1 MiB; other sizes have none.
    """
    found = []
    for nickname, node in sorted(document["data"].items()):
        for name, transfer in records.in_order(node.get("tgen", {}).get("transfers", {})):
            if not transfer["is_complete"]:
                losses[NOT_ENDED] += 1
            elif not filters.is_kept(document, node, transfer):
                losses[FILTERED_OUT] += 1
            else:
                found.append(_row(name, nickname, transfer, node.get("tor", {})))
    return found


def _row(
    name: str, nickname: str, transfer: Mapping[str, Any], tor: Mapping[str, Any]
) -> dict[str, Any]:
    links = transfer["links"]
    stream = tor.get("streams", {}).get(links.get("stream"), {})
    circuit = tor.get("circuits", {}).get(links.get("circuit"), {})
    elapsed = transfer["elapsed_seconds"]
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(
        id=name,
        time_to_first_byte=elapsed.get("first_byte"),
        time_to_last_byte=elapsed.get("last_byte"),
        error_code=_error_code(transfer, stream),
        mbps=_mbps(transfer),
        label=nickname,
        filesize_bytes=transfer["filesize_bytes"],
        server="onion" if destination_kind(transfer) == "onion" else "public",
        start=transfer["unix_ts_start"],
    )
    if path := circuit.get("path"):
        row["fingerprints"] = [hop[0] for hop in path]
        current = circuit.get("current_guards", [])
        fingerprints = [guard["fingerprint"] for guard in current]
        if current:
            row["guard_country_codes"] = [guard.get("country", "N/A") for guard in current]
            row["guards"] = len(current)
        if match := HOP.match(path[0][0]):
            row["guard"] = match[1].upper()
            if "guards" in tor:
                row["uses_guard"] = row["guard"] in fingerprints
                row["guard_index"] = fingerprints.index(row["guard"]) if row["uses_guard"] else -1
    return row


def _error_code(transfer: Mapping[str, Any], stream: Mapping[str, Any]) -> str | None:
    code = transfer["error_code"]
    if code == "NONE":
        return None
    parts = ["TOR"] if code == "PROXY" else ["TGEN", code]
    if "failure_reason_local" in stream:
        parts.append(stream["failure_reason_local"])
        if "failure_reason_remote" in stream:
            parts.append(stream["failure_reason_remote"])
    return "/".join(parts)


def _mbps(transfer: Mapping[str, Any]) -> float | None:
    first, megabits = _THROUGHPUT.get(transfer["filesize_bytes"], ("", 0.0))
    progress = transfer["elapsed_seconds"].get("payload_progress", {})
    if transfer["is_error"] or first not in progress or "1.0" not in progress:
        return None
    seconds = progress["1.0"] - progress[first]
    # All of it in one read: how fast it was is not known.
    return megabits / seconds if seconds > 0 else None


def start_text(unix_ts: float) -> str:
    """Return a time as SQL has it, in UTC to the microsecond."""
    moment = datetime.fromtimestamp(unix_ts, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"


def as_csv(found: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as CSV; lists are written as OnionPerf does, ``['A', 'B']``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    for row in found:
        writer.writerow({**row, "start": start_text(row["start"])})
    return text.getvalue().encode()


def to_csv(document: Mapping[str, Any], losses: Counter[str]) -> bytes:
    """Return the rows of a document as CSV."""
    return as_csv(rows(document, losses))


def to_parquet(document: Mapping[str, Any], losses: Counter[str]) -> bytes:
    """Return the rows as Parquet; lists are lists, ``start`` is UTC to the microsecond."""
    lines = [
        jsonio.compact({**row, "start": start_text(row["start"])}) + "\n"
        for row in rows(document, losses)
    ]
    with tempfile.TemporaryDirectory() as folder, sql.cursor() as cursor:
        source, target = Path(folder, "rows.json"), Path(folder, "rows.parquet")
        source.write_text("".join(lines), encoding="utf-8")
        table = cursor.read_json(str(source), format="newline_delimited", columns=COLUMNS)
        table.write_parquet(str(target), compression="zstd")
        return target.read_bytes()
