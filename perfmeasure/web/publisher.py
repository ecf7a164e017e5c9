"""Publishes files into the docroot: a day's database, the indexes and the page.

`python -m perfmeasure.web.publisher` publishes one day. `measure` runs it as a process of its own,
so that the analysis of a day never delays a stamp or an HTTP client.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import lzma
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfmeasure import cli, jsonio
from perfmeasure.errors import InputError, UsageError
from perfmeasure.hostinfo import host_info
from perfmeasure.logfile import compress_archive
from perfmeasure.units import format_seconds, utc_date
from perfmeasure.web import figures, index, packetfiles
from perfmeasure.web.files import METRICS_NAME
from perfmeasure.web.staging import Staging, explained, locked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from perfmeasure.analysis.statistics import DestinationSummary

_SOURCES = ("tgen-client", "tgen-server", "tor-client", "tor-server", "kernel", "services")
_DAYS_AT_ONCE = 30
"""Of so many days figures are made in one publication; what is left, in the next."""
_DATED_DATABASE = re.compile(r"(\d{4}-\d\d-\d\d)\.perfmeasure\.analysis\.json\.xz\Z")


@dataclass(frozen=True)
class Published:
    """What one publication did.

    Args:
        written: names of the files that are new or have new bytes, in the order of appearance.
        unchanged: names of files that were there already with the same bytes.
        unlisted: names of files in the docroot that no index can hold.
    """

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    unlisted: tuple[str, ...]


def publish(
    docroot: Path,
    files: Mapping[str, bytes | Path],
    *,
    latest_date: str | None = None,
    removed: Collection[str] = (),
) -> Published:
    """Put files into the docroot, then bring the indexes and the page up to date.

    All of it is on the disk before the first file appears. Files appear whole, in the order
    given; the indexes come last, so they never name a file that is not there. With no files at
    all, only the page and the indexes are brought up to date.

    Args:
        docroot: the folder; made if missing.
        files: by name (a path from the docroot, with slashes) the bytes, or a file to copy.
            Text that shrinks gets a compressed sibling, ``NAME.gz``.
        latest_date: the UTC day that ``latest.json`` among the files holds.
        removed: names of files to remove, which is done last: no index names them any more.

    Raises:
        MeasurementError: the disk is full or fails; what was there before is unchanged.
    """
    with explained(docroot):
        docroot.mkdir(parents=True, exist_ok=True)
        with locked(docroot):
            done = _publish_locked(docroot, files, latest_date, removed)
            for name in removed:
                (docroot / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    (docroot / name).parent.rmdir()  # if that was the last
            return done


def _publish_locked(
    docroot: Path,
    files: Mapping[str, bytes | Path],
    latest_date: str | None,
    removed: Collection[str],
) -> Published:
    state = index.State.load(docroot)
    published = index.scan(docroot, state.records)
    for name in removed:
        published.pop(name, None)
    day = state.latest_date if latest_date is None else latest_date
    with Staging(docroot, published) as staging:
        for name, content in files.items():
            staging.add(name, content)
        if figures.INDEX_NAME not in {*files, *published}:
            for name, content in figures.files_of_days(docroot, {}).items():
                staging.add(name, content)
        if index.STATUS_NAME not in published:
            staging.add(index.STATUS_NAME, index.NO_STATUS, may_pack=False)
        for name in index.page_names():
            if name not in index.INDEX_NAMES:
                staging.add(name, index.page_file(name))
        records, unlisted = index.listed({**published, **staging.records}.values())
        staging.add("index.json", index.index_json(records))
        staging.add("index.xml", index.index_xml(records))
        staging.add("index.html", index.page_html(records, day))
        trusted = {name: old for name, old in published.items() if state.records.get(name) == old}
        known = {**index.settled(published.values()), **trusted, **staging.records}
        written = tuple(staging.records)
        staging.add(index.STATE_NAME, index.State(day, known).dump())
        staging.commit()
        return Published(written, tuple(staging.unchanged), tuple(unlisted))


def publish_day(
    prefix: Path,
    docroot: Path,
    date: str,
    *,
    nickname: str | None = None,
    measurement_ip: str | None = None,
    exclude_cbt: bool = False,
    is_over: bool = True,
    since_unix_ts: float = 0.0,
    packets_budget_bytes: int | None = None,
) -> dict[str, Any]:
    """Compress what was rotated, analyse one UTC day's logs, publish its databases.

    The logs are those in ``log_archive`` of that day and its neighbours (a transfer may span
    midnight) and the live ones. ``latest.json`` is replaced unless a later day is in it.

    Args:
        prefix: the measurement's folder.
        docroot: the folder that is served.
        date: the day, ``YYYY-MM-DD``.
        nickname: key of the data; without it, the host in the logs.
        measurement_ip: the address that the measurement was made from.
        exclude_cbt: in OnionPerf's database, mark the circuits that were built before a build
            timeout was learned as filtered out.
        is_over: publish the dated files too. A program that collects them takes each once, so
            a day that goes on is better published as ``latest.json`` only.
        since_unix_ts: summarise the transfers that began from then on.
        packets_budget_bytes: publish the packets of the day's transfers, too, in so many bytes for
            all days together; without it no packet is published.

    Returns:
        ``date``; ``written`` and ``unchanged``, names of files; ``transfers_count``,
        ``successes_count`` and ``linked_count`` of the summarised transfers; ``summary``, text for
        people; ``warnings``, a list of sentences; ``seconds``.

    Raises:
        InputError: there is no log that we know, or none of that day.
        UsageError: ``date`` is no date.
        MeasurementError: the disk is full or fails; what was published before is unchanged.
    """
    # Here, not above: only this function needs the analysis, and `publish` is quick to import.
    from perfmeasure.analysis import onionperf, pipeline, statistics  # noqa: PLC0415
    from perfmeasure.recorder.absence import PACKETS  # noqa: PLC0415
    from perfmeasure.recorder.transfers import add_packets  # noqa: PLC0415

    began = time.monotonic()
    warnings = _compress(prefix / "log_archive")
    document = pipeline.analyze(
        _paths_of_day(prefix, date),
        nickname=nickname,
        measurement_ip=measurement_ip,
        date=date,
        host=host_info(),
        packets=add_packets,
    )
    if not any("lines" in log for log in document["meta"]["inputs"]):
        raise InputError(str(prefix), f"no log of {date} or a day beside it", "a day with logs")
    text = jsonio.canonical(document)
    files: dict[str, bytes | Path] = {}
    if is_over:
        for_collectors = onionperf.to_3_1(document)
        if exclude_cbt:
            _exclude_cbt(for_collectors)
        files[f"{date}.perfmeasure.analysis.json.xz"] = _xz(text)
        files[f"{date}.onionperf.analysis.json.xz"] = _xz(jsonio.canonical(for_collectors))
    if date >= _latest_date(docroot):
        files[index.LATEST_NAME] = text
        if topology := _topology(document):
            files[index.TOPOLOGY_NAME] = jsonio.canonical(topology)
            files[METRICS_NAME] = _metrics(prefix, date, topology)
    latest_date = date if index.LATEST_NAME in files else None
    days = _days(docroot, date, document)
    with packetfiles.prepared(
        docroot, prefix / PACKETS, date, (document, days[date][2]), packets_budget_bytes
    ) as packets:
        warnings += packets.problems
        files |= packets.files | figures.files_of_days(docroot, days)
        published = publish(docroot, files, latest_date=latest_date, removed=packets.removed)
    found = statistics.describe(document, since_unix_ts)
    warnings += [f"{name!r} has a name that no index can hold" for name in published.unlisted]
    return {
        "date": date,
        "written": published.written,
        "unchanged": published.unchanged,
        "transfers_count": found.count,
        "successes_count": found.successes,
        "linked_count": sum(kind.linked for kind in found.destinations.values()),
        "summary": _summary(found.destinations, docroot, date),
        "warnings": warnings + _rejections(document),
        "seconds": time.monotonic() - began,
    }


def _days(
    docroot: Path, date: str, document: Mapping[str, Any]
) -> dict[str, tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]]:
    """Return what the page shows of a day, and of days that were published before it did so.

    By date it is as `figures.files_of_days` takes it.
    """
    from perfmeasure.analysis import database, dayfigures  # noqa: PLC0415

    documents = {date: document}
    known = {date, *figures.published_dates(docroot)}
    for path in docroot.glob("*.perfmeasure.analysis.json.xz"):
        match = _match_dated(path)
        if match is not None and match[1] not in known and len(documents) < _DAYS_AT_ONCE:
            with contextlib.suppress(InputError):
                documents[match[1]] = database.load(path)
    days = {}
    for day, of_day in documents.items():
        found = dayfigures.day_figures(of_day, day)
        days[day] = (found.points, found.summary, found.transfers)
    return days


def _topology(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the topology of a day as a document of its own, None if there is none."""
    from perfmeasure.analysis import graph, topologymerge  # noqa: PLC0415 - as above

    sections = [node["topology"] for node in document["data"].values() if "topology" in node]
    return graph.enveloped(topologymerge.merge(sections)) if sections else None


def _metrics(prefix: Path, date: str, topology: Mapping[str, Any]) -> bytes:
    """Return the day's services and connections, and their topology, for who scrapes them."""
    from perfmeasure.analysis import topologysource  # noqa: PLC0415 - as above
    from perfmeasure.topology import exposition  # noqa: PLC0415 - the same

    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        # What of the logs cannot be used has been told of by the analysis.
        topologysource.read_rows(_paths_of_day(prefix, date), Path(place), say=lambda _: None)
        return exposition.of_tables(Path(place), topology)


def _xz(text: bytes) -> bytes:
    # Preset 1 packs a database to 1.2 times the size of preset 6 in a tenth of the time.
    return lzma.compress(text, preset=1)


def _paths_of_day(prefix: Path, date: str) -> list[Path]:
    try:
        day = dt.date.fromisoformat(date)
    except ValueError as error:
        raise UsageError("--date", f"{date!r} is not a day", "YYYY-MM-DD") from error
    days = [day + dt.timedelta(offset) for offset in (-1, 0, 1)]
    folders = [prefix / "log_archive" / f"{near}" for near in days]
    folders += [prefix / source for source in _SOURCES]
    # With no folder at all, the analysis says what is missing.
    return [folder for folder in folders if folder.is_dir()] or [prefix]


def _compress(archive: Path) -> list[str]:
    """Compress rotated logs; what fails is said and can wait, for plain logs are read as well."""
    try:
        compress_archive(archive)
    except OSError as error:
        return [f"{error.filename or archive}: cannot be compressed ({error.strerror})"]
    return []


def _latest_date(docroot: Path) -> str:
    """Return the newest day published, or nothing; days of a clock that ran ahead do not count."""
    dates = {index.State.load(docroot).latest_date}
    if docroot.is_dir():
        dates |= {match[1] for path in docroot.iterdir() if (match := _match_dated(path))}
    return max((date for date in dates if date <= utc_date(time.time())), default="")


def _match_dated(path: Path) -> re.Match[str] | None:
    return _DATED_DATABASE.match(path.name)


def _exclude_cbt(document: dict[str, Any]) -> None:
    for node in document["data"].values():
        for circuit in node["tor"].get("circuits", {}).values():
            circuit["filtered_out"] = not circuit.get("cbt_set", False)


def _rejections(document: Mapping[str, Any]) -> list[str]:
    said = []
    for log in document["meta"]["inputs"]:
        rejected = sum(log.get("lines", {}).get("rejected", {}).values())
        if rejected:
            said.append(f"{log['name']}: {rejected} lines could not be used")
    return said


def _summary(found: Mapping[str, DestinationSummary], docroot: Path, date: str) -> str:
    """Return what a person wants to know: counts, errors, times, and where the files are."""
    lines = []
    for kind, of in found.items():
        lines.append(
            f"by {kind}: {of.count} transfers, {of.successes} succeeded, "
            f"{of.linked} linked to their Tor stream and circuit"
        )
        failed = ", ".join(f"{count} {code}" for code, count in of.errors.items())
        if failed:
            lines.append(f"  failed: {failed}")
        if of.incomplete:
            lines.append(f"  not ended: {of.incomplete}")
        for name, times in (("first", of.first_byte), ("last", of.last_byte)):
            if times is not None:
                median = format_seconds(times.median_seconds)
                percentile_95 = format_seconds(times.percentile_95_seconds)
                lines.append(f"  time to {name} byte: median {median}, 95 % {percentile_95}")
    lines = lines or ["no transfers"]
    return "\n".join([*lines, f"databases: {docroot}/{date}.*, {docroot}/{index.LATEST_NAME}"])


@click.command("publisher")
@click.option("--prefix", required=True, type=click.Path(path_type=Path), help="Data folder.")
@click.option("--docroot", required=True, type=click.Path(path_type=Path), help="Served folder.")
@click.option("--date", required=True, metavar="YYYY-MM-DD", help="UTC day to publish.")
@click.option("--nickname", help="Key of the data; without it, the host in the logs.")
@click.option("--address", help="Address that the measurement was made from.")
@click.option("--exclude-cbt", is_flag=True, help="Mark circuits of no learned build timeout.")
@click.option("--unfinished", is_flag=True, help="The day goes on: publish latest.json only.")
@click.option("--packets-budget", type=int, metavar="BYTES", help="Publish packets, in this space.")
@click.option("--since", type=float, default=0.0, help="Summarise transfers from this time on.")
def publisher_command(
    prefix: Path,
    docroot: Path,
    date: str,
    nickname: str | None,
    address: str | None,
    *,
    exclude_cbt: bool,
    unfinished: bool,
    since: float,
    packets_budget: int | None,
) -> None:
    """Publish one UTC day, and print one line of JSON that says what was done."""
    result = publish_day(
        prefix,
        docroot,
        date,
        nickname=nickname,
        measurement_ip=address,
        exclude_cbt=exclude_cbt,
        is_over=not unfinished,
        since_unix_ts=since,
        packets_budget_bytes=packets_budget,
    )
    click.echo(jsonio.compact(result))


if __name__ == "__main__":
    sys.exit(cli.run(sys.argv[1:], publisher_command))
