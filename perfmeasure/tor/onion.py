"""The onion service of a measurement: its folder, its key's protection, its address.

Tor itself makes and keeps the key (a HiddenServiceDir), so that the service has the same address
after every restart of tor or of the harness, and no key passes through us. The folder lies in the
measurement's ``private/``, mode 0700. A single onion service has a folder of its own, since tor
refuses to run one from a folder that an anonymous service has used, and the other way round.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.tor import torrc

_ADDRESS = re.compile(r"([a-z2-7]{56})\.onion\Z")
_KEY_NAME = "hs_ed25519_secret_key"


@dataclass(frozen=True)
class OnionService:
    """A version 3 onion service.

    Args:
        folder: tor's HiddenServiceDir for it.
        virtual_port: the port that clients ask for.
        target_port: the port on 127.0.0.1 that answers them.
        is_single_onion: fast and not anonymous: the host connects to its points in one hop.
    """

    folder: Path
    virtual_port: int
    target_port: int
    is_single_onion: bool = False

    @classmethod
    def under(
        cls, private: Path, virtual_port: int, target_port: int, *, is_single_onion: bool = False
    ) -> OnionService:
        """Return the service whose key is kept below the folder ``private``."""
        name = "single-onion" if is_single_onion else "onion"
        return cls(private / name, virtual_port, target_port, is_single_onion)

    def torrc_lines(self) -> list[str]:
        """Return what makes a tor host this service."""
        lines = [
            f"HiddenServiceDir {torrc.quoted(self.folder)}",
            "HiddenServiceVersion 3",
            f"HiddenServicePort {self.virtual_port} 127.0.0.1:{self.target_port}",
        ]
        if self.is_single_onion:
            lines += ["HiddenServiceSingleHopMode 1", "HiddenServiceNonAnonymousMode 1"]
        return lines

    def prepare(self) -> None:
        """Make the folders, open to their owner alone, and check a key that is there already.

        Raises:
            UsageError: others can read the key, or a folder cannot be made or belongs to another.
        """
        make_private(self.folder.parent)
        make_private(self.folder)
        key_path = self.folder / _KEY_NAME
        try:
            mode = stat.S_IMODE(key_path.lstat().st_mode)
        except FileNotFoundError:
            return
        if mode & 0o077:
            raise UsageError(
                str(key_path),
                f"the onion service's key has mode {mode:04o}: others may have read it",
                "mode 0600",
                f"run `chmod 600 {key_path}`, or delete {self.folder} for a new key and address",
            )

    def address(self) -> str:
        """Return the service's address, ``….onion``, which tor writes as soon as it has started.

        Raises:
            MeasurementError: there is none yet, or what is there is no version 3 address.
        """
        path = self.folder / "hostname"
        try:
            text = path.read_text("ascii", errors="replace").strip()
        except OSError as error:
            raise MeasurementError(
                str(path), f"no onion address ({error.strerror})", "", "look at the tor-server log"
            ) from error
        if not is_address(text):
            raise MeasurementError(
                str(path),
                f"{text[:80]!r} is not an onion address",
                "56 letters and digits, then .onion",
                "delete this file: tor writes it again from its key",
            )
        return text


def is_address(text: str) -> bool:
    """Return whether ``text`` is a version 3 onion address, checksum included (rend-spec-v3, 6)."""
    match = _ADDRESS.match(text)
    if match is None:
        return False
    try:
        raw = base64.b32decode(match[1].upper())
    except binascii.Error:
        return False
    public_key, checksum, version = raw[:32], raw[32:34], raw[34:]
    digest = hashlib.sha3_256(b".onion checksum" + public_key + version).digest()
    return version == b"\x03" and digest[:2] == checksum


def make_private(folder: Path) -> None:
    """Make ``folder`` with mode 0700, or give it that mode.

    Raises:
        UsageError: it cannot be made, is no folder, or belongs to another user.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise UsageError(
                str(folder), "it is a link or belongs to another user", "a folder of your own"
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise UsageError(
            str(folder), f"cannot be made private ({error.strerror})", "a folder of your own"
        ) from error
