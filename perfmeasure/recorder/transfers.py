"""The transfers and circuits of a database, as connections whose packets a store may hold.

A transfer is asked for by its connection to tor, from its start to the end of both, and by the
connections of tor to the first relays of its circuit, from its start to its end. What the kernel
saw of a connection tells both ends; without that, the generator's own endpoints do, and the
connections to relays are not known. Times are Unix nanoseconds in a store, seconds in a database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from perfmeasure.errors import InputError
from perfmeasure.recorder import absence
from perfmeasure.recorder.answer import write_answer
from perfmeasure.recorder.catalogue import NAME, Catalogue, Transfer, used_by
from perfmeasure.recorder.comments import Comments
from perfmeasure.recorder.expression import of_connections
from perfmeasure.recorder.keys import address_bytes, connection4_text
from perfmeasure.recorder.segment import OPEN_SUFFIX, Segment, scan, segment_path
from perfmeasure.recorder.store import Counts, Store
from perfmeasure.units import utc_date

_TCP = 6
_SLACK_NS = 50_000_000
"""How far the packets of a connection may lie outside of what is known of its time: a stamp is made
a little before or after what it is about."""

_UNKNOWN = (None, address_bytes("0.0.0.0"), address_bytes("::"))  # noqa: S104 - TGen's for none

_Record = Mapping[str, Any]


# ---- from a database to connections -------------------------------------------------------------


def connections_of(node: _Record) -> Iterator[Transfer]:
    """Yield the connections of the transfers and circuits of a nickname.

    A measurement is the UTC day on which a transfer or circuit ended: names begin anew with each
    day's database, and what is known of a day is replaced as a whole.

    Args:
        node: the nickname's part of a perfmeasure-1.0 database.
    """
    connections = node.get("kernel", {}).get("connections", {})
    circuits = node.get("tor", {}).get("circuits", {})
    for name, transfer in node.get("tgen", {}).get("transfers", {}).items():
        yield from _of_transfer(name, transfer, circuits, connections)
    for name, circuit in circuits.items():
        guard = connections.get(circuit.get("guard_connection"))
        if guard is not None:
            begin, end = circuit["unix_ts_start"], _end_of(circuit)
            yield Transfer(utc_date(end), "", name, _key(guard), _ns(begin), _ns(end))


def _of_transfer(
    name: str, transfer: _Record, circuits: _Record, connections: _Record
) -> Iterator[Transfer]:
    begin, end = transfer["unix_ts_start"], _end_of(transfer)
    day = utc_date(end)
    circuit = transfer["links"].get("circuit", "")
    own = connections.get(transfer["links"].get("connection"))
    key = _key(own) if own is not None else _key_of_endpoints(transfer)
    if key is not None:
        first, last = begin, end
        if own is not None:
            first, last = min(first, own["unix_ts_start"]), max(last, own.get("unix_ts_end", last))
        yield Transfer(day, name, circuit, key, _ns(first) - _SLACK_NS, _ns(last) + _SLACK_NS)
    legs = circuits.get(circuit, {}).get("conflux_circuits", ())
    for leg in dict.fromkeys((circuit, *legs)):
        guard = connections.get(circuits.get(leg, {}).get("guard_connection"))
        if guard is not None:
            yield Transfer(day, name, leg, _key(guard), _ns(begin), _ns(end))


def _end_of(record: _Record) -> float:
    """Return when a transfer or circuit ended, or else the last that is known of it."""
    if "unix_ts_end" in record:
        return float(record["unix_ts_end"])
    begin, elapsed = record["unix_ts_start"], record["elapsed_seconds"]
    if isinstance(elapsed, Mapping):
        inner = [times.values() for times in elapsed.values() if isinstance(times, Mapping)]
        seconds = [value for values in inner for value in values]
    else:
        seconds = [value for _, value in elapsed]
    return float(begin + max(seconds, default=0.0))


def _ns(unix_ts: float) -> int:
    return round(unix_ts * 1e6) * 1000


def _key(connection: _Record) -> str:
    return _key_of(
        (connection["local_ip"], connection["local_port"]),
        (connection["remote_ip"], connection["remote_port"]),
    )


def _key_of(*ends: tuple[str, int]) -> str:
    packed = [(address_bytes(ip) or bytes(16), port) for ip, port in ends]
    return connection4_text(_TCP, *sorted(packed))


def _key_of_endpoints(transfer: _Record) -> str | None:
    """Return the key of a transfer's connection by what the generator says, if it knows both."""
    proxy = transfer["endpoint_proxy"]
    other = transfer["endpoint_remote"] if proxy.startswith("NULL") else proxy
    ends = []
    for endpoint in (transfer["endpoint_local"], other):
        _, _, rest = endpoint.partition(":")
        ip, _, port = rest.rpartition(":")
        address = address_bytes(ip)
        if address in _UNKNOWN or not port.isdigit() or port == "0":
            return None
        ends.append((ip, int(port)))
    return _key_of(*ends)


# ---- what a store holds of them -----------------------------------------------------------------


def add_packets(node: dict[str, Any], roots: Iterable[str]) -> list[str]:
    """Add to each transfer how many of its packets are on disk, and enter it in the catalogues.

    ``packets`` of a transfer is ``count``, ``bytes`` (captured ones), and ``lost``, where packets
    were lost while the segments were recorded that the count looked at.

    Args:
        node: a nickname's part of a perfmeasure-1.0 database.
        roots: the data directories of its measurements, whose stores are asked.

    Returns:
        Why there are no packets, or not all.
    """
    stores, reasons = _stores(Path(root) / absence.PACKETS for root in roots if root)
    if not stores:
        return reasons or ["no packets/ beside the logs"]
    rows = list(connections_of(node))
    totals: dict[str, Counts] = {}
    for folder in stores:
        try:
            _enter(folder, rows)
        except InputError as error:  # who may only read the store can count
            reasons.append(_said(error))
    try:
        for folder in stores:
            _count(folder, rows, totals)
    except InputError as error:
        return [*reasons, _said(error)]
    for name, transfer in node.get("tgen", {}).get("transfers", {}).items():
        counts = totals.get(name, Counts())
        transfer["packets"] = {"count": counts.packets, "bytes": counts.bytes}
        if counts.drops:
            transfer["packets"]["lost"] = counts.drops
    return reasons


def _stores(folders: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the folders that are stores, and why nothing was recorded where that was noted."""
    stores, reasons = [], []
    for folder in folders:
        if (folder / NAME).exists():
            stores.append(folder)
        try:
            why = absence.reason(folder)
        except InputError as error:
            why = _said(error)
        if why is not None:
            reasons.append(why)
    return stores, reasons


def _said(error: InputError) -> str:
    """Return the error without the place on this machine, which is nobody's concern."""
    return f"{absence.PACKETS}/{Path(error.where).name}: {error.got}"


def _open_segments(store: Store) -> list[Segment]:
    """Return what another process is writing, read once and not for every transfer."""
    found = []
    for entry in store.entries():
        if entry.is_open:
            path = segment_path(store.folder, entry.summary, OPEN_SUFFIX)
            # One that was begun or closed just now is found, or not yet needed.
            with contextlib.suppress(FileNotFoundError, InputError):
                found.append(scan(path, entry.summary)[0])
    return found


def _enter(folder: Path, rows: Sequence[Transfer]) -> None:
    """Enter what is known into the catalogue of a store.

    Raises:
        InputError: it cannot be written.
    """
    catalogue = Catalogue(folder, is_writer=True)
    try:
        catalogue.put_transfers(rows)
    finally:
        catalogue.close()


def _count(folder: Path, rows: Sequence[Transfer], totals: dict[str, Counts]) -> None:
    """Add what a store holds to the totals.

    Raises:
        InputError: the store cannot be used.
    """
    store = Store(folder)
    store.open_segments = _open_segments(store)
    try:
        for name, used in _by_name(rows).items():
            counts = totals.setdefault(name, Counts())
            found = store.count(of_connections(used_by(used)))
            counts.packets += found.packets
            counts.bytes += found.bytes
            counts.drops += found.drops
    finally:
        store.close()


def _by_name(rows: Iterable[Transfer]) -> dict[str, list[Transfer]]:
    found: dict[str, list[Transfer]] = {}
    for row in rows:
        if row.id:
            found.setdefault(row.id, []).append(row)
    return found


# ---- and its packets ----------------------------------------------------------------------------


class TransferPackets:
    """Writes the packets of transfers to files, as a query for ``transfer ID`` does.

    Args:
        folder: of the store.
        node: a nickname's part of a perfmeasure-1.0 database, whose transfers are entered in the
            store's catalogue.

    Raises:
        InputError: there is no store.
    """

    def __init__(self, folder: Path, node: _Record) -> None:
        self._rows = _by_name(connections_of(node))
        self._store = Store(folder)
        self._store.open_segments = _open_segments(self._store)
        self._comments = Comments(folder)

    def write(self, name: str, path: Path) -> Counts:
        """Write the packets of a transfer; say how many there were.

        Raises:
            InputError: a segment does not hold what its index says.
            PerfmeasureError: the file cannot be written.
        """
        counts = Counts()
        node = of_connections(used_by(self._rows.get(name, ())))
        write_answer(self._store.packets(node, counts), path, self._comments)
        return counts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._comments.__exit__(*error)
        self._store.close()
