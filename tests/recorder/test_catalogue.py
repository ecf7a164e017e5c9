from __future__ import annotations

from pathlib import Path

import pytest

from perfmeasure.errors import InputError
from perfmeasure.recorder.catalogue import NAME, Catalogue, Transfer
from perfmeasure.recorder.segment import Summary


def test_a_reader_sees_what_a_writer_wrote(tmp_path: Path) -> None:
    writer = Catalogue(tmp_path, is_writer=True)
    one = Summary(1, "all", 1, 5, 9, 2, 100, 3)
    writer.put(Summary(1, "all", 1), is_open=True)
    writer.put(Summary(2, "web", 113), is_open=True)
    writer.put(one, is_open=False, file_bytes=150, index_bytes=50)
    reader = Catalogue(tmp_path)
    first, second = reader.segments()
    assert first == (one, False, 150, 50)
    assert (second.summary, second.is_open) == (Summary(2, "web", 113), True)
    writer.remove(1)
    assert [entry.summary.number for entry in reader.segments()] == [2]
    reader.close()
    writer.close()


def test_transfers_are_found_by_id_and_by_circuit(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, is_writer=True)
    key = "tcp 10.0.0.1:80 10.0.0.2:81"
    late = Transfer("m2", "t1", "c1", key, 50, 60)
    early = Transfer("m1", "t1", "c2", key, 5, 6)
    catalogue.add_transfers([late, early, Transfer("m1", "t2", "c1", key, 7, 8)])
    assert catalogue.transfers("id", "t1") == [early, late]
    assert [t.id for t in catalogue.transfers("circuit", "c1")] == ["t2", "t1"]
    assert catalogue.transfers("id", "t3") == []
    catalogue.add_transfers([early._replace(last_ns=9)])
    assert catalogue.transfers("id", "t1") == [early._replace(last_ns=9), late]
    with pytest.raises(ValueError, match="connection4"):
        catalogue.transfers("connection4", key)


def test_what_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        Catalogue(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / NAME).write_bytes(b"nonsense" * 1000)
    for is_writer in (False, True):
        with pytest.raises(InputError, match="cannot be used"):
            Catalogue(tmp_path, is_writer=is_writer)
