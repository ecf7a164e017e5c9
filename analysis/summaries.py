"""The seed's summaries: times and errors by size and second, lifetimes, build times, bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfmeasure.analysis.claims import Claim
    from perfmeasure.analysis.join import Link
    from perfmeasure.analysis.kernel import KernelConnection
    from perfmeasure.analysis.servers import ServerMatch
    from perfmeasure.analysis.torlog import TorLog
    from perfmeasure.analysis.transfers import Transfer


def transfers_summary(transfers: Iterable[Transfer], links: Iterable[Link]) -> dict[str, Any]:
    """Return ``time_to_first_byte``, ``time_to_last_byte``, ``errors`` and ``links``.

    The first two are ``{size in bytes: {second of the end: [seconds]}}`` of the successful
    transfers, counted from the command, as in the seed, not from the transfer's start. ``errors``
    is ``{code: {second of the end: [size in bytes]}}``. ``links`` counts transfers by how their
    link came out. Keys are text, as in JSON.
    """
    first: dict[str, dict[str, list[float]]] = {}
    last: dict[str, dict[str, list[float]]] = {}
    errors: dict[str, dict[str, list[int]]] = {}
    for transfer in transfers:
        record = transfer.record
        if not record["is_complete"]:
            continue
        second = str(int(record["unix_ts_end"]))
        size = record["filesize_bytes"]
        if record["is_error"]:
            errors.setdefault(record["error_code"], {}).setdefault(second, []).append(size)
            continue
        elapsed = record["elapsed_seconds"]
        for summary, field in ((first, "first_byte"), (last, "last_byte")):
            if field in elapsed and "command" in elapsed:
                seconds = elapsed[field] - elapsed["command"]
                summary.setdefault(str(size), {}).setdefault(second, []).append(seconds)
    return {
        "time_to_first_byte": first,
        "time_to_last_byte": last,
        "errors": errors,
        "links": count_statuses(links),
    }


def count_statuses(
    links: Iterable[Link | ServerMatch | Claim[KernelConnection]],
) -> dict[str, int]:
    """Return how many came out ``linked``, ``ambiguous`` and ``unmatched``."""
    counts = {"linked": 0, "ambiguous": 0, "unmatched": 0}
    for link in links:
        counts[link.status] += 1
    return counts


def streams_summary(log: TorLog) -> dict[str, Any]:
    """Return ``{"lifetimes": {purpose: [seconds]}}`` of the streams that began and ended."""
    lifetimes: dict[str, list[float]] = {}
    for stream in log.streams:
        if stream.started is not None and stream.ended is not None:
            purpose = stream.purpose or "UNKNOWN"
            lifetimes.setdefault(purpose, []).append(stream.ended - stream.started)
    return {"lifetimes": lifetimes}


def circuits_summary(log: TorLog) -> dict[str, Any]:
    """Return ``buildtimes`` (of circuits of three hops) and ``lifetimes``, in seconds.

    Only circuits that were seen being launched and ending count, as in the seed.
    """
    build_times: list[float] = []
    lifetimes: list[float] = []
    for circuit in log.circuits:
        if circuit.launched is None or circuit.ended is None:
            continue
        if circuit.built is not None and len(circuit.path) == 3:
            build_times.append(circuit.built - circuit.launched)
        lifetimes.append(circuit.ended - circuit.launched)
    return {"buildtimes": build_times, "lifetimes": lifetimes}


def bandwidth_summary(log: TorLog) -> dict[str, Any]:
    """Return ``bytes_read`` and ``bytes_written``: ``{Unix second: bytes}``."""
    return {
        "bytes_read": {str(second): count for second, count in log.bytes_read.items()},
        "bytes_written": {str(second): count for second, count in log.bytes_written.items()},
    }
