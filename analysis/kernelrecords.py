"""The kernel's part of a measurement as it stands in the database (docs/formats.md, "kernel")."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from perfmeasure.analysis import summaries
from perfmeasure.analysis.kernellinks import link
from perfmeasure.analysis.records import unique

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from perfmeasure.analysis.claims import Claim
    from perfmeasure.analysis.kernel import Collector, KernelConnection, KernelLog
    from perfmeasure.analysis.torlog import Circuit, TorLog
    from perfmeasure.analysis.transfers import Transfer

# The name of a number in the log, and here, where names end in the unit.
_COUNTS = {
    "bytes_received": "received_bytes",
    "bytes_sent": "sent_bytes",
    "retransmission_timeouts": "retransmission_timeouts",
    "retransmitted_segments": "retransmitted_segments",
    "segments_received": "received_segments",
    "segments_sent": "sent_segments",
}
_MICROSECONDS = {
    "minimum_rtt_us": "minimum_rtt_seconds",
    "smoothed_rtt_us": "smoothed_rtt_seconds",
}


class KernelPart:
    """What the kernel's log says of one measurement, linked to its transfers and circuits.

    Args:
        log: the connections.
        transfers: in the order of the database.
        tor: what tor's log says.
    """

    def __init__(self, log: KernelLog, transfers: Sequence[Transfer], tor: TorLog | None) -> None:
        self._log = log
        self._links = link(log, transfers, tor)
        self._conflux: dict[str, list[Circuit]] = {}
        for circuit in tor.circuits if tor else ():
            self._conflux.setdefault(circuit.conflux_id, []).append(circuit)

    def cut_to(
        self, begin: float, end: float, transfers: Sequence[int], tor: TorLog | None
    ) -> None:
        """Keep what ended from ``begin`` to before ``end``, and what is linked to what is kept.

        Of each, the other end is kept as well.

        Args:
            begin: Unix seconds.
            end: Unix seconds.
            transfers: places of the transfers that are kept.
            tor: what is kept of tor's log.
        """
        log, links = self._log, self._links
        links.transfers = [links.transfers[index] for index in transfers]
        if tor:
            kept: set[Any] = {*tor.circuits, *tor.connections}
            links.circuits = {c: claim for c, claim in links.circuits.items() if c in kept}
            links.or_connections = {
                c: claim for c, claim in links.or_connections.items() if c in kept
            }
        kept_connections = links.linked() | {
            c
            for c in log.connections
            if begin <= (c.last_ts if c.end_ts is None else c.end_ts) < end
        }
        kept_connections |= {links.peers.get(c, c) for c in kept_connections}
        log.connections = [c for c in log.connections if c in kept_connections]
        log.collectors = [run for run in log.collectors if run.begin < end and run.end >= begin]

    @functools.cached_property
    def _names(self) -> dict[KernelConnection, str]:
        """The connections that the database holds, by name.

        Of a collector that saw the whole machine, these are the connections of the programs that
        something is linked to. The rest is other people's, and only counted.
        """
        linked = self._links.linked()
        processes = {connection.process for connection in linked} - {None}
        kept = [
            connection
            for connection in self._log.connections
            if connection.collector.is_of_one_cgroup
            or connection in linked
            or connection.process in processes
        ]
        return dict(zip(kept, unique(str(connection.cookie) for connection in kept), strict=True))

    def connection_of(self, index: int) -> KernelConnection | None:
        """Return the connection that the transfer at this place is linked to."""
        claim = self._links.transfers[index]
        return claim.candidates[0] if claim.status == "linked" else None

    def add_to_transfers(
        self,
        records: Iterable[dict[str, Any]],
        transfers: Sequence[Transfer],
        circuits: Iterable[Circuit | None],
    ) -> None:
        """Add to the records of all transfers what the kernel knows of them."""
        for record, transfer, circuit, claim in zip(
            records, transfers, circuits, self._links.transfers, strict=True
        ):
            self._add(record["links"], "connection", claim)
            shares = [
                {"connection": self._names[guard], **share}
                for guard in (self._guards_of(circuit) if circuit else ())
                if (share := _share(guard, transfer))
            ]
            if shares:
                record["kernel"] = {"guards": shares}

    def _guards_of(self, circuit: Circuit) -> list[KernelConnection]:
        """Return tor's connections to the first relays of a circuit and its conflux set."""
        others = self._conflux[circuit.conflux_id] if circuit.conflux_id else []
        claims = (self._links.circuits.get(leg) for leg in (circuit, *others))
        linked = (claim.candidates[0] for claim in claims if claim and claim.status == "linked")
        return list(dict.fromkeys(linked))

    def add_to_tor(self, record: dict[str, Any], tor: TorLog) -> None:
        """Name the connections of the kernel in the ``tor`` of the nickname."""
        for circuit, entry in zip(tor.circuits, record["circuits"].values(), strict=True):
            if claim := self._links.circuits.get(circuit):
                self._add(entry, "guard_connection", claim)
        for connection, entry in zip(
            tor.connections, record["or_connections"].values(), strict=True
        ):
            if claim := self._links.or_connections.get(connection):
                self._add(entry, "connection", claim)

    def _add(self, record: dict[str, Any], field: str, claim: Claim[KernelConnection]) -> None:
        record[f"{field}_status"] = claim.status
        if claim.status == "linked":
            record[field] = self._names[claim.candidates[0]]

    def section(self) -> dict[str, Any]:
        """Return the ``kernel`` of the nickname."""
        links = self._links
        others: dict[Collector, int] = {}
        for connection in self._log.connections:
            if connection not in self._names:
                others[connection.collector] = others.get(connection.collector, 0) + 1
        return {
            "accounting": [_run_record(run, others.get(run, 0)) for run in self._log.collectors],
            "connections": {
                name: self._record(connection) for connection, name in self._names.items()
            },
            "links": {
                "circuits": summaries.count_statuses(links.circuits.values()),
                "or_connections": summaries.count_statuses(links.or_connections.values()),
                "transfers": summaries.count_statuses(links.transfers),
            },
        }

    def _record(self, connection: KernelConnection) -> dict[str, Any]:
        is_complete = connection.end_ts is not None
        start = connection.first_ts if connection.start_ts is None else connection.start_ts
        peer = self._links.peers.get(connection)
        optional: dict[str, Any] = {
            "boot_id": connection.collector.boot_id or None,
            "cgroup_id": connection.numbers.get("cgroup_id"),
            "command": connection.command or None,
            "elapsed_seconds": _elapsed(connection),
            "end": connection.end or None,
            "peer": self._names.get(peer) if peer else None,
            "pid": connection.numbers.get("pid"),
            "unix_ts_end": connection.end_ts,
            "unix_ts_last": None if is_complete else connection.last_ts,
        }
        return {
            **connection.ends._asdict(),
            **_numbers(connection.numbers),
            "existed_before_start": connection.existed_before_start,
            "family": connection.family,
            "is_complete": is_complete,
            "netns": connection.netns,
            "side": connection.side,
            "unix_ts_start": start,
            **{name: value for name, value in optional.items() if value is not None},
        }


def nothing() -> dict[str, Any]:
    """Return the ``kernel`` of a nickname of whose connections there is no record."""
    none = {
        kind: summaries.count_statuses([]) for kind in ("circuits", "or_connections", "transfers")
    }
    return {"accounting": [], "connections": {}, "links": none}


def _elapsed(connection: KernelConnection) -> dict[str, float] | None:
    """Return the stamps in seconds since the begin, None if that was not seen."""
    began_ns = connection.began_ns
    if began_ns is None:
        return None
    return {name: (ns - began_ns) / 1e9 for name, ns in connection.stamps.items()}


def _numbers(numbers: Mapping[str, int]) -> dict[str, float]:
    return {
        **{_COUNTS[name]: n for name, n in numbers.items() if name in _COUNTS},
        **{_MICROSECONDS[name]: n / 1e6 for name, n in numbers.items() if name in _MICROSECONDS},
    }


def _share(guard: KernelConnection, transfer: Transfer) -> dict[str, float] | None:
    """Return what passed between the snapshots around a transfer, None if the first is missing."""
    found = guard.share(transfer.start, transfer.end)
    if found is None:
        return None
    before, after = found
    counted = {
        name: number - before.numbers[name] if name in _COUNTS else number
        for name, number in after.numbers.items()
        if name in before.numbers or name not in _COUNTS
    }
    return {"unix_ts_start": before.unix_ts, "unix_ts_end": after.unix_ts, **_numbers(counted)}


def _run_record(run: Collector, others: int) -> dict[str, Any]:
    """Return the record of one run of the collector."""
    facts = run.started._asdict() if run.started else {}
    facts.pop("host", None)  # the nickname says it, where the user wants it to
    return {
        **{name: value for name, value in facts.items() if value},
        "lost": run.lost,
        "others_connections": others,
        "unix_ts_end": run.end,
        "unix_ts_start": run.begin,
    }
