"""Topologies by path: from the logs of services, or from a document that holds one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perfmeasure.analysis import database, graph, scan, services, source
from perfmeasure.analysis.scan import FactsOf
from perfmeasure.analysis.services import Collection
from perfmeasure.analysis.source import Input, Kind
from perfmeasure.analysis.topology import Window
from perfmeasure.errors import InputError

_WANTED = "logs of services (services/services.log), a topology.json or a database with a topology"


def load(
    paths: Sequence[Path],
    *,
    group_by: str = "service",
    window: Window | float | None = None,
    most_external: int = graph.MOST_EXTERNAL,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return the topology of all logs in ``paths`` together, or the one in a document.

    A document has been grouped already: it is returned as it is.

    Args:
        paths: files or folders.
        group_by: as of `graph.section`, as are ``window`` and ``most_external``.
        window: what of the time of the logs counts.
        most_external: how many external peers stand for themselves.
        say: is told, line by line, what became of the logs.

    Raises:
        InputError: there is neither, or a file cannot be read.
    """
    inputs = source.find(paths)
    logs = [log for log in inputs if log.kind is Kind.SERVICES]
    if not logs:
        if len(paths) == 1 and paths[0].is_file() and inputs[0].looks_like.startswith("a JSON"):
            return _in_document(database.load(paths[0]), str(paths[0]))
        raise _none_in(paths)
    collection, found = of_logs(logs, group_by=group_by, window=window, most_external=most_external)
    _tell(logs, collection, say)
    return graph.enveloped(found)


def of_logs(
    logs: Sequence[Input],
    facts_of: FactsOf = scan.facts,
    *,
    group_by: str = "service",
    window: Window | float | None = None,
    most_external: int = graph.MOST_EXTERNAL,
    has_buckets: bool = False,
) -> tuple[Collection, dict[str, Any]]:
    """Return what logs of services say of their collection, and the topology of all together.

    Arguments are those of `load` and of `graph.section`.

    Raises:
        InputError: a file cannot be read any more.
    """
    with tempfile.TemporaryDirectory(prefix="perfmeasure-") as place:
        collection = services.read_logs(logs, Path(place), facts_of)
        return collection, graph.section(
            Path(place),
            group_by=group_by,
            window=window,
            most_external=most_external,
            lost=collection.lost,
            has_buckets=has_buckets,
        )


def read_rows(paths: Sequence[Path], folder: Path, *, say: Callable[[str], None]) -> Collection:
    """Write the rows of all logs in ``paths`` together into a folder, as `services.read_logs` does.

    Raises:
        InputError: there is no such log, or one cannot be read.
    """
    logs = [log for log in source.find(paths) if log.kind is Kind.SERVICES]
    if not logs:
        raise _none_in(paths)
    collection = services.read_logs(logs, folder)
    _tell(logs, collection, say)
    return collection


def _none_in(paths: Sequence[Path]) -> InputError:
    return InputError(", ".join(map(str, paths)), "no log of services among it", _WANTED)


def _tell(logs: Sequence[Input], collection: Collection, say: Callable[[str], None]) -> None:
    for log in logs:
        for line in _said(log):
            say(line)
    for reason in collection.absent:
        say(f"services: {reason}")


def _said(log: Input) -> list[str]:
    """Return what is worth saying of a log: nothing if all of it could be used."""
    counts = log.counts
    if not counts.rejected:
        return []
    return [
        f"{log.name}: {sum(counts.rejected.values())} of {counts.lines} lines rejected",
        *(f"  {count} rejected: {why}" for why, count in sorted(counts.rejected.items())),
        *(f"  {log.name}:{number}: {why}" for number, why in counts.examples),
    ]


def _in_document(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    if document.get("type") == graph.TYPE:
        return dict(document)
    if document.get("type") == "perfmeasure":
        held = {
            nickname: node["topology"]
            for nickname, node in document["data"].items()
            if "topology" in node
        }
        if len(held) == 1:
            return graph.enveloped(next(iter(held.values())))
        if held:
            raise InputError(
                name, f"topologies of {', '.join(sorted(held))}", "of one nickname",
                "take the one that you mean by perfmeasure filter",
            )  # fmt: skip
    raise InputError(name, "a document without a topology", _WANTED)
