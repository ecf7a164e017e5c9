"""Named arrays in one file that numpy's own ``np.load`` reads, and that we map into memory.

The format is numpy's ``.npz`` without compression: a zip archive of ``.npy`` members. Ours begin at
multiples of 64 bytes (by padding in the zip's extra field), so that they can be used where they
lie. A member ``meta.json`` holds what is not an array.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perfmeasure import jsonio
from perfmeasure.errors import InputError
from perfmeasure.recorder.records import Array

_ALIGNMENT = 64
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_PADDING_ID = 0xD935
_META = "meta.json"


def save(path: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> int:
    """Write the file, visible under its name when it is whole; return its size in bytes."""
    temporary = path.with_name(f"{path.name}.part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0))
            _add(archive, f"{name}.npy", member.getbuffer())
        _add(archive, _META, memoryview(jsonio.canonical(dict(meta))))
    size = temporary.stat().st_size
    temporary.replace(path)
    return size


def _add(archive: zipfile.ZipFile, name: str, content: memoryview) -> None:
    member = zipfile.ZipInfo(name)
    assert archive.fp is not None
    begins = archive.fp.tell() + _LOCAL_HEADER.size + len(name) + 4
    padding = -begins % _ALIGNMENT
    member.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    archive.writestr(member, content)


class Arrays(Mapping[str, Array]):
    """The arrays of a file, mapped into memory and read-only.

    Raises:
        InputError: the file is not there, or not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                with zipfile.ZipFile(file) as archive:
                    self.meta: dict[str, Any] = jsonio.loads(archive.read(_META), str(path))
                    self._arrays = {
                        member.filename.removesuffix(".npy"): self._array(member)
                        for member in archive.infolist()
                        if member.filename.endswith(".npy")
                    }
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, struct.error) as error:
            raise InputError(str(path), f"cannot be used ({error})", "a file of arrays") from error

    def _array(self, member: zipfile.ZipInfo) -> Array:
        at = member.header_offset
        names = _LOCAL_HEADER.unpack_from(self._map, at)[-2:]
        at += _LOCAL_HEADER.size + sum(names)
        head = io.BytesIO(self._map[at : at + 256])
        np.lib.format.read_magic(head)
        shape, _, dtype = np.lib.format.read_array_header_1_0(head)
        count = int(np.prod(shape))
        if head.tell() + count * dtype.itemsize != member.file_size:
            raise ValueError(f"{member.filename} is {member.file_size} bytes long")
        return np.frombuffer(self._map, dtype, count, at + head.tell()).reshape(shape)

    def __getitem__(self, name: str) -> Array:
        try:
            return self._arrays[name]
        except KeyError:
            raise InputError(
                str(self.path), f"no array {name}", "an index of this version"
            ) from None

    def __iter__(self) -> Any:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @staticmethod
    def is_whole(path: Path) -> bool:
        """Return whether the file is there and every member has its checksum."""
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        except (OSError, zipfile.BadZipFile, struct.error):
            return False
