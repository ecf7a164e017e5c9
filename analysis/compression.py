"""Undoes and does the compression of logs and databases: gzip, xz, Zstandard.

Both ways in bounded memory where it matters: what is unpacked is asked for in blocks, so that a
small file cannot fill the memory.
"""

from __future__ import annotations

import gzip
import lzma
import sys
import zlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 18
_XZ_MEMORY_BYTES = 1 << 27  # xz -9 needs 65 MiB; a header that asks for more is an attack

# By measurement: xz -1 packs a database to 1.2 times the size of -6 in a tenth of the time.
_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lambda data: lzma.compress(data, preset=1),
    ".gz": lambda data: gzip.compress(data, 6, mtime=0),
    ".zst": lambda data: zstd.compress(data, 3),
}


def compress(data: bytes, suffix: str) -> bytes:
    """Return ``data`` packed as a file name's ``suffix`` says; the same bytes on each run."""
    compressor = _COMPRESSORS.get(suffix)
    return compressor(data) if compressor else data


class _Decompressor(Protocol):
    """What lzma's and zstd's objects have in common, and `_Zlib` gives zlib's."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """One gzip member, with the interface of `lzma.LZMADecompressor`."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(wbits=31)
        self._is_full = False

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._object.unconsumed_tail and not self._is_full

    def decompress(self, data: bytes, max_length: int) -> bytes:
        output = self._object.decompress(self._object.unconsumed_tail + data, max_length)
        self._is_full = len(output) == max_length
        return output


_MAGICS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", _Zlib),
    (b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)),
    (b"\x28\xb5\x2f\xfd", zstd.ZstdDecompressor),
)


def plain_blocks(stored: Iterator[bytes], cut_short: Callable[[str], None]) -> Iterator[bytes]:
    """Undo gzip, xz or zstd, recognised by their first bytes; several members may follow.

    Data that end early or are damaged give what is whole; then ``cut_short`` is called with the
    reason.
    """
    first = next(stored, b"")
    make = next((make for magic, make in _MAGICS if first.startswith(magic)), None)
    if make is None:
        while first:
            yield first
            first = next(stored, b"")
        return
    try:
        while first:
            machine = make()
            yield from _member(machine, first, stored)
            # xz pads its streams with zero bytes, and some tools pad any file.
            first = machine.unused_data.lstrip(b"\0")
            while not first and (block := next(stored, b"")):
                first = block.lstrip(b"\0")
    except EOFError:
        cut_short("compressed data end early")
    except (zlib.error, lzma.LZMAError, zstd.ZstdError):
        cut_short("compressed data are damaged")


def _member(machine: _Decompressor, pending: bytes, stored: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack to the end of one gzip member, xz stream or zstd frame.

    Raises:
        EOFError: the data end before it does.
    """
    while not machine.eof:
        if not pending and machine.needs_input:
            pending = next(stored, b"")
            if not pending:
                raise EOFError
        data = machine.decompress(pending, BLOCK_BYTES)
        pending = b""
        if data:
            yield data
