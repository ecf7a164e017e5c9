"""What OnionPerf 3.1 makes of a log, worked out the slow way; stem takes tor's events apart.

An independent statement of its rules, to compare with; only for logs in which no number of a
circuit or stream comes again.
"""

from __future__ import annotations

import re
from typing import Any

from stem.response import ControlMessage, convert

_HS = {"HS_CLIENT_INTRO", "HS_CLIENT_REND", "HS_SERVICE_INTRO", "HS_SERVICE_REND"}
_BYTES: list[float] = [10240, 20480, 51200, 102400, 204800, 512000, 1048576, 2097152, 5242880]
_DECILES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
_GUARD_TIMES = ("new", "up", "down", "dropped")


def events_of(text: str) -> list[tuple[float, Any]]:
    """Return the one-line events with their stamps."""
    found = []
    for line in text.split("\r\n"):
        # Lines that end in LF alone stand in front of the event that they are read with.
        stamp, is_event, event = line.rpartition("\n")[2].partition(" 650 ")
        if is_event and event.split(" ")[0] in {
            "CIRC", "CIRC_MINOR", "STREAM", "BUILDTIMEOUT_SET", "GUARD"
        }:  # fmt: skip
            message = ControlMessage.from_str(f"650 {event}\r\n")
            convert("EVENT", message)
            found.append((float(stamp.split()[2]), message))
    return found


def tor_of(text: str) -> dict[str, Any]:
    """Return the ``tor`` part of the database."""
    events = events_of(text)
    circuits = {int(e.id) for _, e in events if e.type in {"CIRC", "CIRC_MINOR"}}
    streams = {int(e.id) for _, e in events if e.type == "STREAM"}
    found: dict[str, Any] = {
        "circuits": {str(n): _circuit(n, events) for n in sorted(circuits)},
        "streams": {str(n): _stream(n, events) for n in sorted(streams)},
        "guards": _guards(events),
    }
    for part in ("circuits", "streams"):
        found[part] = {n: record for n, record in found[part].items() if record}
    return found


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value not in (None, "", [])}


def _circuit(number: int, events: list[tuple[float, Any]]) -> dict[str, Any] | None:
    mine = [
        (at, ts, e)
        for at, (ts, e) in enumerate(events)
        if e.type in {"CIRC", "CIRC_MINOR"} and int(e.id) == number
    ]
    ends = [
        (at, ts, e) for at, ts, e in mine if e.type == "CIRC" and e.status in {"FAILED", "CLOSED"}
    ]
    launches = [(at, ts) for at, ts, e in mine if e.type == "CIRC" and e.status == "LAUNCHED"]
    if not ends or not launches or launches[0] > ends[0][:2]:
        return None
    (launched_at, start), (ended_at, end, last) = launches[0], ends[0]
    record: dict[str, Any] = {"circuit_id": number, "unix_ts_start": start, "unix_ts_end": end}
    timeouts = [e for _, e in events[:launched_at] if e.type == "BUILDTIMEOUT_SET"]
    elapsed, path, built = [], [], None
    for at, ts, e in mine:
        if at > ended_at:
            break
        state = f"{e.hs_state}:{e.rend_query}" if e.rend_query else str(e.hs_state)
        if e.type == "CIRC":
            elapsed.append([f"{e.purpose}:{e.status}", ts - start])
            if e.status == "EXTENDED":
                fingerprint, nickname = e.path[-1]
                path.append([f"${fingerprint}~{nickname}", ts - start])
            if e.status == "BUILT":
                built = ts - start if built is None else built
                if e.purpose in _HS:
                    elapsed.append([state, ts - start])
        else:
            if e.event != "PURPOSE_CHANGED" or e.purpose != e.old_purpose:
                elapsed.append([f"{e.event}:{e.purpose}", ts - start])
            if e.purpose in _HS:
                elapsed.append([state, ts - start])
    guards = [
        g
        for g in _guards(events[:ended_at])
        if g.get("up_ts", start + 1) <= start < g.get("dropped_ts", start + 1)
    ]
    return {
        **record,
        "cbt_set": bool(timeouts) and timeouts[-1].set_type != "RESET",
        "elapsed_seconds": elapsed,
        "filtered_out": False,
        **_known({
            "path": path,
            "buildtime_seconds": built,
            "build_timeout": timeouts[-1].timeout if timeouts else None,
            "build_quantile": timeouts[-1].quantile if timeouts else None,
            "current_guards": guards,
            "failure_reason_local": last.reason if last.status == "FAILED" else None,
            "failure_reason_remote": last.remote_reason if last.status == "FAILED" else None,
        }),
    }  # fmt: skip


def _stream(number: int, events: list[tuple[float, Any]]) -> dict[str, Any] | None:
    mine = [(ts, e) for ts, e in events if e.type == "STREAM" and int(e.id) == number]
    news = [at for at, (_, e) in enumerate(mine) if e.status in {"NEW", "NEWRESOLVE"}]
    ends = [at for at, (_, e) in enumerate(mine) if e.status in {"FAILED", "CLOSED"}]
    if not news or not ends or news[0] > ends[0]:
        return None
    mine = mine[: ends[0] + 1]
    (start, new), (end, last) = mine[news[0]], mine[-1]
    purpose, elapsed, circuit = None, [], None
    for ts, e in mine:
        purpose = e.purpose or purpose
        circuit = e.circ_id or circuit
        elapsed.append([f"{purpose}:{e.status}", ts - start])
    is_failed = last.status == "FAILED"
    return {
        "circuit_id": circuit,
        "elapsed_seconds": elapsed,
        "stream_id": number,
        "target": last.target,
        "unix_ts_start": start,
        "unix_ts_end": end,
        **_known({
            "source": new.source_addr,
            "failure_reason_local": last.reason if is_failed else None,
            "failure_reason_remote": last.remote_reason if is_failed else None,
        }),
    }  # fmt: skip


def _guards(events: list[tuple[float, Any]]) -> list[dict[str, Any]]:
    guards: list[dict[str, Any]] = []
    for ts, e in events:
        if e.type != "GUARD" or e.guard_type != "ENTRY" or str(e.status).endswith("_L2"):
            continue
        fingerprint, nickname = e.endpoint_fingerprint, e.endpoint_nickname
        known = [g for g in guards if g["fingerprint"] == fingerprint and "dropped_ts" not in g]
        if not known:
            known = [{"fingerprint": fingerprint, "nickname": nickname}]
            guards += known
        if str(e.status).lower() in _GUARD_TIMES:
            known[0].setdefault(f"{e.status.lower()}_ts", ts)
    return guards


def streams_of(text: str) -> dict[str, Any]:
    """Return ``tgen/streams`` of a generator's log, in which no stream comes again."""
    seen: dict[str, list[tuple[float, dict[str, dict[str, str]]]]] = {}
    found = {}
    for line in text.split("\n"):
        kind = re.search(r"\[(stream-(?:status|success|error))\]", line)
        if not kind:
            continue
        parts = {
            name: dict(pair.split("=", 1) for pair in pairs.split(","))
            for name, pairs in re.findall(r"(transport|stream|bytes|times) \[([^]]*)\]", line)
        }
        end = float(line.split(" ")[2])
        transport, stream = parts["transport"], parts["stream"]
        name = ":".join((stream["id"], transport["fd"], transport["local"], transport["remote"]))
        lines = seen.setdefault(name, [])
        lines.append((end, parts))
        if kind[1] == "stream-status":
            continue
        times = parts["times"]
        start = end - (int(times["now-ts"]) - int(times["created-ts"])) / 1000000.0
        is_error = kind[1] == "stream-error"
        found[name] = {
            "byte_info": parts["bytes"],
            "stream_info": stream,
            "time_info": times,
            "transport_info": transport,
            "is_complete": True,
            "is_error": is_error,
            "is_success": not is_error,
            "stream_id": name,
            "unix_ts_start": start,
            "unix_ts_end": end,
        }
        if not is_error:
            found[name]["elapsed_seconds"] = {
                f"payload_{what}_{way}": _marks(lines, f"payload-{what}-{way}", marks, start)
                for what, marks in (("progress", _DECILES), ("bytes", _BYTES))
                for way in ("recv", "send")
            }
    return found


def _marks(
    lines: list[tuple[float, dict[str, dict[str, str]]]], key: str, marks: list[float], start: float
) -> dict[str, float]:
    """Return when each mark was reached or passed, by the first line that says so."""
    reached = {}
    for mark in marks:
        for ts, parts in lines:
            value = parts["bytes"][key]
            is_percent = value.endswith("%")
            if value != "?" and float(value.rstrip("%")) / (100 if is_percent else 1) >= mark:
                reached[str(mark)] = round(ts - start, 6)
                break
    return reached
