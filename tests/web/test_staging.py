from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import os
from pathlib import Path

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.web import index, staging
from perfmeasure.web.listing import is_public
from perfmeasure.web.staging import Staging, explained, locked


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_nothing_appears_before_the_commit(tmp_path: Path) -> None:
    with Staging(tmp_path, {}) as files:
        files.add("a.xz", b"a")
        files.add("sub/b.xz", b"b")
        assert not any(is_public(path.name) for path in tmp_path.iterdir())
        files.commit()
    assert _files(tmp_path) == {"a.xz": b"a", "sub/b.xz": b"b"}


def test_without_a_commit_nothing_is_left(tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError), Staging(tmp_path, {}) as files:
        files.add("a.xz", b"a")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_publication_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".publish-1" / "deep").mkdir(parents=True)
    (tmp_path / ".publish-1" / "deep" / "0").write_bytes(b"x")
    (tmp_path / ".publish-file").write_bytes(b"x")
    (tmp_path / ".other").write_bytes(b"x")
    with Staging(tmp_path, {}):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".other"]


def test_text_has_a_compressed_sibling_of_the_same_time(tmp_path: Path) -> None:
    text = b'{"a":1}\n' * 1000
    with Staging(tmp_path, {}) as files:
        files.add("a.json", text)
        files.add("b.xz", b"b")
        assert list(files.records) == ["a.json.gz", "a.json", "b.xz"]
        files.commit()
    packed = (tmp_path / "a.json.gz").read_bytes()
    assert gzip.decompress(packed) == text
    assert packed[4:8] == bytes(4)  # no time inside: the same text gives the same bytes
    times = {(tmp_path / name).stat().st_mtime_ns for name in ("a.json", "a.json.gz", "b.xz")}
    assert len(times) == 1


def test_the_records_are_of_the_files_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"copied")
    (tmp_path / "docroot").mkdir()
    with Staging(tmp_path / "docroot", {}) as files:
        files.add("a.json", b"{}\n")
        files.add("copy.xz", tmp_path / "source")
        files.commit()
    assert files.records == index.scan(tmp_path / "docroot", {})
    assert (tmp_path / "source").read_bytes() == b"copied"


def test_the_same_bytes_are_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"copied")
    docroot = tmp_path / "docroot"
    docroot.mkdir()
    contents: dict[str, bytes | Path] = {"a.json": b"{}\n", "b.xz": tmp_path / "source"}
    for content in (contents, contents):
        with Staging(docroot, index.scan(docroot, {})) as files:
            for name, bytes_or_path in content.items():
                files.add(name, bytes_or_path)
            files.commit()
    assert files.unchanged == ["a.json", "b.xz"]
    assert files.records == {}
    (docroot / "a.json.gz").unlink()
    with Staging(docroot, index.scan(docroot, {})) as files:
        files.add("a.json", b"{}\n")
        assert list(files.records) == ["a.json.gz", "a.json"]


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "../a", "a/../b", "a//b", "a/", ".", ".hidden", "a/.b", "x.tmp", "./a"],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with Staging(tmp_path, {}) as files, pytest.raises(ValueError, match="cannot be published"):
        files.add(name, b"")


def test_a_folder_in_the_way_is_noticed_before_anything_changes(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(MeasurementError, match="Is a directory"), explained(tmp_path):  # noqa: SIM117
        with Staging(tmp_path, {}) as files:
            files.add("a.json", b"")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained(tmp_path: Path, number: int) -> None:
    with pytest.raises(MeasurementError) as caught, explained(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{tmp_path}: no room to publish (")
    assert "unchanged" in str(caught.value)


def test_other_failures_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"/x: cannot be published \(Permission denied\)"):  # noqa: SIM117
        with explained(tmp_path):
            raise PermissionError(13, "Permission denied", "/x")


def test_one_publisher_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_LOCK_WAIT_SECONDS", 0.2)
    with locked(tmp_path):
        with pytest.raises(MeasurementError, match="one publication at a time"), locked(tmp_path):
            pass
        with (tmp_path / ".publisher.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with locked(tmp_path):
        pass
