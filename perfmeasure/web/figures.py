"""The figures of the page as files of the docroot: a few for each day, one for each year.

::

    figures/index.json                  the days that there are
    figures/YYYY.json                   a summary of each day of the year
    figures/YYYY-MM-DD/day.json         the points of the day's curves
    figures/YYYY-MM-DD/transfers-N.json what there is to see of transfers N · 100 and following

A publication writes those of its day and brings the year up to date, so that it costs the same
after years. docs/formats.md has the fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perfmeasure import jsonio
from perfmeasure.errors import InputError

FOLDER = "figures"
INDEX_NAME = f"{FOLDER}/index.json"
TRANSFERS_PER_FILE = 100

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")


def files_of_days(
    docroot: Path,
    days: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], Sequence[Any]]],
) -> dict[str, bytes]:
    """Return the files to publish, by name, the index last.

    Args:
        docroot: where those of the other days are.
        days: by date the points, the summary and the transfers of the day
            (`perfmeasure.analysis.dayfigures.DayFigures`).
    """
    files = {}
    for date, (points, summary, transfers) in sorted(days.items()):
        chunks = range(0, len(transfers), TRANSFERS_PER_FILE)
        for number, begin in enumerate(chunks):
            chunk = transfers[begin : begin + TRANSFERS_PER_FILE]
            files[f"{FOLDER}/{date}/transfers-{number}.json"] = _file("transfers", transfers=chunk)
        files[f"{FOLDER}/{date}/day.json"] = _file(
            "day",
            date=date,
            nicknames=points,
            summary=summary,
            transfers=len(transfers),
            transfers_per_file=TRANSFERS_PER_FILE,
        )
    dates = sorted({*published_dates(docroot), *days})
    for year in sorted({date[:4] for date in days}):
        new = {date: summary for date, (_, summary, _) in days.items() if date[:4] == year}
        files[f"{FOLDER}/{year}.json"] = _year(docroot, year, dates, new)
    files[INDEX_NAME] = _file("index", days=dates)
    return files


def published_dates(docroot: Path) -> list[str]:
    """Return the days of which there are figures, in order."""
    return sorted(
        path.parent.name
        for path in (docroot / FOLDER).glob("*/day.json")
        if _DATE.match(path.parent.name)
    )


def published_transfers(docroot: Path, date: str) -> dict[str, list[dict[str, Any]]]:
    """Return the transfers of a day that are published, by the name of their file."""
    found = {}
    for path in sorted((docroot / FOLDER / date).glob("transfers-*.json")):
        transfers = _read(path).get("transfers")
        if isinstance(transfers, list):
            found[f"{FOLDER}/{date}/{path.name}"] = transfers
    return found


def without_packets(docroot: Path, date: str) -> dict[str, bytes]:
    """Return the files of a day's transfers, by name, as they are once no packets are there."""
    files = {}
    for name, transfers in published_transfers(docroot, date).items():
        for transfer in transfers:
            transfer.pop("packets_file", None)
        files[name] = _file("transfers", transfers=transfers)
    return files


def _year(docroot: Path, year: str, dates: Iterable[str], new: Mapping[str, Any]) -> bytes:
    """Return the summaries of a year; one that is damaged or lacks a day is made from the days."""
    known = _read(docroot / FOLDER / f"{year}.json").get("days", {})
    days = {}
    for date in dates:
        if date[:4] != year:
            continue
        if date in new:
            days[date] = new[date]
        elif date in known:
            days[date] = known[date]
        else:
            days[date] = _read(docroot / FOLDER / date / "day.json").get("summary", {})
    return _file("year", year=year, days=days)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = jsonio.loads(path.read_bytes(), str(path))
    except (OSError, InputError):
        return {}
    return document if isinstance(document, dict) else {}


def _file(kind: str, **content: Any) -> bytes:
    return jsonio.canonical({"type": f"perfmeasure-figures-{kind}", "version": "1.0", **content})
