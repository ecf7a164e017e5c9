from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from perfmeasure import cli
from perfmeasure.analysis import pipeline, rows, scans, tables
from perfmeasure.errors import PerfmeasureError, UsageError

if TYPE_CHECKING:
    from tests.analysis.conftest import Lines


def written(documents: list[dict[str, Any]], folder: Path) -> Counter[str]:
    losses: Counter[str] = Counter()
    tables.write(documents, folder, losses)
    return losses


def asked(folder: Path, question: str) -> list[tuple[Any, ...]]:
    names = {table: f"'{folder / table}.parquet'" for table in tables.TABLES}
    with duckdb.connect() as connection:
        return connection.execute(question.format(**names)).fetchall()


def rows_of(folder: Path, table: str) -> list[tuple[Any, ...]]:
    return duckdb.read_parquet(str(folder / f"{table}.parquet")).fetchall()


def test_each_record_is_a_row_and_they_can_be_joined(fixtures: Path, tmp_path: Path) -> None:
    document = pipeline.analyze([fixtures / "onionperf-run"])
    assert written([document], tmp_path / "new" / "tables") == Counter()
    folder = tmp_path / "new" / "tables"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{table}.parquet" for table in sorted(tables.TABLES)
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["tables"]
    node = document["data"]["vm"]
    for table, count in (
        ("transfers", len(node["tgen"]["transfers"])),
        ("streams", len(node["tor"]["streams"])),
        ("circuits", len(node["tor"]["circuits"])),
        ("logs", len(document["meta"]["inputs"])),
    ):
        assert len(rows_of(folder, table)) == count
    found = asked(
        folder,
        "SELECT t.id, s.source, c.guard FROM {transfers} t JOIN {streams} s "
        "ON (s.label, s.id) = (t.label, t.stream) JOIN {circuits} c "
        "ON (c.label, c.id) = (t.label, t.circuit)",
    )
    links = {name: t["links"] for name, t in node["tgen"]["transfers"].items()}
    assert {name: guard for name, _, guard in found} == {
        name: link["guard"] for name, link in links.items()
    }
    # The columns that a single Parquet file has are the same here.
    plain = tmp_path / "rows.parquet"
    plain.write_bytes(rows.to_parquet(document, Counter()))
    width = len(rows.COLUMNS)
    assert [row[:width] for row in rows_of(folder, "transfers")] == (
        duckdb.read_parquet(str(plain)).order("label, start, id").fetchall()
    )


def hosts(top: Path, lines: type[Lines]) -> list[Path]:
    """Three folders of two hosts, and a server's."""
    for folder, host, at in (("a", "one", 0), ("b", "two", 5), ("c", "one", 100)):
        path = top / folder / "tgen-client/x.tgen.log"
        path.parent.mkdir(parents=True)
        text = lines.initializing(at, host) + lines.outcome(at + 1, at + 2, 0, 5000)
        path.write_text(text + lines.created(at + 3, 1, 5001))
        path = top / folder / "tor-client/x.torctl.log"
        path.parent.mkdir(parents=True)
        path.write_text(lines.stream_events(at + 1.1, at + 2, 7, 5000))
    server = top / "d/tgen-server/x.tgen.log"
    server.parent.mkdir(parents=True)
    server.write_text(lines.initializing(0, "three"))
    (top / "d/tgen-server/other.tgen.log").write_text("hello")
    return [top / folder for folder in "abcd"]


def test_one_host_after_the_other_gives_what_all_at_once_do(
    tmp_path: Path, lines: type[Lines]
) -> None:
    paths = hosts(tmp_path / "hosts", lines)
    expected = written([pipeline.analyze(paths)], tmp_path / "expected")
    found = []
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(paths, len(paths))
        losses: Counter[str] = Counter()
        with scans.prepared(
            processes=seed, scheduler=None, cache=None, say=pytest.fail, is_read_again=True
        ) as prepare:
            each = pipeline.analyze_each(shuffled, prepare=prepare)
            tables.write(each, tmp_path / str(seed), losses)
        assert losses == expected == {"transfers that had not ended": 3}
        found.append(
            [(tmp_path / str(seed) / f"{table}.parquet").read_bytes() for table in tables.TABLES]
        )
    assert found[0] == found[1]
    for table in ("transfers", "streams", "circuits"):
        assert rows_of(tmp_path / "1", table) == rows_of(tmp_path / "expected", table) != []
    assert asked(tmp_path / "1", "SELECT label, id FROM {transfers}") == [
        ("one", "stream:0"),
        ("one", "stream:0#2"),
        ("two", "stream:0"),
    ]
    assert asked(tmp_path / "1", "SELECT label, count(*) FROM {logs} GROUP BY ALL ORDER BY 1") == [
        ("", 2),
        ("one", 4),
        ("two", 2),
    ]


def test_the_commands_write_them(tmp_path: Path, lines: type[Lines]) -> None:
    paths = [str(path) for path in hosts(tmp_path / "hosts", lines)]
    folder, database = tmp_path / "tables", tmp_path / "db.json"
    cache = ["--cache", str(tmp_path / "cache")]
    assert cli.run(["analyze", *paths, "-o", str(folder), "--format", "tables", *cache]) == 0
    assert cli.run(["analyze", *paths, "-o", str(database), *cache]) == 0
    again = tmp_path / "again"
    assert cli.run(["convert", str(database), "-o", str(again), "--format", "tables"]) == 0
    question = "SELECT * FROM {transfers}"
    assert asked(folder, question) == asked(again, question)


def test_where_they_cannot_be_written(fixtures: Path, tmp_path: Path) -> None:
    document = pipeline.analyze([fixtures / "tgen/client-transfer-cut.tgen.log"])
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="is a file"):
        written([document], file)
    with pytest.raises(PerfmeasureError, match="cannot be written"):
        written([document], file / "below")
    assert written([document], tmp_path / "empty") == {"transfers that had not ended": 1}
    assert asked(tmp_path / "empty", "SELECT count(*) FROM {transfers}") == [(0,)]
