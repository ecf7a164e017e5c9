"""Links each transfer to its Tor stream, circuit and guard: by source port and time, never guessed.

A transfer's SOCKS connection is one stream, whose SOURCE_ADDR has the transfer's local port.
Ports come again, so the time has to fit too:

1. A stream that began within the transfer's time is a candidate.
2. For a transfer with none, so is one that began at most `SLACK_SECONDS` outside of it and is no
   candidate of another by rule 1: stamps may be rounded to 10 ms, and some readers write late.

The link is made when the transfer has one candidate, and no other transfer has that one as well.
"""

from __future__ import annotations

import bisect
import dataclasses
from typing import TYPE_CHECKING

from perfmeasure.analysis.claims import settle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perfmeasure.analysis.claims import Claim
    from perfmeasure.analysis.torlog import Circuit, Stream
    from perfmeasure.analysis.transfers import Transfer

SLACK_SECONDS = 5.0
"""How far outside a transfer's time the stamp of its stream may lie."""


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """What a transfer is linked to. ``status`` is ``linked``, ``ambiguous`` or ``unmatched``."""

    status: str
    stream: Stream | None = None
    candidates: tuple[Stream, ...] = ()

    @property
    def circuit(self) -> Circuit | None:
        """The circuit that carried the stream: where it succeeded last, else was last tried."""
        if self.stream is None:
            return None
        return self.stream.succeeded_on or self.stream.sent_on or self.stream.circuit


def join(transfers: Sequence[Transfer], streams: Iterable[Stream]) -> list[Link]:
    """Return the link of each transfer, in their order."""
    by_port: dict[int, list[tuple[float, int, Stream]]] = {}
    for index, stream in enumerate(streams):
        port = stream.source_port
        if port and stream.started is not None:
            by_port.setdefault(port, []).append((stream.started, index, stream))
    for entries in by_port.values():
        entries.sort(key=lambda entry: entry[:2])

    def near(transfer: Transfer, slack_seconds: float) -> list[Stream]:
        entries = by_port.get(transfer.source_port, [])
        first = bisect.bisect_left(entries, transfer.start - slack_seconds, key=lambda e: e[0])
        last = bisect.bisect_right(entries, transfer.end + slack_seconds, key=lambda e: e[0])
        return [stream for _, _, stream in entries[first:last]]

    return [_link(claim) for claim in settle(transfers, near, SLACK_SECONDS)]


def _link(claim: Claim[Stream]) -> Link:
    if claim.status == "linked":
        return Link(claim.status, claim.candidates[0])
    return Link(claim.status, candidates=claim.candidates)
