from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from perfmeasure.web import listing

if TYPE_CHECKING:
    from pathlib import Path

# The two expressions that CollecTor's reader of measurement hosts looks for, line by line.
_COLLECTED = (
    re.compile(r'.*<a href="([0-9-]{10}\.onionperf\.analysis\.json\.xz)">.*'),
    re.compile(r'.*<a href="([^"]+\.tpf)">.*'),
)


def collected(page: str) -> list[str]:
    """Read a listing as CollecTor does."""
    found = []
    for line in page.splitlines():
        found += [match[1] for pattern in _COLLECTED if (match := pattern.fullmatch(line))]
    return found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self._href = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._href = dict(attrs)["href"] or ""

    def handle_data(self, data: str) -> None:
        if self._href:
            self.links[self._href] = data
            self._href = ""


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("latest.json", True),
        ("a b", True),
        (".publisher.json", False),
        (".", False),
        ("..", False),
        ("", False),
        ("x.json~", False),
        ("x.tmp", False),
        ("x.part", False),
    ],
)
def test_what_is_public(name: str, *, public: bool) -> None:
    assert listing.is_public(name) is public


def test_collectors_find_each_day_once(tmp_path: Path) -> None:
    days = [f"2026-11-{day:02d}.onionperf.analysis.json.xz" for day in range(1, 31)]
    for name in [*days, "host-51200-2019-01-01.tpf", "index.xml", "2026-11-01.onionperf.xz"]:
        (tmp_path / name).write_bytes(b"x")
    page = listing.folder_page("/", listing.entries_of(tmp_path, tmp_path), has_parent=False)
    assert collected(page.decode()) == [*days, "host-51200-2019-01-01.tpf"]


def test_names_of_all_kinds_come_back_from_the_page(tmp_path: Path) -> None:
    names = [
        "a b", 'q"uote', "<b>&amp;", "per%20cent", "c#d?e", "javascript:x", "\u00fc.txt", "'", "+",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub").mkdir()
    page = listing.folder_page("/<i>/", listing.entries_of(tmp_path, tmp_path), has_parent=True)
    reader = _Links()
    reader.feed(page.decode())
    assert {unquote(link) for link in reader.links} == {*names, "sub/", "../"}
    assert "<i>" not in page.decode()
    assert all(link.count(":") == 0 for link in reader.links)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe")).write_bytes(b"")
    page = listing.folder_page("/", listing.entries_of(tmp_path, tmp_path), has_parent=False)
    assert b'href="%FF%FE"' in page
    page.decode("utf-8")


def test_sizes_and_dates(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"y" * 2048)
    os.utime(tmp_path / "x", (784111777, 784111777))
    (entry,) = listing.entries_of(tmp_path, tmp_path)
    assert entry == listing.Entry("x", 2048, 784111777)
    assert listing.table_rows([entry]) == (
        '<tr><td><a href="x">x</a></td><td class="size" title="2048 bytes">2.0 KiB</td>'
        "<td>1994-11-06 08:49:37</td></tr>\n"
    )


def test_only_files_and_folders_of_the_docroot_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "docroot"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"")
    (root / "file").write_bytes(b"")
    (root / ".hidden").write_bytes(b"")
    (root / "to-file").symlink_to("file")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "nowhere").symlink_to("gone")
    (root / "circle").symlink_to("circle")
    os.mkfifo(root / "fifo")
    names = [entry.name for entry in listing.entries_of(root, root)]
    assert names == ["file", "sub/", "to-file"]
