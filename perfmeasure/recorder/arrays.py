"""Named arrays in one file that numpy's own ``np.load`` reads, and that we map into memory.

The format is numpy's ``.npz`` without compression: a zip archive of ``.npy`` members. Ours begin at
multiples of 64 bytes (by padding in the zip's extra field), so that they can be used where they
lie. The last member, ``meta.json``, holds what is not an array, and where each array is: a query
opens many such files, and reading that one member is far quicker than numpy's and zip's ways.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perfmeasure import jsonio
from perfmeasure.errors import InputError
from perfmeasure.recorder.records import Array

_ALIGNMENT = 64
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_PADDING_ID = 0xD935
_META = "meta.json"


def save(path: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> int:
    """Write the file, visible under its name when it is whole; return its size in bytes."""
    temporary = path.with_name(f"{path.name}.part")
    directory: dict[str, tuple[int, str, tuple[int, ...]]] = {}
    with temporary.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0))
            info = zipfile.ZipInfo(f"{name}.npy")
            begins = file.tell() + _LOCAL_HEADER.size + len(info.filename) + 4
            padding = -begins % _ALIGNMENT
            info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
            archive.writestr(info, member.getbuffer())
            directory[name] = (file.tell() - array.nbytes, array.dtype.str, array.shape)
        content = jsonio.canonical({**meta, "arrays": directory})
        archive.writestr(zipfile.ZipInfo(_META), content)
    size = temporary.stat().st_size
    temporary.replace(path)
    return size


class Arrays(Mapping[str, Array]):
    """The arrays of a file, mapped into memory and read-only.

    Attributes:
        meta: what else the file holds.

    Raises:
        InputError: the file is not there, or not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.meta: dict[str, Any] = jsonio.loads(self._read_meta(), str(path))
            self._directory: dict[str, tuple[int, str, list[int]]] = self.meta.pop("arrays")
        except (OSError, ValueError, KeyError, AttributeError, struct.error) as error:
            raise InputError(str(path), f"cannot be used ({error})", "a file of arrays") from error

    def _read_meta(self) -> bytes:
        """Return the last member. Before the zip's end stands its entry in the zip's directory."""
        entry_at = len(self._map) - _END.size - _ENTRY.size - len(_META)
        entry = _ENTRY.unpack_from(self._map, max(entry_at, 0))
        name_at = entry_at + _ENTRY.size
        if entry[0] != b"PK\x01\x02" or self._map[name_at : name_at + len(_META)] != _META.encode():
            raise ValueError("the file's end is not as it was written")
        size, local_at = entry[9], entry[-1]
        begin = local_at + _LOCAL_HEADER.size + len(_META)
        return self._map[begin : begin + size]

    def __getitem__(self, name: str) -> Array:
        try:
            at, dtype, shape = self._directory[name]
            return np.ndarray(tuple(shape), dtype, self._map, at)
        except (KeyError, TypeError, ValueError):
            raise InputError(
                str(self.path), f"no array {name}", "an index of this version"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._directory)

    def __len__(self) -> int:
        return len(self._directory)

    @staticmethod
    def is_whole(path: Path) -> bool:
        """Return whether the file is there and every member has its checksum."""
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        except (OSError, zipfile.BadZipFile, struct.error):
            return False
