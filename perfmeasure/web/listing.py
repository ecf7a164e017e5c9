"""What a docroot shows: which names are public, and the list of a folder's files in HTML.

The list is for people and for the programs that collect from measurement hosts alike. Those read
it line by line and look for ``<a href="NAME">`` with a relative name, one link a line; every list
made here has that form.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from perfmeasure import units

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_UNFINISHED_SUFFIXES = ("~", ".tmp", ".part")


def is_public(name: str) -> bool:
    """Say whether a file or folder of this name may be listed and served.

    Hidden files and those that editors and copying programs have not finished are not public.
    """
    return bool(name) and not name.startswith(".") and not name.endswith(_UNFINISHED_SUFFIXES)


@dataclass(frozen=True, order=True)
class Entry:
    """One line of a list.

    Args:
        name: the name in the folder; a folder's ends in a slash.
        size_bytes: its size; None for a folder.
        modified_unix_ts: when it was last written, in whole seconds.
    """

    name: str
    size_bytes: int | None
    modified_unix_ts: int


def entries_of(folder: Path, root: Path) -> list[Entry]:
    """Return the public files and folders in ``folder``, by name.

    A link is listed as what it leads to, if that lies in ``root`` (both paths resolved);
    whatever is neither file nor folder is not listed.

    Raises:
        OSError: the folder cannot be read.
    """
    entries = []
    with os.scandir(folder) as found:
        for item in found:
            if not is_public(item.name):
                continue
            if item.is_symlink() and not os.path.realpath(item.path).startswith(f"{root}{os.sep}"):
                continue
            try:
                status = item.stat()
            except OSError:  # removed since the folder was read, or a link to nothing
                continue
            modified = int(status.st_mtime)
            if stat.S_ISDIR(status.st_mode):
                entries.append(Entry(item.name + "/", None, modified))
            elif stat.S_ISREG(status.st_mode):
                entries.append(Entry(item.name, status.st_size, modified))
    return sorted(entries)


def href(name: str) -> str:
    """Return ``name`` as a relative link."""
    return quote(os.fsencode(name), safe="/")


def text(name: str) -> str:
    """Return ``name`` as HTML text; bytes that are not UTF-8 show as a replacement character."""
    return escape(os.fsencode(name).decode("utf-8", "replace"))


def table_rows(entries: Iterable[Entry]) -> str:
    """Return one line ``<tr>…</tr>`` an entry: link, size, and UTC time of last change."""
    rows = []
    for entry in entries:
        changed = datetime.fromtimestamp(entry.modified_unix_ts, UTC)
        size = "" if entry.size_bytes is None else units.format_bytes(entry.size_bytes)
        title = "" if entry.size_bytes is None else f' title="{entry.size_bytes} bytes"'
        rows.append(
            f'<tr><td><a href="{href(entry.name)}">{text(entry.name)}</a></td>'
            f'<td class="size"{title}>{size}</td>'
            f"<td>{changed:%Y-%m-%d %H:%M:%S}</td></tr>\n"
        )
    return "".join(rows)


def folder_page(title: str, entries: Iterable[Entry], *, has_parent: bool) -> bytes:
    """Return the page that lists a folder which has no index.html of its own.

    Args:
        title: the folder's path as the client sees it, such as ``/figures/``.
        entries: what to list.
        has_parent: begin with a link to the folder above.
    """
    parent = '<p><a href="../">../</a></p>\n' if has_parent else ""
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>Index of {text(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "</head>\n<body>\n"
        f"<h1>Index of {text(title)}</h1>\n{parent}"
        "<table>\n<thead><tr><th>Name</th><th>Size</th><th>Last change (UTC)</th></tr></thead>\n"
        f"<tbody>\n{table_rows(entries)}</tbody>\n</table>\n</body>\n</html>\n"
    )
    return page.encode("utf-8")
