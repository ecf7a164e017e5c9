"""A dataset: the databases that a file, a folder or a glob names, of any version, read one by one.

What is needed of each database is taken from it, and then it is let go: a year of days is never in
memory at once.
"""

from __future__ import annotations

import dataclasses
import glob
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure.analysis import database, filters, foreign, rows
from perfmeasure.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DATABASE = re.compile(r"(?P<name>.+?\.json)(\.(xz|gz|zst))?\Z")
_WANTED = "a database, a folder of databases, or a glob such as 'days/2026-*.json.xz'"
# A docroot holds each day as perfmeasure's and as OnionPerf's: the first that is there is taken.
_BY_PREFERENCE = (".perfmeasure.analysis.json", ".onionperf.analysis.json")
# What a docroot holds beside the days: the index, and a copy of the latest day.
_NOT_OF_A_DAY = frozenset({"latest.json", "index.json", "topology.json"})


@dataclasses.dataclass
class Dataset:
    """What `compare` and `visualize` look at, of one label.

    ``rows`` are those of `perfmeasure.analysis.rows`; ``incomplete`` and ``filtered_out`` count
    the transfers that have none. ``circuits`` counts the circuits that were built, ``cbt_unset``
    those of them that were launched before tor had learned its build timeout. ``hosts`` are the
    nicknames with their addresses, ``tor_versions`` what the logs name. ``build_seconds`` are of
    circuits of three hops, ``phase_seconds`` of the transfers that succeeded.
    """

    label: str
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    incomplete: int = 0
    filtered_out: int = 0
    circuits: int = 0
    cbt_unset: int = 0
    hosts: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    tor_versions: set[str] = dataclasses.field(default_factory=set)
    build_seconds: list[float] = dataclasses.field(default_factory=list)
    phase_seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, document: Mapping[str, Any]) -> None:
        """Take what is needed from one perfmeasure-1.0 document."""
        losses: Counter[str] = Counter()
        self.rows += rows.rows(document, losses)
        self.incomplete += losses[rows.NOT_ENDED]
        self.filtered_out += losses[rows.FILTERED_OUT]
        for nickname, node in document["data"].items():
            self.hosts.add((nickname, node.get("measurement_ip", "")))
            for circuit in node.get("tor", {}).get("circuits", {}).values():
                if "buildtime_seconds" in circuit and "filtered_out" not in circuit:
                    self.circuits += 1
                    self.cbt_unset += not circuit.get("cbt_set", False)
                    if len(circuit.get("path", ())) == 3:
                        self.build_seconds.append(circuit["buildtime_seconds"])
            for transfer in node.get("tgen", {}).get("transfers", {}).values():
                if transfer["is_success"] and filters.is_kept(document, node, transfer):
                    for phase, seconds in (transfer.get("phases") or {}).items():
                        self.phase_seconds.setdefault(phase, []).append(seconds)
        for source in document.get("meta", {}).get("sources", {}).values():
            self.tor_versions.update(source.get("tor_versions", ()))


def paths_of(place: str) -> list[Path]:
    """Return the databases that a path or a glob names, in the order of their names.

    Of a folder, with what is below it, these are the days that `measure` published; else those of
    OnionPerf; else every JSON file. What is there plain and compressed is taken once.

    Raises:
        InputError: there is none.
    """
    path = Path(place)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = _in_folder(path)
    else:
        # Path.glob takes no absolute pattern.
        names = sorted(glob.glob(place, recursive=True))  # noqa: PTH207
        found = [each for each in map(Path, names) if each.is_file()]
    if not found:
        got = "holds no database" if path.is_dir() else "no such file"
        raise InputError(place, got, _WANTED, "make one with `perfmeasure analyze`")
    return found


def _in_folder(folder: Path) -> list[Path]:
    by_name: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*.json*")):
        match = _DATABASE.match(path.name)
        if match and path.is_file() and match["name"] not in _NOT_OF_A_DAY:
            by_name.setdefault(path.with_name(match["name"]), path)
    for ending in _BY_PREFERENCE:
        if chosen := [path for name, path in by_name.items() if name.name.endswith(ending)]:
            return chosen
    return list(by_name.values())


def documents(place: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each database of `paths_of` with its path, as perfmeasure-1.0.

    Raises:
        InputError: one is no database that we know, or does not follow its schema.
    """
    for path in paths_of(place):
        yield path, foreign.read(database.load(path), str(path), Counter())


def load(place: str, label: str) -> Dataset:
    """Return what a path or a glob names as one dataset.

    Raises:
        InputError: there is no database, or one cannot be used.
    """
    found = Dataset(label)
    for _, document in documents(place):
        found.add(document)
    found.rows.sort(key=lambda row: (row["start"], row["label"], row["id"]))
    return found
