from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perfmeasure.web import files
from perfmeasure.web.files import OpenFile, gzip_sibling, locate, open_file, split_path

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (b"/", [""]),
        (b"/a", ["a"]),
        (b"/a/", ["a", ""]),
        (b"/a%20b/%C3%BC", ["a b", "\u00fc"]),
        (b"/..", None),
        (b"/../etc/passwd", None),
        (b"/a/../b", None),
        (b"/%2e%2e/x", None),
        (b"/%2E./x", None),
        (b"/a/./b", None),
        (b"/a%2fb", None),
        (b"/..%2fx", None),
        (b"/%00", None),
        (b"/a%00.json", None),
        (b"//a", None),
        (b"//", None),
        (b"/.hidden", None),
        (b"/%2ehidden", None),
        (b"/a/.git/config", None),
        (b"/x.tmp", None),
        (b"", None),
        (b"*", None),
        (b"a", None),
        (b"/%252e%252e/x", ["%2e%2e", "x"]),
        (b"/..\\x", None),
        (b"/a\\..\\x", ["a\\..\\x"]),
    ],
)
def test_paths(target: bytes, names: list[str] | None) -> None:
    assert split_path(target) == names


@given(st.binary(max_size=40))
@example(b"/%")
@example(b"/%2")
@example(b"/%zz")
def test_no_path_leads_up_or_to_hidden_names(target: bytes) -> None:
    names = split_path(target)
    for name in names or []:
        assert not name.startswith(".")
        assert "/" not in name
        assert "\0" not in name


def test_links_are_followed_inside_only(tmp_path: Path) -> None:
    root = tmp_path / "docroot"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "docroot-other").mkdir()
    for name in ("secret", "docroot-other/x", "docroot/a", "docroot/.hidden", "docroot/sub/b"):
        (tmp_path / name).write_bytes(b"")
    (root / "in").symlink_to("sub/b")
    (root / "out").symlink_to("../secret")
    (root / "beside").symlink_to(tmp_path / "docroot-other")
    (root / "to-hidden").symlink_to(".hidden")
    (root / "top").symlink_to(root)
    real = root.resolve()
    assert locate(root, [""]) == real
    assert locate(root, ["a"]) == real / "a"
    assert locate(root, ["in"]) == real / "sub" / "b"
    assert locate(root, ["top", "top", "a"]) == real / "a"
    assert locate(root, ["out"]) is None
    assert locate(root, ["beside", "x"]) is None
    assert locate(root, ["to-hidden"]) is None
    with pytest.raises(FileNotFoundError):
        locate(root, ["none"])
    with pytest.raises(NotADirectoryError):
        locate(root, ["a", "b"])
    with pytest.raises(OSError, match="too long"):
        locate(root, ["x" * 5000])
    (tmp_path / "link").symlink_to(root)
    assert locate(tmp_path / "link", ["a"]) == real / "a"


def test_only_regular_files_are_opened_and_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert open_file(tmp_path / "fifo") is None
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "none")


def _open(path: Path) -> OpenFile:
    opened = open_file(path)
    assert opened is not None
    opened.file.close()
    return opened


def test_the_entity_tag_is_new_for_every_replacement(tmp_path: Path) -> None:
    path = tmp_path / "x"
    tags = set()
    for number in range(50):
        (tmp_path / "new").write_bytes(b"same size")
        os.utime(tmp_path / "new", ns=(number, number))
        (tmp_path / "new").rename(path)
        tags.add(_open(path).etag)
    assert len(tags) == 50
    assert _open(path).etag == _open(path).etag


def test_a_sibling_is_used_only_if_it_belongs_to_the_file(tmp_path: Path) -> None:
    path, packed = tmp_path / "x.json", tmp_path / "x.json.gz"
    path.write_bytes(b"content")
    plain = _open(path)

    def has_sibling() -> bool:
        found = gzip_sibling(path, plain)
        if found is None:
            return False
        found.file.close()
        return True

    def put(content: bytes, offset_ns: int = 0) -> None:
        packed.write_bytes(content)
        os.utime(packed, ns=(plain.modified_ns + offset_ns,) * 2)

    assert not has_sibling()
    put(gzip.compress(b"content"))
    assert has_sibling()
    put(gzip.compress(b"content"), offset_ns=1)
    assert not has_sibling()
    put(gzip.compress(b"content"), offset_ns=-1)
    assert not has_sibling()
    put(gzip.compress(b"other content"))
    assert not has_sibling()
    put(b"")
    assert not has_sibling()
    put(b"no gzip, yet of the right end: " + (7).to_bytes(4, "little"))
    assert not has_sibling()
    packed.unlink()
    packed.mkdir()
    assert not has_sibling()


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("latest.json", b"application/json"),
        ("latest.json.gz", b"application/gzip"),
        ("2026-11-22.onionperf.analysis.json.xz", b"application/x-xz"),
        ("a.tpf", b"text/plain; charset=utf-8"),
        ("index.xml", b"application/xml"),
        ("packets/2026-11-22/a.b.pcapng", b"application/vnd.tcpdump.pcap"),
        ("INDEX.HTML", b"text/html; charset=utf-8"),
        ("x.log", b"text/plain; charset=utf-8"),
        ("x", b"application/octet-stream"),
        ("x.exe", b"application/octet-stream"),
    ],
)
def test_media_types(name: str, media_type: bytes) -> None:
    assert files.content_type(name) == media_type
