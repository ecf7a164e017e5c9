"""Answers to requests: a file of the docroot, the list of a folder, or what is wrong.

Every answer may be kept by the client but is asked for again (``no-cache``): the entity tag makes
that cheap. What is served is public, so that a page of any other site may read it too.
"""

from __future__ import annotations

import errno
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.web.http import RESPONSES, Request

from perfmeasure.web import conditions, files, listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfmeasure.web.files import OpenFile

ALLOWED_METHODS = (b"GET", b"HEAD", b"OPTIONS")
_BLOCK_BYTES = 1 << 16


class Sender:
    """Sends a part of a file as fast as the client takes it (a push producer).

    At most one block more than the transport's buffer is in memory for a connection, and the
    request ends only when the transport has room again, so that many requests sent at once by a
    client that reads nothing do not pile up answers here.

    Args:
        request: the request to answer; its headers are set.
        file: what to send from; closed when the request ends, however it ends.
        offset_bytes: where to begin.
        length_bytes: how much to send.
        on_progress: called whenever the client has taken a block.
    """

    def __init__(
        self,
        request: Request,
        file: BinaryIO,
        offset_bytes: int,
        length_bytes: int,
        on_progress: Callable[[], None],
    ) -> None:
        self._request = request
        self._file = file
        self._left_bytes = length_bytes
        self._on_progress = on_progress
        self._is_paused = False
        file.seek(offset_bytes)

    def start(self, *, is_congested: bool) -> None:
        """Begin; when the transport is congested, only once it has room."""
        self._request.registerProducer(self, True)
        if is_congested:
            self._is_paused = True
        else:
            self.resumeProducing()

    def resumeProducing(self) -> None:
        """Send until the transport says stop, then wait."""
        self._is_paused = False
        self._on_progress()
        while self._left_bytes and not self._is_paused:
            try:
                block = self._file.read(min(_BLOCK_BYTES, self._left_bytes))
            except OSError:
                block = b""
            if not block:  # the file was cut or its disk fails: a broken connection says so
                self._request.unregisterProducer()
                transport: Any = self._request.transport
                transport.abortConnection()
                return
            self._left_bytes -= len(block)
            self._request.write(block)
        if not self._is_paused:
            self._request.unregisterProducer()
            self._request.finish()

    def pauseProducing(self) -> None:
        """Stop until the transport has room again."""
        self._is_paused = True

    def stopProducing(self) -> None:
        """Do nothing: the connection is gone, and the end of the request closes the file."""


class DocrootResource:
    """All of a docroot.

    Args:
        docroot: the folder; looked up anew for each request, so it may be a link that changes.
        on_error: called with one line when a file is there and cannot be read.
    """

    def __init__(self, docroot: Path, on_error: Callable[[str], None]) -> None:
        self._docroot = docroot
        self._on_error = on_error

    def respond(self, request: Request, send: Callable[[BinaryIO, int, int], None]) -> None:
        """Answer ``request``.

        Args:
            request: a request whose method, path and headers are complete.
            send: sends (file, offset, length) as the body and ends the request.
        """
        answer = _Answer(request, send)
        request.setHeader(b"Date", conditions.http_date(time.time()))
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        request.setHeader(b"Access-Control-Allow-Origin", b"*")
        hosts = request.requestHeaders.getRawHeaders(b"Host", [])
        if request.clientproto == b"HTTP/1.1" and len(hosts) != 1:
            answer.error(400)
        elif request.method not in ALLOWED_METHODS:
            answer.error(405)
        elif request.method == b"OPTIONS":
            answer.options()
        else:
            self._get(request, answer)

    def _get(self, request: Request, answer: _Answer) -> None:
        names = files.split_path(_origin_form(request.path))
        if names is None:
            answer.error(404)
            return
        try:
            path = files.locate(self._docroot, names)
            if path is None:
                answer.error(404)
            elif path.is_dir():
                self._get_folder(path, names, answer)
            elif not names[-1]:  # FILE/ is not FILE
                answer.error(404)
            else:
                answer.file(path, files.open_file(path))
        except RuntimeError:  # a circle of links
            answer.error(404)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                answer.error(404)
            elif error.errno in (errno.EACCES, errno.EPERM):
                self._on_error(f"{error.filename}: cannot be served ({error.strerror})")
                answer.error(403)
            else:
                self._on_error(f"{error.filename}: cannot be served ({error.strerror})")
                answer.error(503)

    def _get_folder(self, path: Path, names: list[str], answer: _Answer) -> None:
        if names[-1]:
            answer.redirect(listing.href(names[-1]) + "/")
            return
        try:
            index = files.open_file(path / "index.html")
        except FileNotFoundError:
            index = None
        if index is not None:
            answer.file(path / "index.html", index)
            return
        root = self._docroot.resolve()
        page = listing.folder_page(
            "/" + "/".join(names), listing.entries_of(path, root), has_parent=path != root
        )
        answer.body(200, b"text/html; charset=utf-8", page)


class _Answer:
    """The forms that the answer to one request can take."""

    def __init__(self, request: Request, send: Callable[[BinaryIO, int, int], None]) -> None:
        self._request = request
        self._send = send

    def options(self) -> None:
        """Say which methods there are."""
        self._request.setResponseCode(204)
        self._request.setHeader(b"Allow", b", ".join(ALLOWED_METHODS))
        self._request.finish()

    def redirect(self, relative: str) -> None:
        """Send the client to a path beside this one."""
        # "./" because a name may begin with what looks like a scheme.
        self._request.setHeader(b"Location", b"./" + relative.encode("ascii"))
        self.body(301, b"text/plain; charset=utf-8", b"301 Moved Permanently\n")

    def error(self, code: int) -> None:
        """Say in one line what is wrong."""
        if code == 405:
            self._request.setHeader(b"Allow", b", ".join(ALLOWED_METHODS))
        self.body(code, b"text/plain; charset=utf-8", b"%d %s\n" % (code, RESPONSES[code]))

    def body(self, code: int, media_type: bytes, content: bytes) -> None:
        """Send ``content``."""
        self._request.setResponseCode(code)
        self._request.setHeader(b"Content-Type", media_type)
        self._request.setHeader(b"Content-Length", b"%d" % len(content))
        self._request.setHeader(b"Cache-Control", b"no-cache")
        self._deliver(io.BytesIO(content), 0, len(content))

    def file(self, path: Path, plain: OpenFile | None) -> None:
        """Send a file, its compressed sibling, a part of it, or word that it has not changed."""
        if plain is None:
            self.error(404)
            return
        request = self._request
        request.setHeader(b"Cache-Control", b"no-cache")
        request.setHeader(b"Vary", b"Accept-Encoding")
        request.setHeader(b"Content-Type", files.content_type(path.name))
        wants_part = request.method == b"GET" and request.getHeader(b"Range") is not None
        if not (wants_part and self._file_part(plain)):
            self._file_whole(path, plain)

    def _file_part(self, plain: OpenFile) -> bool:
        """Answer with the range that was asked for; False if the whole file is the answer."""
        request = self._request
        if_range = request.getHeader(b"If-Range")
        if not conditions.is_range_current(if_range, plain.etag, plain.modified_unix_ts):
            return False
        try:
            part = conditions.parse_range(request.getHeader(b"Range"), plain.size_bytes)
        except conditions.UnsatisfiableRangeError:
            plain.file.close()
            request.setHeader(b"Content-Range", b"bytes */%d" % plain.size_bytes)
            self.error(416)
            return True
        if part is None:
            return False
        if not self._is_answered_by_condition(plain):
            request.setResponseCode(206)
            request.setHeader(b"Content-Range", part.content_range(plain.size_bytes))
            request.setHeader(b"Content-Length", b"%d" % part.length_bytes)
            self._deliver(plain.file, part.offset_bytes, part.length_bytes)
        return True

    def _file_whole(self, path: Path, plain: OpenFile) -> None:
        request = self._request
        chosen = plain
        encodings = request.requestHeaders.getRawHeaders(b"Accept-Encoding", [])
        if conditions.accepts_gzip(b",".join(encodings)):
            packed = files.gzip_sibling(path, plain)
            if packed is not None:
                plain.file.close()
                chosen = packed
                request.setHeader(b"Content-Encoding", b"gzip")
        if chosen is plain:
            request.setHeader(b"Accept-Ranges", b"bytes")
        if not self._is_answered_by_condition(chosen):
            request.setHeader(b"Content-Length", b"%d" % chosen.size_bytes)
            self._deliver(chosen.file, 0, chosen.size_bytes)

    def _is_answered_by_condition(self, chosen: OpenFile) -> bool:
        """Set the validators; answer with 304 or 412, and close the file, if they decide it."""
        request = self._request
        modified = chosen.modified_unix_ts
        request.setHeader(b"ETag", chosen.etag)
        # A file may change again within the second; only a date that is over names one version.
        is_settled = modified < int(time.time())
        if is_settled:
            request.setHeader(b"Last-Modified", conditions.http_date(modified))
        if_match = request.getHeader(b"If-Match")
        if_unmodified_since = request.getHeader(b"If-Unmodified-Since")
        if_none_match = _joined(request, b"If-None-Match")
        if_modified_since = request.getHeader(b"If-Modified-Since") if is_settled else None
        if conditions.is_precondition_failed(chosen.etag, modified, if_match, if_unmodified_since):
            chosen.file.close()
            self.error(412)
        elif conditions.is_not_modified(chosen.etag, modified, if_none_match, if_modified_since):
            chosen.file.close()
            request.setResponseCode(304)
            request.responseHeaders.removeHeader(b"Content-Type")
            request.responseHeaders.removeHeader(b"Content-Encoding")
            request.finish()
        else:
            return False
        return True

    def _deliver(self, file: BinaryIO, offset_bytes: int, length_bytes: int) -> None:
        if self._request.method == b"HEAD":
            file.close()
            self._request.finish()
        else:
            self._send(file, offset_bytes, length_bytes)


def _joined(request: Request, name: bytes) -> bytes | None:
    """Return all values of a list header as one, or None if it was not sent."""
    values = request.requestHeaders.getRawHeaders(name)
    return b", ".join(values) if values else None


def _origin_form(path: bytes) -> bytes:
    """Return the path of a request target, which a proxy's client may send as a whole URL."""
    for scheme in (b"http://", b"https://"):
        if path[: len(scheme)].lower() == scheme:
            return b"/" + path[len(scheme) :].partition(b"/")[2]
    return path
