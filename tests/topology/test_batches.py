from __future__ import annotations

import pytest

from perfmeasure.topology import families, series
from perfmeasure.topology.batches import batches
from tests.topology import fleet_rows, tsdb


@pytest.mark.parametrize("size", [7, 100, 100_000])
def test_every_sample_is_in_one_batch_in_order(size: int) -> None:
    connection = fleet_rows.fleet(hosts=2, calls=60)
    series.build(connection)
    expected = tsdb.made(connection, families.RAW)
    made = list(batches(connection, families.RAW, batch_samples=size))
    assert all(batch.count == size for batch in made[:-1])
    found: tsdb.Samples = {}
    for batch in made:
        samples = tsdb.written(batch.body)
        assert len(samples) == batch.count <= size
        for labels, at_ms, value in samples:
            found.setdefault(labels, []).append((at_ms, value))
    assert found == expected


def test_what_no_label_can_hold_is_changed() -> None:
    connection = fleet_rows.fleet(hosts=1, calls=1)
    connection.execute("UPDATE listeners SET service = 'a' || chr(7)")
    series.build(connection)
    (batch,) = batches(connection, [families.SERVICES])
    assert {dict(labels)["name"] for labels, *_ in tsdb.written(batch.body)} == {
        families.protected("a\x07")
    }
