from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from perfmeasure import jsonio
from perfmeasure.analysis import database
from perfmeasure.errors import InputError, PerfmeasureError, UsageError

DOCUMENT: dict[str, Any] = {"type": "perfmeasure", "version": "1.0", "numbers": [1, 0.1 + 0.2]}


@pytest.mark.parametrize("name", ["db.json", "db.json.xz", "db.json.gz", "db.json.zst"])
def test_save_and_load(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    database.save(DOCUMENT, path)
    first = path.read_bytes()
    database.save(DOCUMENT, path)
    assert path.read_bytes() == first
    assert database.load(path) == DOCUMENT
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_saved_file_may_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    mask = os.umask(0o022)
    try:
        database.save(DOCUMENT, path)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "db.json"
    path.write_text("old")

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(PerfmeasureError, match="No space left") as caught:
        database.save(DOCUMENT, path)
    assert caught.value.exit_status == 1
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["db.json"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PerfmeasureError, match="cannot be written"):
        database.save(DOCUMENT, tmp_path / "nowhere" / "db.json")


@pytest.mark.parametrize("name", ["/dev/null", "."])
def test_what_is_no_plain_file_is_not_replaced(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a plain file"):
        database.save(DOCUMENT, tmp_path / name)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "not JSON"), (b"{", "not JSON"), (b"[]", "no object"), (b'{"a": NaN}', "NaN")],
)
def test_what_is_no_database(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "db.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        database.load(path)


def test_a_database_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "db.json.xz"
    database.save(DOCUMENT, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="end early"):
        database.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        database.load(tmp_path / "nothing")


def test_a_measurement_without_logs_has_no_parts() -> None:
    measurement = database.Measurement("192.0.2.1")
    measurement.link()
    document = database.build({"vm": measurement}, {})
    assert document["data"] == {"vm": {"measurement_ip": "192.0.2.1"}}
    assert jsonio.canonical(document)
