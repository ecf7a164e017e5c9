"""Where the packets of an answer go: to a file in the store, or as a pcap stream to a client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.recorder.answer import records, write_answer, write_pcap
from perfmeasure.recorder.comments import Comments
from perfmeasure.recorder.language import Feed, ToFile
from perfmeasure.recorder.segment import header
from perfmeasure.recorder.store import Chunk

QUERIES = "queries"
"""The folder of a store that ``to_file`` writes to."""


class Client(Protocol):
    """Whoever gives commands. Both methods may be called from several threads at once."""

    def text(self, line: str) -> None:
        """Take a line of an answer.

        Raises:
            OSError: the client is gone.
        """

    def data(self, program: str, tag: str, content: bytes) -> None:
        """Take the next bytes of the pcap stream for a program; nothing is the stream's end.

        Raises:
            OSError: the client is gone.
        """


class Outlet(Protocol):
    """One target of packets. It takes a whole answer, or what is there and then what comes."""

    @property
    def key(self) -> object:
        """Equal for outlets that must not be used at once."""

    def answer(self, chunks: Iterable[Chunk]) -> None:
        """Take an answer.

        Raises:
            PerfmeasureError: it cannot be taken; there is no file then.
            OSError: the client is gone.
        """

    def begin(self, link: int, chunks: Iterable[Chunk]) -> None:
        """Take what is there, of this link type, and stay open; else as `answer`."""

    def write(self, chunk: Chunk) -> None:
        """Take what has come since, so that it can be read at once; else as `answer`."""

    def close(self) -> None:
        """Take the end.

        Raises:
            OSError: what was held back cannot be written, or the client is gone.
        """


def outlet(target: ToFile | Feed, store: Path, client: Client) -> Outlet:
    """Return the outlet that a command names.

    Raises:
        MeasurementError: the folder for files cannot be made.
    """
    if isinstance(target, Feed):
        return FeedOutlet(client, target)
    folder = store / QUERIES
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise MeasurementError(str(folder), f"cannot be made ({error.strerror})") from error
    return FileOutlet(folder / target.name)


class FileOutlet:
    """A file, which replaces the one that had its name, if any, when it is whole or has begun."""

    def __init__(self, path: Path) -> None:
        self.key = path
        self._path = path
        self._file: BinaryIO | None = None

    def answer(self, chunks: Iterable[Chunk]) -> None:
        """See `Outlet`."""
        with Comments(self._path.parent.parent) as comments:
            write_answer(chunks, self._path, comments)

    def begin(self, link: int, chunks: Iterable[Chunk]) -> None:
        """See `Outlet`."""
        if self._path.suffix == ".pcapng":
            raise UsageError(
                self._path.name, "a subscription", "a name of pcap, which can grow, not of pcapng"
            )
        temporary = self._path.with_name(f"{self._path.name}.part")
        try:
            file = temporary.open("wb")
            self._file = file
            file.write(header(link))
            for chunk in chunks:
                file.writelines(records(chunk, link))
            file.flush()
            temporary.replace(self._path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self.close()
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._unwritten(error) from error
            raise

    def write(self, chunk: Chunk) -> None:
        """See `Outlet`."""
        if self._file is None:
            raise ValueError("not begun")
        try:
            self._file.writelines(records(chunk, int(chunk.frames["link"][0])))
            self._file.flush()
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> MeasurementError:
        return MeasurementError(str(self._path), f"cannot be written ({error.strerror})")

    def close(self) -> None:
        """See `Outlet`."""
        if self._file is not None:
            self._file.close()


class FeedOutlet:
    """A pcap stream to a program of a client."""

    def __init__(self, client: Client, feed: Feed) -> None:
        self.key = (id(client), feed)
        self._client = client
        self._feed = feed

    def answer(self, chunks: Iterable[Chunk]) -> None:
        """See `Outlet`."""
        write_pcap(chunks, cast("BinaryIO", self))

    def begin(self, link: int, chunks: Iterable[Chunk]) -> None:
        """See `Outlet`."""
        self._send(header(link))
        for chunk in chunks:
            self.writelines(records(chunk, link))

    def write(self, chunk: Chunk | bytes) -> None:
        """See `Outlet`; bytes are sent as they are."""
        if isinstance(chunk, Chunk):
            self.writelines(records(chunk, int(chunk.frames["link"][0])))
        else:
            self._send(chunk)

    def writelines(self, parts: Iterator[bytearray]) -> None:
        """Send bytes as they are."""
        for part in parts:
            self._send(part)

    def _send(self, content: bytes | bytearray) -> None:
        if content:  # nothing would be the end
            self._client.data(self._feed.program, self._feed.tag, bytes(content))

    def close(self) -> None:
        """See `Outlet`."""
        self._client.data(self._feed.program, self._feed.tag, b"")
