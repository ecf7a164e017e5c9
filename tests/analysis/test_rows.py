from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from perfmeasure.analysis import filters, pipeline, rows

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture
def document(fixtures: Path) -> dict[str, Any]:
    return pipeline.analyze([fixtures / "onionperf-run"], nickname="testnet")


def test_csv(document: dict[str, Any], golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "onionperf-run.csv", rows.to_csv(document, Counter()).decode())


def test_what_the_columns_say(document: dict[str, Any]) -> None:
    node = document["data"]["testnet"]
    circuit = node["tor"]["circuits"][node["tgen"]["transfers"]["stream:0"]["links"]["circuit"]]
    guard = {"fingerprint": circuit["path"][0][0][1:41], "nickname": "x", "country": "de"}
    circuit["current_guards"] = [{"fingerprint": "0" * 40, "nickname": "y"}, guard]
    found = {row["id"]: row for row in rows.rows(document, Counter())}
    first, failed = found["stream:0"], found["stream:10"]
    assert list(first) == list(rows.COLUMNS)
    assert first["mbps"] == pytest.approx(8.388608 / (1.070412 - 0.860), rel=0.01)
    assert (first["error_code"], first["server"]) == (None, "public")
    assert (first["guard_country_codes"], first["guards"]) == (["N/A", "de"], 2)
    assert (first["guard"], first["uses_guard"]) == (guard["fingerprint"], True)
    assert first["guard_index"] == 1
    assert (failed["error_code"], failed["server"], failed["mbps"]) == (
        "TOR/DESTROY",
        "onion",
        None,
    )


def test_all_in_one_read_has_no_throughput(document: dict[str, Any]) -> None:
    transfer = document["data"]["testnet"]["tgen"]["transfers"]["stream:0"]
    transfer["elapsed_seconds"]["payload_progress"] = {"0.8": 1.0, "1.0": 1.0}
    assert rows.rows(document, Counter())[0]["mbps"] is None


def test_half_of_a_mebibyte(document: dict[str, Any]) -> None:
    transfer = document["data"]["testnet"]["tgen"]["transfers"]["stream:0"]
    transfer["filesize_bytes"] = 1048576
    transfer["elapsed_seconds"]["payload_progress"] = {"0.5": 1.0, "1.0": 3.0}
    assert rows.rows(document, Counter())[0]["mbps"] == pytest.approx(2.097152)


def test_what_has_no_row_is_counted(document: dict[str, Any]) -> None:
    marked = filters.apply(document, filters.Filter(destination="onion"))
    marked["data"]["testnet"]["tgen"]["transfers"]["stream:2"]["is_complete"] = False
    losses: Counter[str] = Counter()
    assert len(rows.rows(marked, losses)) == 5
    assert losses == {"transfers that were filtered out": 6, "transfers that had not ended": 1}


def test_parquet_holds_what_the_csv_does(document: dict[str, Any], tmp_path: Path) -> None:
    import duckdb

    data = rows.to_parquet(document, Counter())
    assert data == rows.to_parquet(document, Counter())
    path = tmp_path / "rows.parquet"
    path.write_bytes(data)
    with duckdb.connect() as connection:
        relation = connection.read_parquet(str(path))
        assert dict(zip(relation.columns, map(str, relation.types), strict=True)) == rows.COLUMNS
        found = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    expected = list(csv.DictReader(io.StringIO(rows.to_csv(document, Counter()).decode())))
    for row, text in zip(found, expected, strict=True):
        assert row.pop("start") == datetime.fromisoformat(text.pop("start"))
        assert {name: "" if value is None else str(value) for name, value in row.items()} == text


def test_parquet_of_nothing(document: dict[str, Any], tmp_path: Path) -> None:
    import duckdb

    document["data"] = {}
    path = tmp_path / "rows.parquet"
    path.write_bytes(rows.to_parquet(document, Counter()))
    with duckdb.connect() as connection:
        relation = connection.read_parquet(str(path))
        assert relation.columns == list(rows.COLUMNS)
        assert relation.fetchall() == []
