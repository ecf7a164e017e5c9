"""The figures of ``visualize``: what each shows of the datasets, without drawing it.

A figure is a `Figure` of plain numbers; `perfmeasure.analysis.drawing` draws it. They are those
of OnionPerf, in its order, then those of the page.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any

from perfmeasure.analysis import outliers
from perfmeasure.analysis.metrics import size_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from perfmeasure.analysis.datasets import Dataset

    Row = Mapping[str, Any]


class Kind(enum.Enum):
    """How a figure is drawn."""

    ECDF = "ecdf"
    """A curve for each dataset; ``values`` are numbers."""
    TIME = "time"
    """Points over time; ``values`` are (Unix seconds, number)."""
    BOX = "box"
    """Quartiles, and whiskers to 1.5 times their distance; ``values`` are numbers."""
    BAR = "bar"
    """Bars by name; ``values`` are (name, number)."""
    STRIP = "strip"
    """Points beside names; ``values`` are (number, name)."""
    DAYS = "days"
    """Points beside names over time; ``values`` are (Unix seconds, name)."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """What one figure shows: ``series`` is label -> values, of the shape that ``kind`` says.

    ``name`` is part of a file's name. ``is_outlier`` tells the outlier set from the base set.
    """

    name: str
    title: str
    kind: Kind
    xlabel: str
    ylabel: str
    series: Mapping[str, Sequence[Any]]
    is_outlier: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(self.series.values())


_TTFB, _TTLB = "time_to_first_byte", "time_to_last_byte"
_SECONDS = "Download time (s)"
_FRACTION = "Cumulative fraction"


def figures(
    datasets: Sequence[Dataset], percent: float = 75, threshold: int = 15
) -> Iterator[Figure]:
    """Yield the figures of some datasets.

    ``percent`` is the percentile above which a transfer is an outlier, ``threshold`` how many
    relays are shown.
    """
    yield from _base(datasets)
    yield from _of_the_page(datasets)
    yield from _outliers(datasets, percent, threshold)


def _groups(datasets: Sequence[Dataset], by_size: bool) -> Iterator[tuple[str, int | None]]:
    """Yield each server, with each size if that is asked; one pair that fits all if there is none.

    Of no transfers there still is each kind of figure, which says so.
    """
    rows = [row for dataset in datasets for row in dataset.rows]
    found: set[tuple[str, int | None]] = {
        (row["server"], row["filesize_bytes"] if by_size else None) for row in rows
    }
    yield from sorted(found, key=lambda each: (each[1] or 0, each[0])) or [("any", None)]


def _series(
    datasets: Sequence[Dataset],
    group: tuple[str, int | None],
    value_of: Callable[[Row], Any],
) -> dict[str, list[Any]]:
    server, size = group
    found: dict[str, list[Any]] = {}
    for dataset in datasets:
        values = [
            value_of(row)
            for row in dataset.rows
            if row["server"] == server and size in {None, row["filesize_bytes"]}
        ]
        found[dataset.label] = [value for value in values if value is not None]
    return found


def _over_time(field: str) -> Callable[[Row], Any]:
    return lambda row: None if row[field] is None else (row["start"], row[field])


def _base(datasets: Sequence[Dataset]) -> Iterator[Figure]:
    def each(name: str, title: str, kind: Kind, x: str, y: str, *, by_size: bool, of: Any) -> Any:
        for group in _groups(datasets, by_size):
            server, size = group
            size_text = "" if size is None else f"_{size_name(size)}"
            said = title.format(server=server, size="" if size is None else f"{size} bytes ")
            series = _series(datasets, group, of)
            yield Figure(f"{name}_{server}{size_text}", said, kind, x, y, series)

    yield from each(
        "ttfb_ecdf", "Time to first byte from {server} service", Kind.ECDF,
        _SECONDS, _FRACTION, by_size=False, of=lambda row: row[_TTFB],
    )  # fmt: skip
    yield from each(
        "ttfb_time", "Time to first byte of {size}from {server} service over time", Kind.TIME,
        "Download start time (UTC)", _SECONDS, by_size=True, of=_over_time(_TTFB),
    )  # fmt: skip
    last = "Time to last byte of {size}from {server} service"
    yield from each(
        "ttlb_ecdf", last, Kind.ECDF,
        _SECONDS, _FRACTION, by_size=True, of=lambda row: row[_TTLB],
    )  # fmt: skip
    yield from each(
        "ttlb_box", last, Kind.BOX,
        "Data set", _SECONDS, by_size=True, of=lambda row: row[_TTLB],
    )  # fmt: skip
    yield from _means(datasets)
    yield from each(
        "ttlb_time", f"{last} over time", Kind.TIME,
        "Download start time (UTC)", _SECONDS, by_size=True, of=_over_time(_TTLB),
    )  # fmt: skip
    yield from each(
        "throughput_ecdf", "Throughput from {server} service", Kind.ECDF,
        "Throughput (Mbit/s)", _FRACTION, by_size=False, of=lambda row: row["mbps"],
    )  # fmt: skip
    yield from _counts(datasets)
    yield from each(
        "errors_time", "Failed downloads from {server} service over time", Kind.DAYS,
        "Download start time (UTC)", "Error code", by_size=False,
        of=lambda row: (row["start"], row["error_code"]) if row["error_code"] else None,
    )  # fmt: skip


def _means(datasets: Sequence[Dataset]) -> Iterator[Figure]:
    for group in _groups(datasets, by_size=True):
        server, size = group
        series: dict[str, list[tuple[str, float]]] = {}
        for label, values in _series(datasets, group, lambda row: row[_TTLB]).items():
            series[label] = [(label, sum(values) / len(values))] if values else []
        said = f"Mean time to last byte of {size} bytes from {server} service"
        name = f"ttlb_mean_{server}" + ("" if size is None else f"_{size_name(size)}")
        yield Figure(name, said, Kind.BAR, "Data set", _SECONDS, series)


def _counts(datasets: Sequence[Dataset]) -> Iterator[Figure]:
    for group in _groups(datasets, by_size=True):
        server, size = group
        ended = _series(datasets, group, lambda row: True if row["error_code"] is None else None)
        series = {label: [(label, len(v))] if v else [] for label, v in ended.items()}
        said = f"Downloads of {size} bytes completed from {server} service"
        name = f"downloads_{server}" + ("" if size is None else f"_{size_name(size)}")
        yield Figure(name, said, Kind.BAR, "Data set", "Downloads completed", series)
    for group in _groups(datasets, by_size=False):
        errors = _series(datasets, group, lambda row: row["error_code"])
        said = f"Failed downloads from {group[0]} service"
        series = {label: _counted(values) for label, values in errors.items()}
        yield Figure(f"errors_{group[0]}", said, Kind.BAR, "Error code", "Downloads failed", series)


def _counted(names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, names.count(name)) for name in sorted(set(names))]


def _of_the_page(datasets: Sequence[Dataset]) -> Iterator[Figure]:
    builds = {dataset.label: dataset.build_seconds for dataset in datasets}
    title = "Build time of circuits of three hops"
    yield Figure("circuit_builds", title, Kind.ECDF, "Build time (s)", _FRACTION, builds)
    phases = {
        dataset.label: [
            (phase, sum(seconds) / len(seconds)) for phase, seconds in dataset.phase_seconds.items()
        ]
        for dataset in datasets
    }
    title = "Where the time of successful downloads went"
    yield Figure("phases", title, Kind.BAR, "Phase", "Mean time (s)", phases)


def _outliers(datasets: Sequence[Dataset], percent: float, threshold: int) -> Iterator[Figure]:
    labelled = [{**row, "label": d.label} for d in datasets for row in d.rows]
    for name, field, said in (
        ("ttfb", _TTFB, "Time to first byte"),
        ("ttlb", _TTLB, "Time to last byte"),
    ):
        found = outliers.slow(labelled, field, percent)
        for server, entries in found.items():
            relays = set(outliers.top(entries, threshold))
            series: dict[str, list[Any]] = {dataset.label: [] for dataset in datasets}
            for entry in entries:
                if entry["fingerprints"] in relays:
                    series[entry["label"]].append((entry[field], entry["fingerprints"]))
            title = f"{said} from {server} service above the {percent:g} % quantile, by relay"
            yield Figure(
                f"{name}_outliers_{server}", title, Kind.STRIP, f"{said} (s)", "Relay", series, True
            )
        shared = outliers.common(found)
        title = f"Relays among the outliers of {said.lower()} of all services"
        yield _relay_counts(f"{name}_outliers_common", title, datasets, shared, threshold)
    for server, entries in outliers.failed(labelled).items():
        title = f"Relays of failed downloads from {server} service"
        yield _relay_counts(f"error_relays_{server}", title, datasets, entries, threshold)


def _relay_counts(
    name: str,
    title: str,
    datasets: Sequence[Dataset],
    entries: Sequence[Mapping[str, Any]],
    threshold: int,
) -> Figure:
    relays = outliers.top(entries, threshold)
    series = {}
    for dataset in datasets:
        own = [entry["fingerprints"] for entry in entries if entry["label"] == dataset.label]
        series[dataset.label] = [(relay, own.count(relay)) for relay in relays if relay in own]
    return Figure(name, title, Kind.BAR, "Relay", "Downloads", series, True)
