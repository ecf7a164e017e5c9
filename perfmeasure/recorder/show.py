"""What ``show`` answers: the statistics as they are now, and connections that are under way.

To be called by the thread that records.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from perfmeasure.errors import UsageError
from perfmeasure.recorder.keys import Connection, connection4_text
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.recording import Recording
from perfmeasure.recorder.records import (
    CUTOFF_SUSPENDED,
    ENDED,
    FROM_B,
    IDENTITY,
    NO_CUTOFF,
    TIMEOUT_SUSPENDED,
)
from perfmeasure.recorder.statistics import CLASSES, INDEX_FIELDS, STATS

_SAMPLE = 10


def statistics(recorder: Recorder, recording: Recording) -> list[str]:
    """Return lines of names and values, those of the logs; rates are since their last line."""
    figures = recorder.statistics.figures(recording, recorder.writer, recorder.losses, time.time())
    (stats,) = figures["stats"]
    lines = [f"{name} {value}" for name, value in zip(STATS, stats, strict=True)]
    for fields, log in ((CLASSES, "classes"), (INDEX_FIELDS, "indexes")):
        for values in figures[log]:
            rest = zip(fields[2:], values[2:], strict=True)
            lines.append(f"{fields[1]} {values[1]} " + " ".join(f"{n} {v}" for n, v in rest))
    return lines


def slot_of(recording: Recording, key: Connection) -> int:
    """Return the slot of a connection, brought up to date.

    Raises:
        UsageError: it is not under way, or connections are not followed.
    """
    try:
        return recording.find(key)
    except UsageError as error:
        (first, second), (port, other) = key.ends, key.ports
        text = connection4_text(key.protocol or 0, (first, port or 0), (second, other or 0))
        raise UsageError(
            f"NOT IN CONNECTION TABLE - {text}",
            "not under way",
            "one that is",
            "connections are followed where a class has a cutoff or a filter",
        ) from error


def connection(recording: Recording, key: Connection) -> str:
    """Return a line that describes a connection.

    Raises:
        UsageError: it is not under way.
    """
    slot = slot_of(recording, key)
    return _line(recording, recording.connections.table[slot])


def sample(recording: Recording) -> list[str]:
    """Return a line for each of some connections, those with the latest packets."""
    table = recording.connections.table
    alive = np.flatnonzero(table["state"] & ENDED == 0)
    latest = alive[np.argsort(table["last_ns"][alive], kind="stable")[::-1][:_SAMPLE]]
    keys = []
    for slot in latest.tolist():
        protocol, first, second = _ends(table[slot])
        keys.append(Connection((first[0], second[0]), protocol, (first[1], second[1])))
    return [connection(recording, key) for key in keys]


def _ends(row: Any) -> tuple[int, tuple[bytes, int], tuple[bytes, int]]:
    """Return the protocol and the ends, that of the originator first."""
    content = row["identity"].tobytes().ljust(IDENTITY.itemsize, b"\0")
    (identity,) = np.frombuffer(content, IDENTITY)
    ends = [(identity[f"{end}_ip"].tobytes(), int(identity[f"{end}_port"])) for end in ("a", "b")]
    if row["state"] & FROM_B:
        ends.reverse()
    return int(identity["protocol"]), ends[0], ends[1]


def _line(recording: Recording, row: Any) -> str:
    classes = recording.classes
    number, cutoff, state = int(row["class_id"]), int(row["cutoff"]), int(row["state"])
    values = {
        "packets": row["packets"],
        "bytes": row["bytes"],
        "first": f"{int(row['first_ns']) / 1e9:.6f}",
        "last": f"{int(row['last_ns']) / 1e9:.6f}",
        "class": classes.list[number].name if number < classes.none else "-",
        "cutoff": "no" if cutoff == NO_CUTOFF else cutoff,
        "suspended": ",".join(
            name
            for name, bit in (("cutoff", CUTOFF_SUSPENDED), ("timeout", TIMEOUT_SUSPENDED))
            if state & bit
        )
        or "-",
    }
    return " ".join([connection4_text(*_ends(row)), *(f"{n} {v}" for n, v in values.items())])
