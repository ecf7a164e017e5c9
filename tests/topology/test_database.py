from __future__ import annotations

from pathlib import Path

from perfmeasure.analysis import graph, topologysource
from perfmeasure.topology import database, families
from tests.topology import fleet_rows, tsdb


def test_all_groups_are_there(tmp_path: Path) -> None:
    fleet_rows.write_logs(fleet_rows.fleet(hosts=1, calls=20), tmp_path / "logs")
    rows = tmp_path / "it's rows"
    rows.mkdir()
    topologysource.read_rows([tmp_path / "logs"], rows, say=print)
    document = graph.section(rows)
    with database.with_series(rows, document) as (connection, left_out):
        made = tsdb.made(connection, (*families.RAW, *families.JOINED))
    assert left_out == {}
    names = {dict(labels)["__name__"] for labels in made}
    assert names >= {"services", "service_connection", "network_traffic", "service_edge"}
    total = sum(
        samples[-1][1]
        for labels, samples in made.items()
        if dict(labels)["__name__"] == "service_connection"
    )
    assert total == document["coverage"]["input_bytes"]
