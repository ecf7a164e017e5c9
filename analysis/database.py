"""The database, perfmeasure-1.0: built from what the parsers found, loaded and saved.

`Measurement` holds one nickname's findings as objects; `build` turns them into the document of
docs/formats.md. An object's name is its number, and ``#2``, ``#3`` … when the number comes again;
references between them are by that name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from perfmeasure import jsonio
from perfmeasure.analysis import kernelrecords, servers, summaries
from perfmeasure.analysis.compression import BLOCK_BYTES, compress, plain_blocks
from perfmeasure.analysis.join import join
from perfmeasure.analysis.kernelrecords import KernelPart
from perfmeasure.analysis.phases import phases
from perfmeasure.analysis.records import unique
from perfmeasure.errors import InputError, PerfmeasureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from perfmeasure.analysis.join import Link
    from perfmeasure.analysis.kernel import KernelLog
    from perfmeasure.analysis.servers import ServerMatch
    from perfmeasure.analysis.torlog import Circuit, Connection, Gap, Guard, Stream, TorLog
    from perfmeasure.analysis.transfers import TgenLog, Transfer
    from perfmeasure.analysis.windows import WindowsLog

TYPE = "perfmeasure"
VERSION = "1.0"

Packets = Callable[[dict[str, Any], list[str]], list[str]]
"""Adds to the transfers of a nickname how many packets are on disk, which only the recorder knows.
Takes its part of the document and its measurements' folders; returns why some, or all, lack."""


@dataclasses.dataclass
class Measurement:
    """What was found out about one nickname. Each log may be missing.

    ``roots`` are the folders of its measurements.
    """

    measurement_ip: str
    roots: set[str] = dataclasses.field(default_factory=set)
    tgen: TgenLog | None = None
    tor: TorLog | None = None
    kernel: KernelLog | None = None
    windows: WindowsLog | None = None
    _links: list[Link] = dataclasses.field(default_factory=list)
    _servers: list[ServerMatch] | None = None  # None without a server's log
    _kernel: KernelPart | None = None

    def link(self, answered: Sequence[Transfer] = ()) -> None:
        """Sort the transfers by their start, and link each to what the other logs say of it.

        ``answered`` is what the logs of servers say.
        """
        transfers = self.tgen.transfers if self.tgen else []
        transfers.sort(key=lambda transfer: (transfer.start, transfer.base_id))
        self._links = join(transfers, self.tor.streams if self.tor else ())
        self._servers = servers.match(transfers, answered) if answered else None
        if self.kernel and self.kernel.collectors:
            self._kernel = KernelPart(self.kernel, transfers, self.tor)

    def cut_to(self, begin: float, end: float) -> None:
        """Keep what ended from ``begin`` to before ``end`` (Unix seconds), and what it refers to.

        What has not ended counts as of its last sign of life.
        """
        streams: set[Stream] = set()
        kept: list[int] = []
        if self.tgen:
            kept = [
                index
                for index, transfer in enumerate(self.tgen.transfers)
                if begin <= transfer.end < end
            ]
            self._links = [self._links[index] for index in kept]
            self.tgen.transfers = [self.tgen.transfers[index] for index in kept]
            if self._servers is not None:
                self._servers = [self._servers[index] for index in kept]
            for link in self._links:
                streams.update((link.stream,) if link.stream else link.candidates)
        if self.tor:
            _cut_tor(self.tor, begin, end, streams)
        if self._kernel:
            self._kernel.cut_to(begin, end, kept, self.tor)
        if self.windows:
            self.windows.cut_to(begin, end)

    def record(self) -> dict[str, Any]:
        """Return the nickname's part of the document."""
        document: dict[str, Any] = {"measurement_ip": self.measurement_ip}
        names = _Names(self.tor) if self.tor else None
        if self.tgen:
            transfers = self.tgen.transfers
            records = {
                name: _transfer_record(name, transfer, link, names)
                for name, transfer, link in zip(
                    unique(t.base_id for t in transfers), transfers, self._links, strict=True
                )
            }
            for index, record in enumerate(records.values()):
                connection = self._kernel.connection_of(index) if self._kernel else None
                stream = self._links[index].stream
                record["phases"] = phases(transfers[index], stream, connection)
            if self._kernel:
                circuits = [link.circuit for link in self._links]
                self._kernel.add_to_transfers(records.values(), transfers, circuits)
            summary = summaries.transfers_summary(transfers, self._links)
            if self._servers is not None:
                for record, found in zip(records.values(), self._servers, strict=True):
                    record["server"] = found.record()
                summary["servers"] = summaries.count_statuses(self._servers)
            document["tgen"] = {"transfers": records, "transfers_summary": summary}
        if self.tor and names:
            document["tor"] = _tor_record(self.tor, names)
            if self._kernel:
                self._kernel.add_to_tor(document["tor"], self.tor)
        if self._kernel:
            document["kernel"] = self._kernel.section()
        if self.windows:
            kernel = document.setdefault("kernel", kernelrecords.nothing())
            kernel["windows_summary"] = self.windows.record()
        return document


def _cut_tor(log: TorLog, begin: float, end: float, streams: set[Stream]) -> None:
    """Do what `Measurement.cut_to` says; ``streams`` are referred to by transfers."""
    circuits: set[Circuit] = set()
    log.streams = [s for s in log.streams if begin <= s.last_seen < end or s in streams]
    for stream in log.streams:
        for circuit in (stream.circuit, stream.succeeded_on, stream.sent_on):
            if circuit:
                circuits.add(circuit)
    log.circuits = [c for c in log.circuits if begin <= c.last_seen < end or c in circuits]
    log.guards = [
        g
        for g in log.guards
        if min(g.times.values(), default=0) < end and g.times.get("dropped_ts", end) >= begin
    ]
    log.connections = [
        c for c in log.connections if c.first_seen < end and (c.ended or end) >= begin
    ]
    log.bytes_read = {s: n for s, n in log.bytes_read.items() if begin <= s < end}
    log.bytes_written = {s: n for s, n in log.bytes_written.items() if begin <= s < end}
    log.gaps = [gap for gap in log.gaps if gap.begin < end and (gap.end or end) >= begin]


class _Names:
    """The name of each stream and circuit in the database."""

    def __init__(self, log: TorLog) -> None:
        self.streams: dict[Stream, str] = dict(
            zip(log.streams, unique(str(s.number) for s in log.streams), strict=True)
        )
        self.circuits: dict[Circuit, str] = dict(
            zip(log.circuits, unique(str(c.number) for c in log.circuits), strict=True)
        )


def _transfer_record(
    name: str, transfer: Transfer, link: Link, names: _Names | None
) -> dict[str, Any]:
    links: dict[str, Any] = {"status": link.status}
    if names and link.stream:
        links["stream"] = names.streams[link.stream]
        if circuit := link.circuit:
            links["circuit"] = names.circuits[circuit]
            if guard := circuit.guard_fingerprint:
                links["guard"] = guard
    elif names and link.candidates:
        links["candidates"] = [names.streams[stream] for stream in link.candidates]
    return {**transfer.record, "transfer_id": name, "links": links}


def _tor_record(log: TorLog, names: _Names) -> dict[str, Any]:
    sets: dict[str, list[str]] = {}
    for circuit, name in names.circuits.items():
        if circuit.conflux_id:
            sets.setdefault(circuit.conflux_id, []).append(name)
    return {
        "bandwidth_summary": summaries.bandwidth_summary(log),
        "circuits": {
            name: _circuit_record(circuit, sets.get(circuit.conflux_id, []))
            for circuit, name in names.circuits.items()
        },
        "circuits_summary": summaries.circuits_summary(log),
        "gaps": [_gap_record(gap) for gap in log.gaps],
        "guards": [_guard_record(guard, guard.times) for guard in log.guards],
        "or_connections": {
            name: _connection_record(connection)
            for connection, name in zip(
                log.connections, unique(c.number for c in log.connections), strict=True
            )
        },
        "streams": {name: _stream_record(stream, names) for stream, name in names.streams.items()},
        "streams_summary": summaries.streams_summary(log),
    }


def _since(start: float, events: Iterable[tuple[str, float]]) -> list[list[Any]]:
    return [[name, ts - start] for name, ts in events]


def _circuit_record(circuit: Circuit, conflux_circuits: list[str]) -> dict[str, Any]:
    start = circuit.start if circuit.start is not None else circuit.first_seen
    record: dict[str, Any] = {
        "circuit_id": circuit.number,
        "cbt_set": circuit.is_cbt_set,
        "elapsed_seconds": _since(start, circuit.events),
        "is_complete": circuit.ended is not None,
        "unix_ts_start": start,
    }
    optional: dict[str, Any] = {
        "build_quantile": circuit.build_quantile,
        "build_timeout": circuit.build_timeout_ms,
        "buildtime_seconds": None if circuit.built is None else circuit.built - start,
        "conflux_circuits": conflux_circuits or None,
        "current_guards": [_guard_record(*known) for known in circuit.current_guards] or None,
        "failure_reason_local": circuit.failure_reason_local or None,
        "failure_reason_remote": circuit.failure_reason_remote or None,
        "path": [[hop] if ts is None else [hop, ts - start] for hop, ts in circuit.path] or None,
        "unix_ts_end": circuit.ended,
    }
    record.update((key, value) for key, value in optional.items() if value is not None)
    return record


def _stream_record(stream: Stream, names: _Names) -> dict[str, Any]:
    start = stream.started if stream.started is not None else stream.first_seen
    record: dict[str, Any] = {
        "elapsed_seconds": _since(start, stream.events),
        "is_complete": stream.ended is not None,
        "stream_id": stream.number,
        "target": stream.target,
        "unix_ts_start": start,
    }
    optional: dict[str, Any] = {
        "circuit_id": names.circuits[stream.circuit] if stream.circuit else None,
        "failure_reason_local": stream.failure_reason_local or None,
        "failure_reason_remote": stream.failure_reason_remote or None,
        "source": stream.source or None,
        "unix_ts_end": stream.ended,
    }
    record.update((key, value) for key, value in optional.items() if value is not None)
    return record


def _gap_record(gap: Gap) -> dict[str, Any]:
    fields = {
        "unix_ts_start": gap.begin,
        "unix_ts_end": gap.end,
        "lost_entries": gap.lost_entries,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _guard_record(guard: Guard, times: dict[str, float]) -> dict[str, Any]:
    record = {"fingerprint": guard.fingerprint, "nickname": guard.nickname, **times}
    return {**record, "country": guard.country} if guard.country else record


def _connection_record(connection: Connection) -> dict[str, Any]:
    record: dict[str, Any] = {
        "elapsed_seconds": _since(connection.first_seen, connection.events),
        "endpoint": connection.endpoint,
        "is_complete": connection.ended is not None,
        "unix_ts_start": connection.first_seen,
    }
    if connection.ended is not None:
        record["unix_ts_end"] = connection.ended
    return record


def build(
    measurements: dict[str, Measurement], meta: dict[str, Any], packets: Packets | None = None
) -> dict[str, Any]:
    """Return the document of several nicknames."""
    data = {nickname: found.record() for nickname, found in measurements.items()}
    if packets is not None:
        for nickname, found in measurements.items():
            meta["sources"][nickname]["absent"] += [
                {"what": "packets", "reason": reason}
                for reason in packets(data[nickname], sorted(found.roots))
            ]
    return {"type": TYPE, "version": VERSION, "meta": meta, "data": data}


def load(path: Path) -> dict[str, Any]:
    """Read a JSON document, compressed or not.

    Raises:
        InputError: it cannot be read, is cut short, or is no JSON object.
    """

    def cut_short(reason: str) -> None:
        raise InputError(str(path), reason, "a whole file", "fetch or write it again")

    try:
        with path.open("rb") as file:
            text = b"".join(plain_blocks(_blocks_of(file), cut_short))
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "a database") from error
    document = jsonio.loads(text, str(path))
    if not isinstance(document, dict):
        raise InputError(str(path), "JSON, but no object", "a database")
    return document


def _blocks_of(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block


def save(document: dict[str, Any], path: Path) -> None:
    """Write a document in canonical form, compressed as ``path`` ends; whole or not at all.

    Raises:
        UsageError: ``path`` is a folder or a device.
        PerfmeasureError: it cannot be written; nothing is left behind.
    """
    save_bytes(compress(jsonio.canonical(document), path.suffix), path)


def save_bytes(data: bytes, path: Path) -> None:
    """Write a file whole or not at all.

    Raises:
        UsageError: ``path`` is a folder or a device.
        PerfmeasureError: it cannot be written; nothing is left behind.
    """
    if path.exists() and not path.is_file():
        raise UsageError(str(path), "is not a plain file", "a file to write, or a new name")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        has_folder = path.parent.is_dir()
        raise PerfmeasureError(
            str(path),
            f"cannot be written ({error.strerror})",
            next_step=("free some space" if has_folder else "make its folder")
            + ", or write elsewhere with -o",
        ) from error
