"""Matches each transfer of a client to what the server's log says of it: the far end's times.

The server calls a transfer by the client's name, and by its count (before 1.0) or its vertex. What
goes by the same name, is of the same size, and overlaps in time is a candidate; for a transfer
with none, so is what lies at most `SLACK_SECONDS` outside of it and is no candidate of another,
since two machines' clocks differ. A match is made when there is one candidate, which no other
transfer has as well; else it is ambiguous, and said.
"""

from __future__ import annotations

import bisect
import dataclasses
from typing import TYPE_CHECKING, Any

from perfmeasure.analysis.claims import settle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perfmeasure.analysis.claims import Claim
    from perfmeasure.analysis.transfers import Transfer

SLACK_SECONDS = 1.0
"""How far outside of the transfer's time that of the server may lie."""

_KEPT = (
    "error_code", "is_error", "is_success", "total_bytes_read", "total_bytes_write",
    "unix_ts_end", "unix_ts_start",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class ServerMatch:
    """What the server knows. ``status`` is ``linked``, ``ambiguous`` or ``unmatched``."""

    status: str
    answered: Transfer | None = None
    candidates: int = 0

    def record(self) -> dict[str, Any]:
        """Return the ``server`` section of the transfer."""
        if self.answered is None:
            section: dict[str, Any] = {"status": self.status}
            if self.candidates:
                section["candidates"] = self.candidates
            return section
        record = self.answered.record
        return {
            "status": self.status,
            "hostname": record["hostname_local"],
            **{field: record[field] for field in _KEPT},
            "elapsed_seconds": {
                step: seconds
                for step, seconds in record["elapsed_seconds"].items()
                if not step.endswith(("_recv", "_send"))
            },
        }


def match(transfers: Sequence[Transfer], answered: Iterable[Transfer]) -> list[ServerMatch]:
    """Return the match of each transfer, in their order."""
    by_name: dict[tuple[object, ...], list[Transfer]] = {}
    for transfer in answered:
        by_name.setdefault(_name(transfer), []).append(transfer)
    longest: dict[tuple[object, ...], float] = {}
    for name, entries in by_name.items():
        entries.sort(key=lambda entry: (entry.start, entry.end, entry.source_port, entry.base_id))
        longest[name] = max(entry.end - entry.start for entry in entries)

    def near(transfer: Transfer, slack_seconds: float) -> list[Transfer]:
        name = _name(transfer)
        entries = by_name.get(name, [])
        earliest = transfer.start - slack_seconds
        # Sorted by start: those that began too early to reach us are passed over at once.
        first = bisect.bisect_left(entries, earliest - longest.get(name, 0), key=lambda e: e.start)
        last = bisect.bisect_right(entries, transfer.end + slack_seconds, key=lambda e: e.start)
        return [entry for entry in entries[first:last] if entry.end >= earliest]

    return [_match(claim) for claim in settle(transfers, near, SLACK_SECONDS)]


def _name(transfer: Transfer) -> tuple[object, ...]:
    return (*transfer.call_sign, transfer.record["filesize_bytes"])


def _match(claim: Claim[Transfer]) -> ServerMatch:
    if claim.status == "linked":
        return ServerMatch(claim.status, claim.candidates[0])
    return ServerMatch(claim.status, candidates=len(claim.candidates))
