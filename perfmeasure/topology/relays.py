"""The relays that tor connects to, out of the notes that the readers of its control ports make.

They name what would otherwise be an address: ``[RELAY] $FINGERPRINT~NICKNAME ADDRESS:PORT …`` in a
torctl log (`perfmeasure.tor.relays`).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

_NOTE = re.compile(
    rb"^[^\[\n]*\[RELAY\] \$([0-9A-F]{40})~([A-Za-z0-9]{1,19})((?: \S+:[0-9]{1,5})+)$", re.MULTILINE
)
_MOST_BYTES = 1 << 20


class RelayAddress(NamedTuple):
    """Where a relay is."""

    fingerprint: str
    nickname: str
    ip: str
    port: int


class RelayNotes:
    """Follows torctl logs, through their rotations, and finds the notes in them.

    Args:
        paths: the live logs; they may come later.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._followed = [_Followed(path) for path in paths]
        self.known: dict[RelayAddress, None] = {}
        """All that were found, in the order in which they were."""

    def read(self) -> list[RelayAddress]:
        """Return those that are new since the last call."""
        new = []
        for followed in self._followed:
            for match in _NOTE.finditer(followed.read()):
                fingerprint, nickname = match[1].decode(), match[2].decode()
                for ip, port in _places(match[3].decode().split()):
                    address = RelayAddress(fingerprint, nickname, ip, port)
                    if address not in self.known:
                        self.known[address] = None
                        new.append(address)
        return new


def relays_of(prefix: Path) -> RelayNotes:
    """Return those that the tors of a measurement connect to, by its data directory."""
    names = ("tor-client", "tor-server")
    return RelayNotes(prefix / name / "perfmeasure.torctl.log" for name in names)


def _places(words: list[str]) -> Iterable[tuple[str, int]]:
    for word in words:
        ip, _, port = word.rpartition(":")
        try:
            yield str(ipaddress.ip_address(ip.strip("[]"))), int(port)
        except ValueError:
            continue


class _Followed:
    """The whole lines of a file, as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self) -> bytes:
        """Return the lines that have come, at most 1 MiB of them."""
        data = self._file.read(_MOST_BYTES) if self._file is not None else b""
        if not data and self._is_another():
            if self._file is not None:
                self._file.close()
            self._file = self._path.open("rb")
            self._rest = b""
            data = self._file.read(_MOST_BYTES)
        lines, separator, self._rest = (self._rest + data).rpartition(b"\n")
        return lines + separator

    def _is_another(self) -> bool:
        """Whether the path is a file, and not that which is open."""
        try:
            there = self._path.stat()
        except OSError:
            return False
        if self._file is None:
            return True
        ours = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
