"""Fetches the series of a topology from VictoriaMetrics or Prometheus, into a file.

The file has a line of JSON for each series, or part of one: ``metric`` (its labels, with
``__name__``), ``timestamps`` (Unix milliseconds) and ``values``. That is what VictoriaMetrics'
``/api/v1/export`` sends; what Prometheus answers to a query is rewritten as such.
"""

from __future__ import annotations

import shutil
import urllib.parse
from pathlib import Path
from typing import IO, Any

from perfmeasure import jsonio
from perfmeasure.errors import InputError, MeasurementError
from perfmeasure.topology import families
from perfmeasure.topology.server import Answer, Broken, Server

_NAMES = "|".join(
    family.name
    for group in families.RAW
    for family in group.families
    if group is not families.TRAFFIC  # which stands beside, and is not joined
)
_SELECTOR = f'{{__name__=~"{_NAMES}"}}'
_BLOCK_BYTES = 1 << 20
_LINE_SAMPLES = 10_000
"""So that no line is longer than what reads them takes, 16 MiB."""


def fetch(server: Server, begin: float, end: float, path: Path) -> None:
    """Write all samples from ``begin`` to ``end`` (Unix seconds) into a new file.

    Raises:
        InputError: the server refuses the question, or its answer is not one.
        MeasurementError: the server cannot be reached, is busy, or breaks off.
    """
    try:
        with path.open("xb") as file:
            if not _export(server, begin, end, file):
                _query(server, begin, end, file)
    except Broken as error:
        raise MeasurementError(
            str(server), str(error), "VictoriaMetrics or Prometheus",
            "see that it runs, and whether the URL is right",
        ) from error  # fmt: skip


def _export(server: Server, begin: float, end: float, file: IO[bytes]) -> bool:
    """Ask as VictoriaMetrics is asked for much. Return whether the server knows that question."""
    asked = {
        "match[]": _SELECTOR,
        "start": f"{begin:.3f}",
        "end": f"{end:.3f}",
        "max_rows_per_line": str(_LINE_SAMPLES),
    }
    with server.stream(f"/api/v1/export?{urllib.parse.urlencode(asked)}") as (answer, body):
        if answer.status in {404, 405}:
            return False
        _check(server, answer)
        shutil.copyfileobj(body, file, _BLOCK_BYTES)
    return True


def _query(server: Server, begin: float, end: float, file: IO[bytes]) -> None:
    """Ask as any of them can be asked: for the samples of a time before its end."""
    query = f"{_SELECTOR}[{max(1, round((end - begin) * 1000))}ms]"
    asked = urllib.parse.urlencode({"query": query, "time": f"{end:.3f}"})
    with server.stream(f"/api/v1/query?{asked}") as (answer, body):
        _check(server, answer)
        document = jsonio.loads(body.read(), str(server))
    try:
        for series in document["data"]["result"]:
            samples = series["values"]
            for place in range(0, len(samples), _LINE_SAMPLES):
                line = _as_exported(series["metric"], samples[place : place + _LINE_SAMPLES])
                file.write(jsonio.compact(line).encode() + b"\n")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(server), "an answer of another form", "that of a query") from error


def _as_exported(metric: dict[str, str], samples: list[Any]) -> dict[str, Any]:
    return {
        "metric": metric,
        "timestamps": [round(at * 1000) for at, _ in samples],
        "values": [float(value) for _, value in samples],
    }


def _check(server: Server, answer: Answer) -> None:
    if answer.status == 200:
        return
    if answer.status in {408, 425, 429} or answer.status >= 500:
        raise MeasurementError(
            str(server), f"does not answer now ({answer})", "an answer", "try again later"
        )
    step = "see the server's own log"
    if answer.status in {401, 403}:
        step = "give user and password as http://user:password@host"
    elif answer.status == 422:
        step = "ask for a shorter --window, or raise the limit that it names"
    elif answer.status == 404:
        step = "look at the URL's path"
    raise InputError(str(server), f"refused the question ({answer})", "an answer", step)
