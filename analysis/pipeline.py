"""From paths to one database: find the logs, pair them, parse, link, build."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import perfmeasure
from perfmeasure import jsonio
from perfmeasure.analysis import (
    connections,
    database,
    guards,
    scans,
    source,
    tgen,
    torctl,
    windows,
)
from perfmeasure.analysis.source import Kind
from perfmeasure.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from perfmeasure.analysis.geoip import CountryTable
    from perfmeasure.analysis.kernel import KernelLog
    from perfmeasure.analysis.remote import RemotePath
    from perfmeasure.analysis.scan import FactsOf
    from perfmeasure.analysis.scans import Prepare
    from perfmeasure.analysis.source import Input
    from perfmeasure.analysis.torlog import TorLog
    from perfmeasure.analysis.transfers import TgenLog, Transfer
    from perfmeasure.analysis.windows import WindowsLog

_DAY_SECONDS = 86400
_REASONS_SHOWN = 5
_SAID = ("absent", "clock_steps", "generators", "tor_versions")  # of the sources, in meta


@dataclasses.dataclass
class _Pair:
    """The client's logs of one measurement folder, the kernel's, and what its server answered."""

    tgen: TgenLog | None = None
    tor: TorLog | None = None
    kernel: KernelLog | None = None
    windows: WindowsLog | None = None
    answered: list[Transfer] = dataclasses.field(default_factory=list)

    @property
    def host(self) -> str:
        """The host that the logs name, fit to be a key, or nothing."""
        hosts = (log.host for log in (self.tgen, self.tor, self.kernel) if log and log.host)
        host = next(hosts, "")
        return re.sub(r"[^A-Za-z0-9._-]", "-", host)


def analyze(
    paths: Sequence[Path | RemotePath],
    *,
    nickname: str | None = None,
    measurement_ip: str | None = None,
    date: str | None = None,
    host: dict[str, Any] | None = None,
    geoip: Sequence[CountryTable] = (),
    packets: database.Packets | None = None,
    prepare: Prepare = scans.live,
) -> dict[str, Any]:
    """Return the perfmeasure-1.0 database of the logs in ``paths``.

    Args:
        paths: log files, folders with logs in them, or ``-`` for standard input.
        nickname: the key of ``data``; without it, the host that the logs name.
        measurement_ip: the address that the measurement was made from.
        date: keep only what ended on that UTC day, ``YYYY-MM-DD``. Logs of other days are not
            read, except the neighbouring ones, in which such transfers may have begun.
        host: facts about the measuring host, for ``meta``.
        geoip: tables to look up the countries of guards in; the first that has it is believed.
        packets: counts the packets of transfers; without it they are not counted.
        prepare: how logs are scanned (`scans.prepared`); it makes no difference to the result.

    Raises:
        InputError: none of the paths holds a log that we know.
        UsageError: ``date`` is no date.
    """
    work = _Work(
        paths,
        nickname=nickname,
        measurement_ip=measurement_ip,
        date=date,
        host=host,
        geoip=geoip,
        packets=packets,
        prepare=prepare,
    )
    return work.document(work.known, work.others)


def analyze_each(
    paths: Sequence[Path | RemotePath],
    *,
    nickname: str | None = None,
    measurement_ip: str | None = None,
    date: str | None = None,
    geoip: Sequence[CountryTable] = (),
    prepare: Prepare,
) -> Iterator[dict[str, Any]]:
    """Yield a database for each nickname, so that only one of them is in memory at a time.

    What `analyze` takes from one nickname for another is missing: the answers of servers that have
    a measurement folder of their own. If folders turn out to have the same nickname, there is a
    document of the first, and later one of all of them, which then counts. A document without data
    tells of logs that are of no nickname. ``prepare`` has to allow facts to be read again.
    Arguments and errors are those of `analyze`.
    """
    work = _Work(
        paths,
        nickname=nickname,
        measurement_ip=measurement_ip,
        date=date,
        host=None,
        geoip=geoip,
        prepare=prepare,
    )
    roots: dict[str, list[Input]] = {}
    for log in work.known:
        roots.setdefault("" if nickname else log.root, []).append(log)
    with_name: dict[str, list[Input]] = {}
    for root in sorted(roots):
        document = work.document(roots[root], ())
        name = next(iter(document["data"]), "")
        if name and name not in with_name:
            yield document
        with_name.setdefault(name, []).extend(roots[root])
    # What is of no nickname, a server's logs, is told of all the same.
    nameless = with_name.pop("", [])
    yield work.document(nameless, work.others)
    for logs in with_name.values():
        if len({log.root for log in logs}) > 1 and not nickname:
            yield work.document(logs, ())


class _Work:
    """What was asked for, and the logs that were found."""

    def __init__(
        self,
        paths: Sequence[Path | RemotePath],
        *,
        nickname: str | None,
        measurement_ip: str | None,
        date: str | None,
        host: dict[str, Any] | None,
        geoip: Sequence[CountryTable],
        prepare: Prepare,
        packets: database.Packets | None = None,
    ) -> None:
        self._nickname = nickname
        self._measurement_ip = measurement_ip or "unknown"
        self._date = date
        self._host = host
        self._geoip = geoip
        self._packets = packets
        self._day = _day(date) if date else None
        logs = source.find(paths)
        self.known = [log for log in logs if log.kind in source.LOGS]
        if not self.known:
            raise _unknown(paths, logs)
        self.others = [log for log in logs if log.kind not in source.LOGS]
        if self._day:
            self.known = _near(self.known, self._day)
        self._places = {id(log): place for place, log in enumerate(logs)}
        self._facts_of = prepare(self.known)

    def document(self, known: Sequence[Input], others: Sequence[Input]) -> dict[str, Any]:
        """Return the database of some of the logs, in which ``others`` are told of, too."""
        with jsonio.no_garbage_collection():
            measurements, sources = _read(
                known, self._nickname, self._measurement_ip, self._day, self._facts_of
            )
            told = sorted((*known, *others), key=lambda log: self._places[id(log)])
            meta: dict[str, Any] = {
                "tool": "perfmeasure",
                "tool_version": perfmeasure.__version__,
                "inputs": [_input_record(log) for log in told],
                "sources": sources,
            }
            if self._geoip:
                logs = [found.tor for found in measurements.values() if found.tor]
                meta["geoip"] = guards.find_countries(logs, self._geoip)
            if self._host:
                meta["host"] = self._host
            if self._date:
                meta["date"] = self._date
            return database.build(measurements, meta, self._packets)


def _day(date: str) -> tuple[float, float]:
    try:
        begin = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise UsageError("date", f"{date!r} is not a day", "YYYY-MM-DD") from error
    return begin, begin + _DAY_SECONDS


def _near(logs: list[Input], day: tuple[float, float]) -> list[Input]:
    """Leave out the logs that end a day before ``day`` or begin a day after it.

    A log ends where the next of its instance begins, so that nothing has to be unpacked to know.
    """
    begin, end = day[0] - _DAY_SECONDS, day[1] + _DAY_SECONDS
    kept = []
    for index, log in enumerate(logs):
        following = (
            other.first_unix_ts
            for other in logs[index + 1 :]
            if (other.root, other.kind, other.side) == (log.root, log.kind, log.side)
        )
        if log.first_unix_ts < end and next(following, begin) >= begin:
            kept.append(log)
    return kept


def _read(
    logs: Sequence[Input],
    nickname: str | None,
    measurement_ip: str,
    day: tuple[float, float] | None,
    facts_of: FactsOf,
) -> tuple[dict[str, database.Measurement], dict[str, Any]]:
    """Parse, pair and link. Return the measurements and their sources, by nickname."""
    instances: dict[tuple[str, Kind, str], list[Input]] = {}
    for log in logs:
        instances.setdefault((log.root, log.kind, log.side), []).append(log)
    pairs: dict[str, _Pair] = {}
    for (root, kind, side), files in sorted(instances.items()):
        pair = pairs.setdefault(root, _Pair())
        if kind is Kind.TGEN:
            _add_tgen(pair, files, side, facts_of)
        elif kind is Kind.TORCTL:
            _add_tor(pair, files, side, facts_of)
        elif kind is Kind.WINDOWS:
            pair.windows = windows.read_logs(files, facts_of)
        else:
            pair.kernel = connections.read_logs(files, facts_of)
    measurements: dict[str, database.Measurement] = {}
    sources: dict[str, Any] = {}
    for root, pair in pairs.items():
        if pair.tgen or pair.tor or pair.kernel or pair.windows:
            name = nickname or pair.host or "unknown"
            found = measurements.setdefault(name, database.Measurement(measurement_ip))
            found.roots.add(root)
            _add_pair(found, pair, sources.setdefault(name, {what: [] for what in _SAID}))
    # The server may have a folder, or a machine, of its own.
    answered = [transfer for pair in pairs.values() for transfer in pair.answered]
    for name, found in measurements.items():
        sources[name]["absent"] = _absent(found)
        found.link(answered)
        if day:
            found.cut_to(*day)
    return measurements, sources


def _add_pair(found: database.Measurement, pair: _Pair, said: dict[str, list[Any]]) -> None:
    """Add the logs of one folder to its nickname's, and to what is ``said`` about them."""
    said["clock_steps"] += _clock_steps(pair)
    if pair.tgen:
        found.tgen = _merged_tgen(found.tgen, pair.tgen)
        said["generators"] += [
            g for g in (pair.tgen.program,) if g not in ("", *said["generators"])
        ]
    if pair.tor:
        found.tor = _merged_tor(found.tor, pair.tor)
        said["tor_versions"] += [v for v in pair.tor.tor_versions if v not in said["tor_versions"]]
    if pair.kernel and found.kernel:
        found.kernel.add(pair.kernel)
    else:
        found.kernel = found.kernel or pair.kernel
    if pair.windows and found.windows:
        found.windows.add(pair.windows)
    else:
        found.windows = found.windows or pair.windows


def _clock_steps(pair: _Pair) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "unix_ts": step.unix_ts,
            "seconds": step.seconds,
            "from": "stamps" if step.is_from_stamps else "pairs",
        }
        for kind, log in (("tgen", pair.tgen), ("torctl", pair.tor), ("connections", pair.kernel))
        for step in (log.clock_steps if log else ())
    ]


def _add_tgen(pair: _Pair, files: list[Input], side: str, facts_of: FactsOf) -> None:
    log = tgen.read_logs(files, facts_of)
    # What it did counts, not what it is called: only a server never begins a stream.
    is_server = not log.transfers and (log.passive_count > 0 or side == "server")
    for file in files:
        file.side = "server" if is_server else "client"
    pair.answered += log.answered
    if not is_server:
        pair.tgen = _merged_tgen(pair.tgen, log)


def _add_tor(pair: _Pair, files: list[Input], side: str, facts_of: FactsOf) -> None:
    log = torctl.read_logs(files, facts_of)
    is_client = any(stream.source_port for stream in log.streams)
    is_server = not is_client and side == "server"
    for file in files:
        file.side = "server" if is_server else "client"
    if not is_server:
        pair.tor = _merged_tor(pair.tor, log)


def _merged_tgen(first: TgenLog | None, second: TgenLog) -> TgenLog:
    if first is None:
        return second
    first.transfers += second.transfers
    first.passive_count += second.passive_count
    return first


def _merged_tor(first: TorLog | None, second: TorLog) -> TorLog:
    if first is None:
        return second
    first.streams += second.streams
    first.circuits += second.circuits
    first.guards += second.guards
    first.connections += second.connections
    first.gaps += second.gaps
    for mine, other in (
        (first.bytes_read, second.bytes_read),
        (first.bytes_written, second.bytes_written),
    ):
        for second_, count in other.items():
            mine[second_] = mine.get(second_, 0) + count
    return first


def _absent(found: database.Measurement) -> list[dict[str, str]]:
    """Return what the database lacks of the kernel's facts, and why."""
    said = found.kernel.absent if found.kernel else []
    reasons = {
        "connections": said if found.kernel else ["no kernel/connections.log among the logs"],
        "windows": said if found.windows or said else ["no kernel/windows among the logs"],
    }
    return [{"what": what, "reason": reason} for what, why in reasons.items() for reason in why]


def _input_record(log: Input) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": log.name,
        "kind": str(log.kind),
    }
    if log.kind is Kind.UNKNOWN:
        return {**record, "looks_like": log.looks_like}
    if log.kind is Kind.EMPTY:
        return record
    counts = log.counts
    side = {} if log.kind in {Kind.CONNECTIONS, Kind.WINDOWS} else {"side": log.side}
    return {
        **record,
        **side,
        "is_in_data": log.side != "server" or log.kind is Kind.TGEN,
        "size_bytes": log.size_bytes,
        "sha256": log.sha256,
        "unix_ts_first": log.first_unix_ts,
        "unix_ts_last": log.last_unix_ts,
        "lines": {
            "total": counts.lines,
            "used": counts.used,
            "skipped": counts.skipped,
            "rejected": dict(sorted(counts.rejected.items())),
        },
        "rejected_first": [f"{log.name}:{number}: {why}" for number, why in counts.examples],
    }


def _unknown(paths: Sequence[Path | RemotePath], logs: list[Input]) -> InputError:
    where = ", ".join(str(path) for path in paths)
    wanted = "logs of TGen (or perfmeasure's generator), Tor's control port or the kernel"
    if not logs:
        names = "tgen.log, torctl.log or connections.log"
        return InputError(where, f"no file with {names} in its name", wanted)
    seen = "; ".join(f"{log.name} is {log.looks_like}" for log in logs[:_REASONS_SHOWN])
    if len(logs) > _REASONS_SHOWN:
        seen += f"; and {len(logs) - _REASONS_SHOWN} more"
    return InputError(where, f"no log that is known: {seen}", wanted)
