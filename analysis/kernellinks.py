"""Links transfers, tor's connections to relays and circuits to connections of the kernel.

By address, port and process, and by time; never guessed (`claims`). In this order, since each step
tells what the next one needs:

1. The two ends of one TCP connection, where both are on this machine.
2. A transfer and its connection to the SOCKS port (without a proxy, to the server): by both ports
   and the begin. The process at the far end of a SOCKS connection is tor.
3. A connection of tor to a relay (ORCONN): one that tor's process began at that time, to the
   relay's address where the log tells it.
4. A circuit: tor's connection to its first relay that lived when the first hop was built.
"""

from __future__ import annotations

import bisect
import dataclasses
from typing import TYPE_CHECKING

from perfmeasure.analysis.claims import Claim, settle
from perfmeasure.analysis.torlog import HOP, address_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perfmeasure.analysis.kernel import KernelConnection, KernelLog
    from perfmeasure.analysis.torlog import Circuit, Connection, TorLog
    from perfmeasure.analysis.transfers import Transfer

SLACK_SECONDS = 1.0
"""How far the stamps of two sources about one moment may lie apart, if nothing lies nearer."""
NEAR_SECONDS = 0.05
"""How far they lie apart as a rule: a stamp is made a little after what it is about."""
PEER_SLACK_SECONDS = 5.0
"""The same for the two ends of a connection, of which the first SYN may have been lost."""

_NOT_AN_ADDRESS = frozenset({"", "0.0.0.0", "::", "NULL"})  # noqa: S104 - what TGen writes for none
Claimed = Claim["KernelConnection"]


@dataclasses.dataclass
class KernelLinks:
    """What belongs to which kernel connection. ``transfers`` is in the transfers' order.

    ``circuits`` has those that got as far as a relay, ``or_connections`` those that tor began.
    ``peers`` is the other end of a connection, where it was recorded as well.
    """

    peers: dict[KernelConnection, KernelConnection]
    transfers: list[Claimed]
    or_connections: dict[Connection, Claimed]
    circuits: dict[Circuit, Claimed]

    def linked(self) -> set[KernelConnection]:
        """Return every connection that something is linked to, or the other end of such a one."""
        claims = (*self.transfers, *self.or_connections.values(), *self.circuits.values())
        found = {claim.candidates[0] for claim in claims if claim.status == "linked"}
        return found | {self.peers[connection] for connection in found if connection in self.peers}


def link(kernel: KernelLog, transfers: Sequence[Transfer], tor: TorLog | None) -> KernelLinks:
    """Return the links of what one measurement's logs say."""
    peers = _peers(kernel.connections)
    claims = _transfers(kernel.connections, transfers)
    if tor is None:
        return KernelLinks(peers, claims, {}, {})
    tors = {
        peers[claim.candidates[0]].process
        for transfer, claim in zip(transfers, claims, strict=True)
        if claim.status == "linked" and _has_proxy(transfer) and claim.candidates[0] in peers
    }
    to_relays = _ToRelays(kernel.connections, tors - {None})
    or_connections = to_relays.or_connections(tor)
    return KernelLinks(peers, claims, or_connections, to_relays.circuits(tor, or_connections))


def _peers(connections: Sequence[KernelConnection]) -> dict[KernelConnection, KernelConnection]:
    by_ends: dict[object, list[KernelConnection]] = {}
    for connection in connections:
        if connection.side != "active":
            by_ends.setdefault(connection.ends, []).append(connection)

    def near(connection: KernelConnection, slack_seconds: float) -> list[KernelConnection]:
        others = by_ends.get(connection.ends.reversed(), [])
        begin = connection.start_ts
        return [
            other
            for other in others
            if other is not connection
            and (
                _overlap(connection, other)
                if begin is None or other.start_ts is None
                else abs(begin - other.start_ts) <= NEAR_SECONDS + slack_seconds
            )
        ]

    items = [connection for connection in connections if connection.side != "passive"]
    found = {
        item: claim.candidates[0]
        for item, claim in zip(items, settle(items, near, PEER_SLACK_SECONDS), strict=True)
        if claim.status == "linked"
    }
    return {**{other: item for item, other in found.items()}, **found}


def _overlap(one: KernelConnection, other: KernelConnection) -> bool:
    return one.lived_at(other.first_ts, other.last_ts) and other.lived_at(one.first_ts, one.last_ts)


def _has_proxy(transfer: Transfer) -> bool:
    return not transfer.record["endpoint_proxy"].startswith("NULL")


def _endpoint(text: str) -> tuple[str, int]:
    """Return the address (empty if unknown) and the port (0) of ``NAME:ADDRESS:PORT``."""
    address, port = address_of(text.partition(":")[2])
    return ("" if address in _NOT_AN_ADDRESS else address), port


def _transfers(
    connections: Iterable[KernelConnection], transfers: Sequence[Transfer]
) -> list[Claimed]:
    by_ports: dict[tuple[int, int], list[tuple[float, int, KernelConnection]]] = {}
    for index, found in enumerate(connections):
        if found.side != "passive":
            began = found.first_ts if found.start_ts is None else found.start_ts
            ports = (found.ends.local_port, found.ends.remote_port)
            by_ports.setdefault(ports, []).append((began, index, found))
    for entries in by_ports.values():
        entries.sort(key=lambda entry: entry[:2])

    def near(transfer: Transfer, slack_seconds: float) -> list[KernelConnection]:
        kind = "endpoint_proxy" if _has_proxy(transfer) else "endpoint_remote"
        address, port = _endpoint(transfer.record[kind])
        if not transfer.source_port or not port:
            return []
        entries = by_ports.get((transfer.source_port, port), [])
        earliest = transfer.start - NEAR_SECONDS - slack_seconds
        first = bisect.bisect_left(entries, earliest, key=lambda e: e[0])
        last = bisect.bisect_right(entries, transfer.end + slack_seconds, key=lambda e: e[0])
        return [c for _, _, c in entries[first:last] if address in {"", c.ends.remote_ip}]

    return settle(transfers, near, SLACK_SECONDS)


class _ToRelays:
    """The connections that may lead to relays: begun by tor, or where that is unknown by any."""

    def __init__(
        self, connections: Iterable[KernelConnection], tors: set[tuple[str, int] | None]
    ) -> None:
        self._is_tor_known = bool(tors)
        self._begun = [
            connection
            for connection in connections
            if connection.side != "passive" and (not tors or connection.process in tors)
        ]
        self._addresses: dict[str, set[tuple[str, int]]] = {}

    def or_connections(self, tor: TorLog) -> dict[Connection, Claimed]:
        """Return the claims of the connections that tor began."""
        for fingerprint, endpoints in tor.relays.items():
            self._addresses.setdefault(fingerprint, set()).update(endpoints)
        begun = [connection for connection in tor.connections if connection.events[0][0] != "NEW"]
        return dict(zip(begun, settle(begun, self._near, SLACK_SECONDS), strict=True))

    def circuits(
        self, tor: TorLog, or_connections: dict[Connection, Claimed]
    ) -> dict[Circuit, Claimed]:
        """Return the claims of the circuits that have a path."""
        for connection, claim in or_connections.items():
            hop = HOP.match(connection.endpoint)
            if hop and claim.status == "linked":
                ends = claim.candidates[0].ends
                address = (ends.remote_ip, ends.remote_port)
                self._addresses.setdefault(hop[1].upper(), set()).add(address)
        by_address: dict[tuple[str, int], list[KernelConnection]] = {}
        for found in self._begun if self._is_tor_known else ():
            by_address.setdefault((found.ends.remote_ip, found.ends.remote_port), []).append(found)
        claims = {}
        for circuit in tor.circuits:
            if not circuit.guard_fingerprint:
                continue
            extended = circuit.path[0][1]
            at = circuit.first_seen if extended is None else extended
            alive = tuple(
                found
                for address in sorted(self._addresses.get(circuit.guard_fingerprint, ()))
                for found in by_address.get(address, ())
                if found.lived_at(at, at)
            )
            status = ("unmatched", "linked", "ambiguous")[min(len(alive), 2)]
            claims[circuit] = Claim(status, alive)
        return claims

    def _near(self, connection: Connection, slack_seconds: float) -> list[KernelConnection]:
        hop = HOP.match(connection.endpoint)
        addresses = (
            self._addresses.get(hop[1].upper(), set()) if hop else {address_of(connection.endpoint)}
        )
        if not addresses and not self._is_tor_known:
            return []
        within = NEAR_SECONDS + slack_seconds
        seen = connection.first_seen
        is_begin_seen = connection.events[0][0] == "LAUNCHED"
        return [
            found
            for found in self._begun
            if (not addresses or (found.ends.remote_ip, found.ends.remote_port) in addresses)
            and (
                abs(found.start_ts - seen) <= within
                if is_begin_seen and found.start_ts is not None
                else found.lived_at(seen, seen)
            )
        ]
