"""From the path in a request to an open file in the docroot, and to nothing outside it.

A file is opened once; what is sent, its size and its entity tag all come from that descriptor, so
that a file which is replaced by rename meanwhile is sent whole, as it was.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from perfmeasure.web.listing import is_public

METRICS_NAME = "metrics"
"""What a server that scrapes asks for: the text format of Prometheus, version 0.0.4."""

_GZIP_MAGIC = b"\x1f\x8b\x08"

_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".csv": b"text/csv; charset=utf-8",
    ".graphml": b"application/xml",
    ".gz": b"application/gzip",
    ".html": b"text/html; charset=utf-8",
    ".ico": b"image/x-icon",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".log": b"text/plain; charset=utf-8",
    ".pcap": b"application/vnd.tcpdump.pcap",
    ".pcapng": b"application/vnd.tcpdump.pcap",
    ".pdf": b"application/pdf",
    ".png": b"image/png",
    ".svg": b"image/svg+xml",
    ".tpf": b"text/plain; charset=utf-8",
    ".txt": b"text/plain; charset=utf-8",
    ".xml": b"application/xml",
    ".xz": b"application/x-xz",
    ".zst": b"application/zstd",
}


def content_type(name: str) -> bytes:
    """Return the media type of a file by the end of its name.

    A compressed file is served as what it is, with no ``Content-Encoding``: who fetches it by
    name gets the bytes that the index has the checksum of.
    """
    if name == METRICS_NAME:
        return b"text/plain; version=0.0.4; charset=utf-8"
    return _TYPES.get(Path(name).suffix.lower(), b"application/octet-stream")


def split_path(target: bytes) -> list[str] | None:
    """Return the names in a request's path, or None if it can name nothing public.

    Args:
        target: the path as it stands in the request, without the query. The last name is empty
            when the path ends in a slash.

    Names are cut at the slashes first and decoded then, so an encoded slash is in a name, where
    it cannot be: such a path, one with ``.``, ``..`` or NUL, and one with a name that is not
    public lead nowhere.
    """
    if not target.startswith(b"/"):
        return None
    names = [os.fsdecode(unquote_to_bytes(part)) for part in target[1:].split(b"/")]
    for position, name in enumerate(names):
        is_last = position == len(names) - 1
        if not (name or is_last) or "/" in name or "\0" in name:
            return None
        if name and not is_public(name):
            return None
    return names


def locate(docroot: Path, names: list[str]) -> Path | None:
    """Return the real path that ``names`` lead to, links followed; None if outside the docroot.

    Raises:
        OSError: there is no such file, or the path is longer than the system takes.
        RuntimeError: links lead in a circle (before Python 3.13).
    """
    root = docroot.resolve()
    real = root.joinpath(*names).resolve(strict=True)
    if not real.is_relative_to(root) or not all(map(is_public, real.relative_to(root).parts)):
        return None
    return real


@dataclass(frozen=True)
class OpenFile:
    """A regular file that is open for reading.

    Args:
        file: unbuffered; to be closed by whoever opened it.
        size_bytes: its size when it was opened.
        modified_ns: when it was last written, Unix time.
        etag: strong entity tag with its quotes. Publication never changes a file in place: other
            bytes are another inode, and have another time to the nanosecond.
    """

    file: BinaryIO
    size_bytes: int
    modified_ns: int
    etag: bytes

    @property
    def modified_unix_ts(self) -> int:
        """When it was last written, in whole seconds, as HTTP dates are."""
        return self.modified_ns // 1_000_000_000


def open_file(path: Path) -> OpenFile | None:
    """Open ``path`` if it is a regular file, without ever waiting (a FIFO would make us).

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    file = open(os.open(path, flags), "rb", buffering=0)  # noqa: PTH123, SIM115 - a descriptor
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        return None
    etag = b'"%x-%x-%x"' % (status.st_ino, status.st_size, status.st_mtime_ns)
    return OpenFile(file, status.st_size, status.st_mtime_ns, etag)


def gzip_sibling(path: Path, plain: OpenFile) -> OpenFile | None:
    """Open the compressed sibling of a file, ``NAME.gz``, if it was surely made from these bytes.

    That is so when it has the plain file's time to the nanosecond, as the publisher and
    ``gzip -k`` give it, and its trailer has the plain file's size. The publisher replaces
    the two one after the other; in between, and when somebody replaced only one, the times
    differ and the plain file is sent.
    """
    try:
        packed = open_file(path.with_name(path.name + ".gz"))
    except OSError:
        return None
    if packed is None:
        return None
    if packed.modified_ns == plain.modified_ns and packed.size_bytes >= 18:
        head = os.pread(packed.file.fileno(), 3, 0)
        trailer = os.pread(packed.file.fileno(), 4, packed.size_bytes - 4)
        if head == _GZIP_MAGIC and int.from_bytes(trailer, "little") == plain.size_bytes % 2**32:
            return packed
    packed.file.close()
    return None
