"""What test_store.py does not kill: single faults, and the messages about them."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from perfmeasure.errors import InputError
from perfmeasure.recorder import core
from perfmeasure.recorder.capturefile import CaptureFile
from perfmeasure.recorder.catalogue import NAME
from perfmeasure.recorder.predicate import Not, Or
from perfmeasure.recorder.recovery import entries_of_files, recover
from perfmeasure.recorder.segment import header
from perfmeasure.recorder.store import Store
from perfmeasure.recorder.writer import Limits, StoreWriter
from tests.recorder import made

EVERYTHING = Not(Or(()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of ten segments, closed in order."""
    (tmp_path / "in.pcap").write_bytes(made.pcap(made.trace(1, 1000, 60)))
    writer = StoreWriter(tmp_path / "store", {"all": Limits(segment_bytes=18_000)})
    for batch in CaptureFile(tmp_path / "in.pcap").batches():
        writer.append("all", batch.data, batch.frames, core.decode(batch.data, batch.frames))
    writer.close()
    return tmp_path / "store"


def recovered(folder: Path) -> list[str]:
    """Recover the store; a second time finds nothing, and files and answers agree."""
    catalogue, messages = recover(folder)
    entries = catalogue.segments()
    catalogue.close()
    catalogue, again = recover(folder)
    catalogue.close()
    assert again == []
    assert entries == entries_of_files(folder)
    store = Store(folder)
    assert store.count(EVERYTHING).packets == sum(entry.summary.packets for entry in entries)
    assert store.problems == []
    return messages


def test_a_store_in_order_is_left_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}
    assert recovered(folder) == []
    for path, changed_ns in before.items():
        if "catalogue" not in path.name:
            assert path.stat().st_mtime_ns == changed_ns


def test_a_store_of_a_newer_version_is_read_but_not_touched(folder: Path) -> None:
    database = sqlite3.connect(folder / NAME)
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix == ".sqlite"}
    for _ in range(2):  # the first one lets go of the store
        with pytest.raises(InputError, match="version 99, of a newer perfmeasure"):
            StoreWriter(folder)
    assert {path: path.read_bytes() for path in before} == before
    store = Store(folder)
    assert store.count(EVERYTHING).packets > 0
    assert "files were read instead" in store.problems[0]


def test_a_segment_that_someone_deleted(folder: Path) -> None:
    (folder / "segments/all/00000003.pcap").unlink()
    messages = recovered(folder)
    assert len(messages) == 2
    assert any("segment 3 is gone" in message for message in messages)


def test_a_segment_that_someone_shortened(folder: Path) -> None:
    path = folder / "segments/all/00000003.pcap"
    os.truncate(path, path.stat().st_size - 5)
    messages = recovered(folder)
    assert any("were cut off" in message for message in messages)
    assert path.stat().st_size > 15_000


def test_a_segment_that_is_none(folder: Path) -> None:
    (folder / "segments/all/00000003.pcap").write_bytes(b"nonsense" * 100)
    (folder / "segments/all/00000003.npz").unlink()
    messages = recovered(folder)
    assert any("put aside" in message for message in messages)
    assert (folder / "segments/all/00000003.pcap.damaged").exists()


@pytest.mark.parametrize("content", [b"", header(1)[:10], header(1), header(1) + b"half"])
def test_a_segment_that_was_begun_and_has_no_packets(folder: Path, content: bytes) -> None:
    (folder / "segments/all/00000099.pcap.part").write_bytes(content)
    (folder / "segments/all/00000099.npz.part").write_bytes(b"")
    assert Store(folder).count(EVERYTHING).packets == 1000
    recovered(folder)
    assert not list(folder.rglob("*.part"))


def test_numbers_are_not_used_again(folder: Path) -> None:
    writer = StoreWriter(folder)
    numbers = {int(path.stem) for path in folder.rglob("segments/*/*.pcap")}
    assert writer._next > max(numbers)
    writer.close()
