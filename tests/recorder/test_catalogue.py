from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from perfmeasure.errors import InputError, UsageError
from perfmeasure.recorder.catalogue import NAME, Catalogue, Transfer, used_by
from perfmeasure.recorder.keys import parse_key
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


def test_transfers_are_found_by_id_circuit_and_connection(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, is_writer=True)
    key, other = "tcp 10.0.0.1:80 10.0.0.2:81", "tcp 10.0.0.1:80 10.0.0.3:81"
    late = Transfer("m2", "t1", "c1", key, 50, 60)
    early = Transfer("m1", "t1", "c2", key, 5, 6)
    guard = Transfer("m1", "t1", "c2", other, 5, 6)
    second = Transfer("m1", "t2", "c1", key, 7, 8)
    catalogue.put_transfers([late, early, guard, second])
    assert catalogue.transfers("id", "t1") == [early, guard, late]
    assert catalogue.transfers("circuit", "c1") == [second, late]
    assert catalogue.transfers("connection4", other) == [guard]
    assert catalogue.transfers("id", "t3") == []
    with pytest.raises(ValueError, match="first_ns"):
        catalogue.transfers("first_ns", "5")
    assert used_by([guard]) == [(parse_key("connection4", other), 5, 6)]
    with pytest.raises(UsageError, match="nonsense"):
        used_by([guard._replace(connection4="nonsense")])


def test_what_is_known_of_a_measurement_is_replaced_as_a_whole(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, is_writer=True)
    key = "tcp 10.0.0.1:80 10.0.0.2:81"
    gone, other = Transfer("m1", "t1", "", key, 5, 6), Transfer("m2", "t1", "", key, 50, 60)
    catalogue.put_transfers([gone, other])
    catalogue.put_transfers([gone._replace(id="t2"), gone._replace(id="t2")])
    assert catalogue.transfers("id", "t1") == [other]
    assert catalogue.transfers("id", "t2") == [gone._replace(id="t2")]
    catalogue.put_transfers([])
    assert catalogue.transfers("connection4", key) == [gone._replace(id="t2"), other]
    reader = Catalogue(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        reader.put_transfers([gone])


def test_what_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        Catalogue(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / NAME).write_bytes(b"nonsense" * 1000)
    for is_writer in (False, True):
        with pytest.raises(InputError, match="cannot be used"):
            Catalogue(tmp_path, is_writer=is_writer)


def test_a_catalogue_of_another_version_is_refused(tmp_path: Path) -> None:
    Catalogue(tmp_path, is_writer=True).close()
    database = sqlite3.connect(tmp_path / NAME)
    database.execute("PRAGMA user_version = 1")
    database.close()
    for is_writer in (False, True):
        with pytest.raises(InputError, match="version 1; wanted version 2"):
            Catalogue(tmp_path, is_writer=is_writer)
