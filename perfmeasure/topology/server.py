"""A time series database by its URL: VictoriaMetrics, Prometheus, or what speaks as they do."""

from __future__ import annotations

import base64
import http.client
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

from perfmeasure import __version__
from perfmeasure.errors import UsageError

_WANTED = "such as http://127.0.0.1:8428 or https://user:password@host/select/0/prometheus"
_MOST_ANSWER_BYTES = 1 << 20
_MOST_TOLD = 300


class Broken(Exception):  # noqa: N818 - it is told on, never shown as it is
    """A request that got no whole answer; the text says why."""


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Args:
        status: the HTTP status.
        body: the beginning of the answer.
        retry_after_seconds: how long it asks to be left alone; 0 where it does not say.
    """

    status: int
    body: bytes
    retry_after_seconds: float

    def __str__(self) -> str:
        text = self.body.decode("utf-8", "replace")
        said = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return f"HTTP {self.status}" + (f": {said[:_MOST_TOLD]}" if said else "")


class Server:
    """One connection to a server, made anew when it breaks.

    Args:
        url: where its API begins: scheme, host, port and path, before ``/api/v1``. User and
            password in it are sent, and shown nowhere.
        timeout_seconds: the longest that a request may take, or, where its answer is streamed,
            that it may stand still.

    Raises:
        UsageError: the URL is none of these.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 60.0) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError("the server's URL", "cannot be understood", _WANTED) from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError("the server's URL", "is not one of http:// or https://", _WANTED)
        if parts.query or parts.fragment:
            raise UsageError("the server's URL", "has a ? or a # in it", _WANTED)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._path = parts.path.rstrip("/")
        self._shown = f"{parts.scheme}://{host}{f':{port}' if port else ''}{self._path}"
        self._headers = {"User-Agent": f"perfmeasure/{__version__}"}
        if parts.username is not None:
            user, password = (
                urllib.parse.unquote(t or "") for t in (parts.username, parts.password)
            )
            token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
            self._headers["Authorization"] = f"Basic {token}"
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._timeout_seconds = timeout_seconds
        self._connection = kind(parts.hostname, port, timeout=timeout_seconds)

    def __str__(self) -> str:
        """Return the URL without user and password."""
        return self._shown

    def close(self) -> None:
        """End the connection; the next request makes another."""
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the answer; of a long one, its beginning.

        Raises:
            Broken: there is no whole answer in time.
        """
        with self._answering(method, path, body, headers) as response:
            content = response.read(_MOST_ANSWER_BYTES)
            if response.length and len(content) < _MOST_ANSWER_BYTES:
                raise http.client.IncompleteRead(content, response.length)
            is_all = response.isclosed()
            answer = _answer(response, content)
        if not is_all:
            self.close()
        return answer

    @contextmanager
    def stream(self, path: str) -> Iterator[tuple[Answer, IO[bytes]]]:
        """Ask for what may be long: the answer, its body empty where that is 200, and the body.

        Raises:
            Broken: there is no whole answer, or it stands still; when reading, too.
        """
        with self._answering("GET", path, None, None, is_stream=True) as response:
            is_right = response.status == 200
            content = b"" if is_right else response.read(_MOST_ANSWER_BYTES)
            yield _answer(response, content), cast("IO[bytes]", response)
        self.close()

    @contextmanager
    def _answering(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        *,
        is_stream: bool = False,
    ) -> Iterator[http.client.HTTPResponse]:
        late = threading.Event()

        def cut() -> None:
            late.set()
            # Whoever waits for the answer gets an error; closing alone would not wake it.
            if (sock := self._connection.sock) is not None:
                sock.shutdown(2)

        # The socket's own time limit is for each read: a server that drips would never meet it.
        watch = threading.Timer(self._timeout_seconds, cut)
        watch.daemon = True
        try:
            if not is_stream:
                watch.start()
            self._connection.request(
                method, self._path + path, body, {**self._headers, **(headers or {})}
            )
            yield self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Broken(self._why(error, is_late=late.is_set())) from error
        except BaseException:
            self.close()
            raise
        finally:
            watch.cancel()

    def _why(self, error: Exception, *, is_late: bool) -> str:
        if is_late or isinstance(error, TimeoutError):
            return f"no answer within {self._timeout_seconds:g} s"
        if isinstance(error, ConnectionRefusedError):
            return "nothing listens there"
        if isinstance(error, OSError):
            return error.strerror or str(error) or "the connection broke off"
        return "the connection broke off in mid-answer"


def _answer(response: http.client.HTTPResponse, content: bytes) -> Answer:
    said = response.getheader("Retry-After", "")
    seconds = float(said) if said.isascii() and said.isdigit() and len(said) < 6 else 0.0
    return Answer(response.status, content, seconds)
