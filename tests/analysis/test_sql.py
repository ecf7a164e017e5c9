from __future__ import annotations

from perfmeasure.analysis import sql


def test_rows_keep_their_order_and_cursors_share_a_database() -> None:
    with sql.cursor() as first, sql.cursor() as second:
        assert first.execute("SELECT current_setting('threads')").fetchall() == [(1,)]
        first.execute("CREATE TABLE shared AS SELECT * FROM range(3)")
        assert second.execute("SELECT * FROM shared").fetchall() == [(0,), (1,), (2,)]
        first.execute("DROP TABLE shared")
