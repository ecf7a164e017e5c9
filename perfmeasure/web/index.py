"""What is published, with sizes and checksums: index.xml, index.json and the page's table.

A file is hashed once: its checksum is kept with its size, time and inode in `STATE_NAME`, a
hidden file of the docroot, so that a publication costs the same after years as on the first day.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import os
import re
import stat
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from perfmeasure import jsonio, units
from perfmeasure.errors import InputError
from perfmeasure.web import figures
from perfmeasure.web.listing import Entry, is_public, table_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

STATE_NAME = ".publisher.json"
INDEX_NAMES = ("index.json", "index.xml", "index.html")
LATEST_NAME = "latest.json"
STATUS_NAME = "status.json"
"""What a measurement that runs writes beside what is published."""
NO_STATUS = jsonio.canonical({"type": "perfmeasure-status", "version": "1.0", "state": "none"})
"""What stands there when none ever ran: a page that asks again and again gets an answer."""
TOPOLOGY_NAME = "topology.json"
PACKETS_FOLDER = "packets"

_BOKEH_NAMES = ("bokeh-api.min.js", "bokeh.min.js")
_BLOCK_BYTES = 1 << 20
# A file whose time is this near may yet change without its time changing; it is hashed again.
_UNSETTLED_NS = 2_000_000_000
# What XML can hold, and what stays one line in a listing.
_UNNAMEABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class FileRecord:
    """One public file.

    Args:
        name: its path from the docroot, with slashes.
        size_bytes: its size.
        modified_ns: when it was last written, Unix time.
        inode: the file behind the name.
        sha256: of its bytes, in hexadecimal.
    """

    name: str
    size_bytes: int
    modified_ns: int
    inode: int
    sha256: str


@dataclass
class State:
    """What the publisher remembers from one publication to the next.

    Args:
        latest_date: the UTC day that `LATEST_NAME` holds, or nothing.
        records: the files whose checksums are known, by name.
    """

    latest_date: str = ""
    records: dict[str, FileRecord] = field(default_factory=dict)

    @classmethod
    def load(cls, docroot: Path) -> State:
        """Read the state; one that is missing or damaged is made anew from the files."""
        try:
            document = jsonio.loads((docroot / STATE_NAME).read_bytes(), STATE_NAME)
            records = {
                str(name): FileRecord(str(name), int(size), int(modified), int(inode), str(sha256))
                for name, (size, modified, inode, sha256) in document["records"].items()
            }
            return cls(str(document["latest_date"]), records)
        except (OSError, InputError, AttributeError, KeyError, TypeError, ValueError):
            return cls()

    def dump(self) -> bytes:
        """Return the state as it is stored."""
        records = {
            record.name: [record.size_bytes, record.modified_ns, record.inode, record.sha256]
            for record in self.records.values()
        }
        return jsonio.canonical({"latest_date": self.latest_date, "records": records})


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def scan(docroot: Path, known: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    """Return a record of every public regular file, by name; those in ``known`` are not read.

    Links to folders are not followed, so that no file appears twice and no circle traps us; a
    link to a file counts as that file if it lies in the docroot.

    Raises:
        OSError: a file cannot be read.
    """
    root = docroot.resolve()
    records = {}
    for name in _public_names(root):
        path = root / name
        with contextlib.suppress(FileNotFoundError):  # removed since the folder was read
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                continue
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            size, modified_ns, inode = status.st_size, status.st_mtime_ns, status.st_ino
            old = known.get(name)
            if old is not None and old == FileRecord(name, size, modified_ns, inode, old.sha256):
                records[name] = old
            else:
                records[name] = FileRecord(name, size, modified_ns, inode, sha256_of(path))
    return records


def _public_names(root: Path) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(filter(is_public, subfolders))
        for name in sorted(filter(is_public, names)):
            yield os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118 - str is faster


def settled(records: Iterable[FileRecord]) -> dict[str, FileRecord]:
    """Return the records, by name, whose files cannot change any more without a new time."""
    now_ns = time.time_ns()
    return {
        record.name: record for record in records if now_ns - record.modified_ns > _UNSETTLED_NS
    }


def listed(records: Iterable[FileRecord]) -> tuple[list[FileRecord], list[str]]:
    """Return what an index lists, by name, and the names that no index can hold.

    The page with its figures, a measurement's status and the indexes are not listed: an index
    cannot have its own checksum.
    """
    hidden = {*INDEX_NAMES, *page_names(), STATUS_NAME}
    hidden |= {name + ".gz" for name in hidden}
    candidates = sorted(
        (
            record
            for record in records
            if record.name not in hidden and not record.name.startswith(f"{figures.FOLDER}/")
        ),
        key=lambda record: record.name,
    )
    return (
        [record for record in candidates if not _UNNAMEABLE.search(record.name)],
        [record.name for record in candidates if _UNNAMEABLE.search(record.name)],
    )


def index_json(records: Iterable[FileRecord]) -> bytes:
    """Return index.json: ``{"files": [{"name", "size_bytes", "sha256", "last_modified"}]}``.

    ``sha256`` is hexadecimal, ``last_modified`` is ISO 8601 in UTC.
    """
    files = [
        {
            "name": record.name,
            "size_bytes": record.size_bytes,
            "sha256": record.sha256,
            "last_modified": f"{_changed(record):%Y-%m-%dT%H:%M:%SZ}",
        }
        for record in records
    ]
    return jsonio.canonical({"type": "perfmeasure-index", "version": "1.0", "files": files})


def index_xml(records: Iterable[FileRecord]) -> bytes:
    """Return index.xml in OnionPerf's form: SHA-256 in base64, times in UTC."""
    lines = ["<?xml version='1.0' encoding='UTF-8'?>", "<files>"]
    for record in records:
        sha256 = base64.b64encode(bytes.fromhex(record.sha256)).decode("ascii")
        lines.append(
            f'  <file name={quoteattr(record.name)} size="{record.size_bytes}"'
            f' last_modified="{_changed(record):%Y-%m-%d %H:%M:%S}" sha256="{sha256}"/>'
        )
    return "\n".join([*lines, "</files>", ""]).encode("utf-8")


def _changed(record: FileRecord) -> datetime:
    return datetime.fromtimestamp(record.modified_ns // 1_000_000_000, UTC)


def page_names() -> list[str]:
    """Return the names of the page's own files: those of the package, and of Bokeh."""
    folder = resources.files("perfmeasure") / "docroot"
    own = (file.name for file in folder.iterdir() if is_public(file.name))
    return sorted([*own, *_BOKEH_NAMES])


def page_file(name: str) -> bytes:
    """Return one of the page's own files."""
    if name in _BOKEH_NAMES:
        return (_bokeh_folder() / name).read_bytes()
    return (resources.files("perfmeasure") / "docroot" / name).read_bytes()


def _bokeh_folder() -> Path:
    # Importing the package would take longer than all else that is done here.
    spec = importlib.util.find_spec("bokeh")
    assert spec is not None  # noqa: S101 - one of our dependencies
    assert spec.origin is not None  # noqa: S101
    return Path(spec.origin).parent / "server" / "static" / "js"


def page_html(records: Iterable[FileRecord], latest_date: str) -> bytes:
    """Return index.html: the package's, with the latest database and the list of files filled in.

    Compressed siblings are left out of the list: a client that accepts gzip gets them anyway. Of
    packets, of which there may be ten thousands of files, it has the folder of each day.
    """
    by_name = {record.name: record for record in records}
    folders: dict[str, int] = {}
    for name in [name for name in by_name if name.startswith(f"{PACKETS_FOLDER}/")]:
        changed = by_name.pop(name).modified_ns // 1_000_000_000
        folder = name.rpartition("/")[0] + "/"
        folders[folder] = max(folders.get(folder, 0), changed)
    entries = [
        Entry(record.name, record.size_bytes, record.modified_ns // 1_000_000_000)
        for record in by_name.values()
        if record.name.removesuffix(".gz") not in by_name or not record.name.endswith(".gz")
    ]
    entries += [Entry(folder, None, changed) for folder, changed in folders.items()]
    page = page_file("index.html").decode("utf-8")
    page = _fill(page, "files", table_rows(entries))
    latest = by_name.get(LATEST_NAME)
    if latest is not None:
        day = f", the UTC day {latest_date}" if latest_date else ""
        page = _fill(
            page,
            "latest",
            f'<p><a href="{LATEST_NAME}">{LATEST_NAME}</a>: the newest database{day}, '
            f"{units.format_bytes(latest.size_bytes)}, "
            f"published {_changed(latest):%Y-%m-%d %H:%M:%S} UTC.</p>\n",
        )
    return page.encode("utf-8")


def _fill(page: str, mark: str, content: str) -> str:
    before, begin, rest = page.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    return before + begin + content + end + after
