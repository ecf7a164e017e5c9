"""Tor's entry guards, from the events of its control port, and where they are.

No event tells a guard's fingerprint and its address together, but these lines tell a relay's:

- ``STREAM … NEW 0 ADDRESS.$FINGERPRINT.exit:PORT PURPOSE=DIR_FETCH …``: tor asks it as a directory,
  which a client does of its guards;
- ``r NICKNAME IDENTITY [DIGEST] DATE TIME ADDRESS ORPORT DIRPORT`` in the events NEWCONSENSUS and
  NS, where they were asked for (dir-spec, "r"; the identity is base64);
- ``[RELAY] $FINGERPRINT~NICKNAME ADDRESS:PORT …``, a note of our own reader;
- ``ORCONN ADDRESS:PORT LAUNCHED ID=N``, then ``ORCONN $FINGERPRINT… CONNECTED ID=N``: a bridge.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from perfmeasure.analysis.geoip import is_address
from perfmeasure.analysis.torlog import HOP, Guard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perfmeasure.analysis.events import GuardEvent, RelayNote, RelayStatus
    from perfmeasure.analysis.geoip import CountryTable
    from perfmeasure.analysis.torlog import TorLog

_TIMES = {"NEW": "new_ts", "UP": "up_ts", "DOWN": "down_ts", "DROPPED": "dropped_ts"}
_OF_LAYER_2 = frozenset({"GOOD_L2", "BAD_L2"})
_DIRECTORY = re.compile(r"(.+)\.(\$[0-9A-F]{40})\.exit:\d+\Z", re.IGNORECASE | re.ASCII)


class Launch(NamedTuple):
    """A moment at which guards are looked for; ``first`` is the oldest one not dropped by then."""

    ts: float
    first: int


class Guards:
    """Follows the guards of one tor. ``found`` takes each, in order of first mention."""

    def __init__(self, found: list[Guard]) -> None:
        self._found = found
        self._first = 0  # the oldest that is not dropped
        # By identity: the fingerprint in base64, as network statuses have it.
        self._current: dict[str, Guard] = {}
        self._addresses: dict[str, str] = {}

    def launch(self, ts: float) -> Launch:
        """Return what `current` needs to know of a circuit that is launched now."""
        while self._first < len(self._found) and "dropped_ts" in self._found[self._first].times:
            self._first += 1
        return Launch(ts, self._first)

    def current(self, launch: Launch) -> list[tuple[Guard, dict[str, float]]]:
        """Return the guards that were up at a launch, with their times as known now.

        By their stamps, as OnionPerf does, which may be the same for many lines.
        """
        return [
            (guard, guard.times)
            for guard in self._found[launch.first :]
            if guard.times.get("up_ts", launch.ts + 1) <= launch.ts
            and guard.times.get("dropped_ts", launch.ts + 1) > launch.ts
        ]

    def event(self, ts: float, event: GuardEvent) -> None:
        """Take a GUARD event. Of each kind the first one of a guard counts."""
        if event.kind != "ENTRY" or event.status in _OF_LAYER_2:
            return
        identity = _identity(event.fingerprint)
        guard = self._current.get(identity)
        if guard is None:
            guard = self._current[identity] = Guard(event.fingerprint, event.nickname)
            guard.address = _text(self._addresses.get(identity, ""))
            self._found.append(guard)
        name = _TIMES.get(event.status)
        if name and name not in guard.times:
            guard.times = {**guard.times, name: ts}  # a new one: circuits keep the old one
        if event.status == "DROPPED":
            del self._current[identity]

    def directory(self, target: str) -> None:
        """Take the target of a stream by which tor asks a directory."""
        if match := _DIRECTORY.match(target):
            self._locate(_identity(match[2][1:]), match[1])

    def status(self, status: RelayStatus) -> None:
        """Take a line of a network status."""
        self._locate(status.identity, status.address)

    def note(self, note: RelayNote) -> None:
        """Take what the reader noted of a relay; the first address is that of IPv4."""
        self._locate(_identity(note.fingerprint), note.endpoints[0].rpartition(":")[0])

    def connection(self, earlier_endpoint: str, endpoint: str) -> None:
        """Take what two events of one connection call its other end."""
        match = HOP.match(endpoint)
        if match and not earlier_endpoint.startswith("$"):
            self._locate(_identity(match[1]), earlier_endpoint.rpartition(":")[0])

    def _locate(self, identity: str, address: str) -> None:
        self._addresses[identity] = address
        if guard := self._current.get(identity):
            guard.address = _text(address) or guard.address


def _identity(fingerprint: str) -> str:
    return base64.b64encode(bytes.fromhex(fingerprint)).rstrip(b"=").decode()


def _text(address: str) -> str:
    """Return an address without its brackets, "" if it is none."""
    text = address.strip("[]")
    return text if is_address(text) else ""


def find_countries(logs: Iterable[TorLog], tables: Sequence[CountryTable]) -> dict[str, Any]:
    """Look up where the guards are, the first table that has an address being believed.

    Returns:
        What ``meta`` says of it: ``tables``, and how many guards' countries were found or why not.
    """
    counts = {"with_country": 0, "without_address": 0, "not_in_tables": 0}
    for log in logs:
        counted = set(log.guards)
        # A circuit may have begun before the day that was asked for, with the guards of then.
        for guard in counted.union(g for c in log.circuits for g, _ in c.current_guards):
            known = (table.country(guard.address) for table in tables if guard.address)
            guard.country = next(filter(None, known), "")
        for guard in counted:
            if guard.country:
                counts["with_country"] += 1
            else:
                counts["not_in_tables" if guard.address else "without_address"] += 1
    return {
        "tables": [{"name": table.name, "sha256": table.sha256} for table in tables],
        "guards": counts,
    }
