from __future__ import annotations

import csv
import io

import numpy as np

from perfmeasure.analysis import rows, visualcsv
from tests.analysis import simulated


def _read(table: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.decode())))


def test_statistics() -> None:
    random = np.random.default_rng(1)
    found = simulated.dataset("A", random, count=50, failing=0.2)
    lines = _read(visualcsv.statistics([found]))
    by_name = {(line["stats"], line["metric"]): line for line in lines}
    times = [r["time_to_last_byte"] for r in found.rows if r["error_code"] is None]
    assert list(lines[0])[:4] == ["stats", "server", "metric", "value"]
    assert float(by_name["median", "time_to_last_byte"]["value"]) == np.median(times)
    assert np.isclose(float(by_name["mean", "time_to_last_byte"]["value"]), np.mean(times))
    assert by_name["count", "downloads"]["value"] == str(len(times))
    assert by_name["count", "errors"]["value"] == str(50 - len(times))
    assert by_name["count", "errors"]["label"] == "A"
    assert ("mean", "mbps") not in by_name


def test_outliers_have_the_columns_of_the_rows() -> None:
    random = np.random.default_rng(1)
    found = simulated.dataset("A", random, count=50, failing=0.2)
    for row in found.rows:
        row["fingerprints"] = ["GUARD", "EXIT"]
    tables = visualcsv.outlier_tables([found], 90)
    assert list(tables) == ["firstbyte", "lastbyte", "error"]
    for table in tables.values():
        lines = _read(table)
        assert list(lines[0]) == list(rows.COLUMNS)
        assert {line["fingerprints"] for line in lines} == {"GUARD", "EXIT"}
    slow = {line["id"] for line in _read(tables["firstbyte"])}
    good = sum(row["error_code"] is None for row in found.rows)
    assert 0 < len(slow) <= good * 0.1 + 1
