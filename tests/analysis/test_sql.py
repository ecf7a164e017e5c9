from __future__ import annotations

from pathlib import Path

from perfmeasure.analysis import sql


def test_rows_keep_their_order_and_cursors_share_a_database() -> None:
    with sql.cursor() as first, sql.cursor() as second:
        assert first.execute("SELECT current_setting('threads')").fetchall() == [(1,)]
        first.execute("CREATE TABLE shared AS SELECT * FROM range(3)")
        assert second.execute("SELECT * FROM shared").fetchall() == [(0,), (1,), (2,)]
        first.execute("DROP TABLE shared")


def test_what_is_too_much_for_memory_is_sorted_in_the_folder(tmp_path: Path) -> None:
    with sql.spilling(tmp_path) as connection:
        connection.execute("SET memory_limit = '40MB'")
        numbers = connection.sql("SELECT (range * 7919) % 3000017 AS n FROM range(3000000)")
        numbers.order("n").write_parquet(str(tmp_path / "sorted.parquet"))
        first = connection.read_parquet(str(tmp_path / "sorted.parquet")).limit(3).fetchall()
        assert first == [(0,), (1,), (2,)]
