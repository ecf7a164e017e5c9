from __future__ import annotations

import base64
import hashlib
import os
import time
from typing import TYPE_CHECKING

from lxml import etree

from perfmeasure import jsonio
from perfmeasure.web import index
from perfmeasure.web.index import FileRecord, State

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ONE = FileRecord("a.json", 3, 784111777_123456789, 7, hashlib.sha256(b"abc").hexdigest())


def test_index_xml_has_onionperfs_form() -> None:
    assert index.index_xml([ONE]) == (
        b"<?xml version='1.0' encoding='UTF-8'?>\n<files>\n"
        b'  <file name="a.json" size="3" last_modified="1994-11-06 08:49:37"'
        b' sha256="ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="/>\n'
        b"</files>\n"
    )


def test_index_json() -> None:
    assert jsonio.loads(index.index_json([ONE])) == {
        "type": "perfmeasure-index",
        "version": "1.0",
        "files": [
            {
                "name": "a.json",
                "size_bytes": 3,
                "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "last_modified": "1994-11-06T08:49:37Z",
            }
        ],
    }


def test_names_of_all_kinds_are_well_formed_xml() -> None:
    names = ['"', "'", "<&>", "\u00fc \U0001f600", "a\\b"]
    records = [FileRecord(name, 0, 0, 0, "00") for name in names]
    root = etree.fromstring(index.index_xml(records))
    assert [file.get("name") for file in root] == names


def test_names_that_no_index_can_hold_are_told() -> None:
    names = ["fine", "line\nfeed", os.fsdecode(b"\xff"), "\x01"]
    listed, unlisted = index.listed(FileRecord(name, 0, 0, 0, "") for name in names)
    assert [record.name for record in listed] == ["fine"]
    assert sorted(unlisted) == sorted(names[1:])


def test_the_page_and_the_indexes_are_not_in_the_index() -> None:
    names = ["latest.json", "latest.json.gz", "index.xml", "index.json.gz", "style.css", "x.css"]
    names += ["bokeh.min.js", "status.json", "figures/2026.json", "figures/2026-11-22/day.json"]
    listed, _ = index.listed(FileRecord(name, 0, 0, 0, "") for name in names)
    assert [record.name for record in listed] == ["latest.json", "latest.json.gz", "x.css"]


def test_scan_finds_public_files_in_all_folders(tmp_path: Path) -> None:
    root = tmp_path / "docroot"
    for name in ("a", "sub/b", "sub/.c", ".hidden/d", "e.tmp"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "in").symlink_to("sub/b")
    (root / "gone").symlink_to("nowhere")
    (root / "sub" / "circle").symlink_to(root)
    os.mkfifo(root / "fifo")
    found = index.scan(root, {})
    assert list(found) == ["a", "in", "sub/b"]
    assert found["sub/b"].sha256 == hashlib.sha256(b"sub/b").hexdigest()
    assert found["sub/b"].size_bytes == 5


def test_known_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(b"x")
    known = index.scan(tmp_path, {})
    (tmp_path / "3").write_bytes(b"y")
    os.utime(tmp_path / "3", ns=(1, 1))
    read: list[str] = []

    def count(path: Path) -> str:
        read.append(path.name)
        return "00"

    monkeypatch.setattr(index, "sha256_of", count)
    assert index.scan(tmp_path, known)["3"].sha256 == "00"
    assert read == ["3"]


def test_a_file_that_may_yet_change_unseen_is_not_remembered() -> None:
    now_ns = time.time_ns()
    old = FileRecord("old", 1, now_ns - 10_000_000_000, 1, "00")
    new = FileRecord("new", 1, now_ns, 2, "00")
    assert index.settled([old, new]) == {"old": old}


def test_the_state_comes_back(tmp_path: Path) -> None:
    state = State("2026-11-22", {ONE.name: ONE})
    (tmp_path / index.STATE_NAME).write_bytes(state.dump())
    assert State.load(tmp_path) == state


def test_a_damaged_state_is_as_good_as_none(tmp_path: Path) -> None:
    whole = State("2026-11-22", {ONE.name: ONE}).dump()
    damaged = [whole[:cut] for cut in range(len(whole) - 2)]
    damaged += [b"[]", b"{}", b'{"latest_date":"","records":{"a":[1]}}', b"\xff", b"1"]
    damaged += [b'{"latest_date":"","records":{"a":["x","y","z","w"]}}']
    for content in damaged:
        (tmp_path / index.STATE_NAME).write_bytes(content)
        assert State.load(tmp_path) == State()
    (tmp_path / index.STATE_NAME).unlink()
    assert State.load(tmp_path) == State()


def test_the_page_lists_the_files_and_says_what_is_latest() -> None:
    latest = FileRecord("latest.json", 2048, 784111777_000000000, 1, "00")
    packed = FileRecord("latest.json.gz", 20, 784111777_000000000, 2, "00")
    page = index.page_html([ONE, latest, packed], "1994-11-06").decode()
    assert page.count('<a href="a.json">a.json</a>') == 1
    assert "latest.json.gz" not in page
    assert "the UTC day 1994-11-06, 2.0 KiB, published 1994-11-06 08:49:37 UTC" in page
    assert "Nothing has been published yet" not in page
    assert "Nothing has been published yet" in index.page_html([ONE], "").decode()


def test_the_page_asks_nothing_of_other_hosts() -> None:
    ours = [name for name in index.page_names() if not name.startswith("bokeh")]
    assert len(ours) < len(index.page_names())
    for name in ours:  # of Bokeh, tests/web/test_page.py looks at what it does
        content = index.page_file(name).decode()
        for sign in ("http:", "https:", 'src="//', "@import", "url("):
            assert sign not in content


def test_a_compressed_file_without_its_original_is_on_the_page() -> None:
    only = FileRecord("old.log.gz", 20, 0, 2, "00")
    assert '<a href="old.log.gz">' in index.page_html([only], "").decode()


def test_checksums_are_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "x").write_bytes(content)
    assert index.sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    record = index.scan(tmp_path, {})["x"]
    encoded = base64.b64encode(hashlib.sha256(content).digest())
    assert b'sha256="' + encoded + b'"' in index.index_xml([record])
