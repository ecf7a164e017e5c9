"""What OnionPerf 3.1 makes of a torctl log, worked out the slow way: stem takes each event apart.

An independent statement of its rules, to compare with; only for logs in which no number of a
circuit or stream comes again.
"""

from __future__ import annotations

from typing import Any

from stem.response import ControlMessage, convert

_HS = {"HS_CLIENT_INTRO", "HS_CLIENT_REND", "HS_SERVICE_INTRO", "HS_SERVICE_REND"}
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
