"""Marks the circuits and transfers of a document that a question leaves out; removes nothing.

What was filtered by what stands in the document's ``filters``. A transfer counts if neither it nor
the circuit that carried it is marked (`is_kept`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfmeasure.analysis import records
from perfmeasure.analysis.period import span_of
from perfmeasure.analysis.statistics import destination_kind
from perfmeasure.analysis.torlog import HOP
from perfmeasure.errors import InputError, UsageError

OUTCOMES = ("success", "error", "incomplete")
DESTINATIONS = ("exit", "onion")
_WANTED = "fingerprints, one a line"


@dataclasses.dataclass(frozen=True)
class Filter:
    """What is kept; what is None or False is not asked.

    Circuits: ``include`` and ``exclude`` are files of fingerprints; every hop of the path (only
    the first with ``guards``, only the last with ``exits``) must be among the included and none
    among the excluded, and a circuit without a path is left out. ``exits`` does not test circuits
    that carried a stream to an onion service. ``exclude_cbt`` leaves out circuits that were
    launched before a build timeout was learned.

    Transfers: those that ended on the UTC days ``first`` to ``last``, to ``destination``, of
    ``min_bytes`` to ``max_bytes``, with ``outcome``.
    """

    include: Path | None = None
    exclude: Path | None = None
    guards: bool = False
    exits: bool = False
    exclude_cbt: bool = False
    first: str | None = None
    last: str | None = None
    destination: str | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    outcome: str | None = None

    def entries(self) -> dict[str, list[dict[str, str]]]:
        """Return the document's ``filters`` for it."""
        which = [("guards", self.guards), ("exits", self.exits)]
        hops = {"value": "+".join(name for name, is_asked in which if is_asked)}
        hops = hops if hops["value"] else {}
        circuits: list[dict[str, str]] = [
            {"name": name, "filepath": str(path), **hops}
            for name, path in (
                ("include_fingerprints", self.include),
                ("exclude_fingerprints", self.exclude),
            )
            if path
        ]
        if self.exclude_cbt:
            circuits.append({"name": "exclude_cbt"})
        asked = {
            "from": self.first,
            "to": self.last,
            "destination": self.destination,
            "min_size": self.min_bytes,
            "max_size": self.max_bytes,
            "outcome": self.outcome,
        }
        transfers = [{"name": n, "value": str(v)} for n, v in asked.items() if v is not None]
        found = {"tor/circuits": circuits, "tgen/transfers": transfers}
        return {what: entries for what, entries in found.items() if entries}


def fingerprints_of(path: Path) -> frozenset[str]:
    """Return the fingerprints in a file: one a line, with or without ``$`` and a nickname.

    Empty lines and what follows a ``#`` are passed over.

    Raises:
        InputError: the file cannot be read, a line is no fingerprint, or none is one.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", _WANTED) from error
    except UnicodeDecodeError as error:
        raise InputError(str(path), "is no text", _WANTED) from error
    found = set()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = HOP.match(text if text.startswith("$") else f"${text}")
        if not match:
            raise InputError(f"{path}:{number}", f"{text!r} is no fingerprint", "40 hex digits")
        found.add(match[1].upper())
    if not found:
        raise InputError(str(path), "a list without a fingerprint", _WANTED)
    return frozenset(found)


def apply(document: Mapping[str, Any], asked: Filter) -> dict[str, Any]:
    """Return a copy of the document with what ``asked`` leaves out marked, beside earlier marks.

    Raises:
        InputError: a file of fingerprints cannot be used.
        UsageError: a day is none, or nothing can be of the size.
    """
    if asked.max_bytes is not None and (asked.min_bytes or 0) > asked.max_bytes:
        got = f"{asked.max_bytes} bytes are less than --min-size, {asked.min_bytes}"
        raise UsageError("--max-size", got, "at least as much as --min-size")
    include = fingerprints_of(asked.include) if asked.include else None
    exclude = fingerprints_of(asked.exclude) if asked.exclude else frozenset()
    span = span_of(asked.first, asked.last)
    marked: dict[str, Any] = copy.deepcopy(dict(document))
    for node in marked["data"].values():
        tor = node.get("tor", {})
        for circuit, is_onion in _circuits(tor):
            if _fails_hops(circuit, asked, include, exclude, is_onion=is_onion) or (
                asked.exclude_cbt and not circuit.get("cbt_set", False)
            ):
                circuit["filtered_out"] = True
        for transfer in node.get("tgen", {}).get("transfers", {}).values():
            if _fails(transfer, asked, span):
                transfer["filtered_out"] = True
    for what, entries in asked.entries().items():
        earlier = marked.setdefault("filters", {}).setdefault(what, [])
        earlier += [entry for entry in entries if entry not in earlier]
    return marked


def _circuits(tor: Mapping[str, Any]) -> list[tuple[dict[str, Any], bool]]:
    """Return the circuits, and whether each carried a stream to an onion service."""
    onion = {
        stream.get("circuit_id")
        for stream in tor.get("streams", {}).values()
        if stream["target"].rpartition(":")[0].endswith(".onion")
    }
    return [(circuit, name in onion) for name, circuit in tor.get("circuits", {}).items()]


def _fails_hops(
    circuit: Mapping[str, Any],
    asked: Filter,
    include: frozenset[str] | None,
    exclude: frozenset[str],
    *,
    is_onion: bool,
) -> bool:
    if include is None and asked.exclude is None:
        return False
    path = circuit.get("path")
    if not path:
        return True
    hops = [match[1].upper() if (match := HOP.match(hop[0])) else "" for hop in path]
    tested = hops
    if asked.guards or asked.exits:
        tested = hops[:1] if asked.guards else []
        if asked.exits and not is_onion:
            tested = [*tested, hops[-1]]
    return any(hop in exclude or (include is not None and hop not in include) for hop in tested)


def _fails(transfer: Mapping[str, Any], asked: Filter, span: tuple[float, float]) -> bool:
    outcome = "error" if transfer["is_error"] else "success"
    if not transfer["is_complete"]:
        outcome = "incomplete"
    size = transfer["filesize_bytes"]
    return (
        not span[0] <= records.last_seen(transfer) < span[1]
        or asked.destination not in {None, destination_kind(transfer)}
        or asked.outcome not in {None, outcome}
        or (asked.min_bytes is not None and size < asked.min_bytes)
        or (asked.max_bytes is not None and size > asked.max_bytes)
    )


def is_kept(
    document: Mapping[str, Any], node: Mapping[str, Any], transfer: Mapping[str, Any]
) -> bool:
    """Whether no filter took a transfer out.

    Once circuits were filtered, a transfer of which the circuit is not known is out as well: it
    cannot be said to pass.
    """
    if transfer.get("filtered_out"):
        return False
    if not document.get("filters", {}).get("tor/circuits"):
        return True
    circuits = node.get("tor", {}).get("circuits", {})
    circuit = circuits.get(transfer["links"].get("circuit"))
    return circuit is not None and not circuit.get("filtered_out")
