"""What a database, or many, say in a page of text: the figures, before anything is drawn."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from perfmeasure.analysis import filters, records
from perfmeasure.analysis.metrics import size_name
from perfmeasure.analysis.statistics import destination_kind, percentile
from perfmeasure.analysis.torlog import HOP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SLOWEST = 5
_GUARDS = 10


@dataclasses.dataclass
class Group:
    """The transfers of one size to one destination; times are of those that succeeded."""

    count: int = 0
    failures: int = 0
    incomplete: int = 0
    first_byte_seconds: list[float] = dataclasses.field(default_factory=list)
    last_byte_seconds: list[float] = dataclasses.field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the counts and the quantiles."""
        return {
            "transfers": self.count,
            "failures": self.failures,
            "incomplete": self.incomplete,
            "ttfb_seconds": _quantiles(self.first_byte_seconds),
            "ttlb_seconds": _quantiles(self.last_byte_seconds),
        }


class Report:
    """Collects what documents say, one by one."""

    def __init__(self) -> None:
        self._hosts: dict[str, dict[str, Any]] = {}
        self._span: list[float] = []
        self._groups: dict[tuple[str, int], Group] = defaultdict(Group)
        self._errors: Counter[str] = Counter()
        self._links: Counter[str] = Counter()
        self._phases: dict[str, list[float]] = defaultdict(list)
        self._slowest: list[dict[str, Any]] = []
        self._circuits: Counter[str] = Counter()
        self._build_seconds: list[float] = []
        self._guards: dict[str, dict[str, Any]] = {}
        self._retransmitted: dict[tuple[str, str], int] = {}
        self._notes: Counter[str] = Counter()

    @property
    def is_empty(self) -> bool:
        """Whether no document had a transfer or a circuit."""
        return not self._groups and not self._circuits

    def add(self, document: Mapping[str, Any]) -> None:
        """Take in one perfmeasure-1.0 document."""
        for nickname, node in sorted(document["data"].items()):
            source = document["meta"].get("sources", {}).get(nickname, {})
            host = self._hosts.setdefault(
                nickname, {"address": node["measurement_ip"], "tor": set(), "generators": set()}
            )
            host["tor"].update(source.get("tor_versions", ()))
            host["generators"].update(source.get("generators", ()))
            for missing in source.get("absent", ()):
                self._notes[f"{nickname}: no {missing['what']}: {missing['reason']}"] += 1
            for step in source.get("clock_steps", ()):
                del step
                self._notes[f"{nickname}: the clock was set"] += 1
            self._add_transfers(document, nickname, node)
            self._add_tor(nickname, node.get("tor", {}))
            for name, connection in node.get("kernel", {}).get("connections", {}).items():
                self._retransmitted[nickname, name] = connection.get("retransmitted_segments", 0)
        for log in document["meta"].get("inputs", ()):
            for reason, count in log.get("lines", {}).get("rejected", {}).items():
                self._notes[f"{log['name']}: lines rejected: {reason}"] += count

    def _add_transfers(
        self, document: Mapping[str, Any], nickname: str, node: Mapping[str, Any]
    ) -> None:
        transfers = node.get("tgen", {}).get("transfers", {})
        for name, transfer in records.in_order(transfers):
            if not filters.is_kept(document, node, transfer):
                self._notes["transfers that a filter left out"] += 1
                continue
            group = self._groups[destination_kind(transfer), transfer["filesize_bytes"]]
            group.count += 1
            self._span += [transfer["unix_ts_start"], transfer["unix_ts_end"]]
            self._links[transfer["links"]["status"]] += 1
            if not transfer["is_complete"]:
                group.incomplete += 1
            elif transfer["is_error"]:
                group.failures += 1
                self._errors[transfer["error_code"]] += 1
            else:
                self._add_success(group, nickname, name, transfer)
        self._slowest.sort(key=lambda each: -each["ttlb_seconds"])
        del self._slowest[_SLOWEST:]

    def _add_success(
        self, group: Group, nickname: str, name: str, transfer: Mapping[str, Any]
    ) -> None:
        elapsed = transfer["elapsed_seconds"]
        if "first_byte" in elapsed:
            group.first_byte_seconds.append(elapsed["first_byte"])
        if "last_byte" not in elapsed:
            return
        group.last_byte_seconds.append(elapsed["last_byte"])
        phases = transfer.get("phases") or {}
        for phase, seconds in phases.items():
            self._phases[phase].append(seconds)
        longest = max(phases, key=lambda phase: float(phases[phase]), default=None)
        self._slowest.append(
            {
                "nickname": nickname,
                "id": name,
                "unix_ts_start": transfer["unix_ts_start"],
                "ttlb_seconds": elapsed["last_byte"],
                "longest_phase": longest,
                "longest_phase_seconds": phases[longest] if longest else None,
            }
        )

    def _add_tor(self, nickname: str, tor: Mapping[str, Any]) -> None:
        for circuit in tor.get("circuits", {}).values():
            self._circuits["launched"] += 1
            if "buildtime_seconds" in circuit:
                self._circuits["built"] += 1
                if len(circuit.get("path", ())) == 3:
                    self._build_seconds.append(circuit["buildtime_seconds"])
            elif "failure_reason_local" in circuit:
                self._circuits[f"failed: {circuit['failure_reason_local']}"] += 1
            self._add_guard(circuit)
        for guard in tor.get("guards", ()):
            found = self._guards.setdefault(guard["fingerprint"], {"circuits": 0})
            for field in ("nickname", "country"):
                if field in guard:
                    found[field] = guard[field]
        for gap in tor.get("gaps", ()):
            del gap
            self._notes[f"{nickname}: tor's events have a gap"] += 1

    def _add_guard(self, circuit: Mapping[str, Any]) -> None:
        path = circuit.get("path")
        match = HOP.match(path[0][0]) if path else None
        if match:
            found = self._guards.setdefault(match[1].upper(), {"circuits": 0})
            found["circuits"] += 1

    def record(self) -> dict[str, Any]:
        """Return all of it, as ``report --json`` prints it."""
        used = [(name, guard) for name, guard in self._guards.items() if guard["circuits"]]
        used.sort(key=lambda each: (-each[1]["circuits"], each[0]))
        return {
            "hosts": {
                name: {key: sorted(v) if isinstance(v, set) else v for key, v in host.items()}
                for name, host in sorted(self._hosts.items())
            },
            "unix_ts_start": min(self._span, default=None),
            "unix_ts_end": max(self._span, default=None),
            "transfers": [
                {"destination": kind, "filesize_bytes": size, "size": size_name(size)}
                | group.record()
                for (kind, size), group in sorted(self._groups.items())
            ],
            "errors": dict(self._errors.most_common()),
            "links": dict(sorted(self._links.items())),
            "phases": dict(self._phase_records()),
            "slowest": self._slowest,
            "circuits": dict(sorted(self._circuits.items())),
            "build_seconds": _quantiles(self._build_seconds),
            "guards": [{"fingerprint": name, **guard} for name, guard in used[:_GUARDS]],
            "guards_used": len(used),
            "connections": len(self._retransmitted),
            "retransmitted_segments": sum(self._retransmitted.values()),
            "notes": dict(self._notes.most_common()),
        }

    def _phase_records(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield the share of each phase in all time, and its median, the longest first."""
        whole = sum(sum(seconds) for seconds in self._phases.values())
        for phase, seconds in sorted(self._phases.items(), key=lambda each: -sum(each[1])):
            if whole:
                yield (
                    phase,
                    {"share": sum(seconds) / whole, "median_seconds": percentile(seconds, 50)},
                )


def _quantiles(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {f"p{percent}": percentile(seconds, percent) for percent in (50, 90, 95)}
