"""The tables of ``visualize``: rows, statistics and outliers as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from perfmeasure.analysis import outliers, rows
from perfmeasure.analysis.statistics import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from perfmeasure.analysis.datasets import Dataset

_STATISTICS = ("time_to_first_byte", "time_to_last_byte", "mbps")


def statistics(found: Sequence[Dataset]) -> bytes:
    """Return count, mean and median of each time and of the throughput, by server, size, dataset.

    Times are of the transfers that succeeded; ``count`` of ``downloads`` and ``errors`` is of all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("stats", "server", "metric", "value", "label", "filesize_bytes"))
    for dataset in found:
        groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for row in dataset.rows:
            groups.setdefault((row["server"], row["filesize_bytes"]), []).append(row)
        for (server, size), members in sorted(groups.items()):
            good = [row for row in members if row["error_code"] is None]
            counts = {"downloads": len(good), "errors": len(members) - len(good)}
            for name, count in counts.items():
                writer.writerow(("count", server, name, count, dataset.label, size))
            for field in _STATISTICS:
                values = [row[field] for row in good if row[field] is not None]
                if values:
                    mean, median = sum(values) / len(values), percentile(values, 50)
                    for stats, value in (("mean", mean), ("median", median)):
                        writer.writerow((stats, server, field, value, dataset.label, size))
    return text.getvalue().encode()


def outlier_tables(found: Sequence[Dataset], percent: float) -> dict[str, bytes]:
    """Return the entries of `outliers` by ``firstbyte``, ``lastbyte`` and ``error``."""
    labelled = [row for dataset in found for row in dataset.rows]
    entries = {
        "firstbyte": outliers.slow(labelled, "time_to_first_byte", percent),
        "lastbyte": outliers.slow(labelled, "time_to_last_byte", percent),
        "error": outliers.failed(labelled),
    }
    return {
        name: rows.as_csv(entry for server in sorted(by) for entry in by[server])
        for name, by in entries.items()
    }
