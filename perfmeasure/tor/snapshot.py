"""Snapshots of a private network: the data directories of its relays, kept for the next start.

Making a network takes half a minute, mostly voting. What its relays keep on disk is 1.5 MiB, and
relays that find it there are ready in moments. The folder of snapshots::

    KEY/0/manifest.json     when, by which tor, the relays with ports and fingerprints, SHA-256 of
    KEY/0/RELAY/…           each file
    KEY/0.lock              held (flock) for as long as the network of slot 0 runs

KEY says which tor and which torrc the network was made with. Descriptors name ports, so two
networks that run at once cannot share a snapshot: each takes a slot of its own. A slot's owner
alone writes it, first into another folder, which then takes the place of the old one by rename;
what a killed owner left behind the next one clears away.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure import jsonio
from perfmeasure.errors import InputError
from perfmeasure.tor.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMAT = 1
_SLOTS = 8
_NAME = re.compile(r"[a-z0-9]+\Z")

# Relays sign with keys that end after 30 days.
OLDEST_SECONDS = 10 * 86_400

# What a relay needs to be the same relay in the same consensus. Not in it: locks, cookies, state
# (guards and statistics of one run).
_KEPT = re.compile(
    r"keys/[a-z0-9_]+|cached-(?:certs|consensus|descriptors(?:\.new)?|extrainfo(?:\.new)?"
    r"|microdesc-consensus|microdescs(?:\.new)?)"
)
_NEEDED = ("keys/secret_id_key", "cached-microdesc-consensus")


class SnapshotError(InputError):
    """A snapshot that cannot be used; the network is then made anew."""


@dataclass(frozen=True)
class Slot:
    """One place for a snapshot, ours until ``release``.

    Args:
        folder: where the snapshot is or will be.
        lock: the file descriptor that holds the lock.
    """

    folder: Path
    lock: int

    def release(self) -> None:
        """Let others use the slot."""
        os.close(self.lock)

    def save(self, relays: Sequence[Relay], made_unix_ts: float) -> None:
        """Make the relays' data directories the slot's snapshot; they must not be running.

        Args:
            relays: with keys and ports.
            made_unix_ts: when their keys were made.

        Raises:
            OSError: it could not be written.
        """
        new = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.new-", dir=self.folder.parent))
        digests = {}
        for relay in relays:
            for name in kept_files(relay.data):
                target = new / relay.name / name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                content = (relay.data / name).read_bytes()
                target.write_bytes(content)
                target.chmod(0o600)
                digests[f"{relay.name}/{name}"] = hashlib.sha256(content).hexdigest()
        manifest = {
            "format": _FORMAT,
            "made_unix_ts": made_unix_ts,
            "relays": [_described(relay) for relay in relays],
            "sha256": digests,
        }
        (new / "manifest.json").write_bytes(jsonio.canonical(manifest))
        if self.folder.exists():
            old = tempfile.mkdtemp(prefix=f"{self.folder.name}.old-", dir=self.folder.parent)
            self.folder.rename(old)
        new.rename(self.folder)
        self._clear()

    def restore(self, base: Path, now: float) -> tuple[list[Relay], float]:
        """Write the snapshot's files into data directories below ``base``.

        Returns:
            The relays, and the Unix time at which their keys were made.

        Raises:
            SnapshotError: there is none, or it is too old or damaged.
        """
        self._clear()
        manifest = self._manifest()
        age_seconds = now - manifest["made_unix_ts"]
        if not 0 <= age_seconds <= OLDEST_SECONDS:
            raise self._unusable(f"{age_seconds / 86_400:.1f} days old", "at most 10 days")
        relays = [replace(relay, folder=base / relay.name) for relay in manifest["relays"]]
        for relay in relays:
            for needed in _NEEDED:
                if f"{relay.name}/{needed}" not in manifest["sha256"]:
                    raise self._unusable(f"{relay.name}/{needed} is missing", "")
        contents = {name: self._content(name, sha) for name, sha in manifest["sha256"].items()}
        for relay in relays:
            shutil.rmtree(relay.data, ignore_errors=True)
            (relay.data / "keys").mkdir(mode=0o700, parents=True)
            relay.data.chmod(0o700)
        for name, content in contents.items():
            relay_name, _, file_name = name.partition("/")
            path = base / relay_name / "data" / file_name
            path.write_bytes(content)
            path.chmod(0o600)
        return relays, manifest["made_unix_ts"]

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        try:
            document = jsonio.loads(path.read_bytes(), str(path))
            if document["format"] != _FORMAT:
                raise self._unusable(f"format {document['format']!r}", str(_FORMAT))
            relays = [Relay(folder=Path(), **relay) for relay in document["relays"]]
            ports = [p for r in relays for p in (r.or_port, r.dir_port, r.control_port)]
            if not relays or not all(isinstance(port, int) for port in ports):
                raise self._unusable("no relays, or ports that are no numbers", "")
            names = {relay.name for relay in relays}
            digests = document["sha256"]
            for name in digests:
                relay_name, _, file_name = name.partition("/")
                if relay_name not in names or not _KEPT.fullmatch(file_name):
                    raise self._unusable(f"names {name!r}", "files that belong into it")
            if not all(_NAME.match(name) for name in names):
                raise self._unusable("names relays oddly", "")
            return {
                "made_unix_ts": float(document["made_unix_ts"]),
                "relays": relays,
                "sha256": digests,
            }
        except FileNotFoundError as error:
            raise self._unusable("not there", "") from error
        except (OSError, InputError, KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, SnapshotError):
                raise
            raise self._unusable(f"its manifest is damaged ({error})", "") from error

    def _content(self, name: str, digest: str) -> bytes:
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise self._unusable(f"{name} cannot be read ({error.strerror})", "") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise self._unusable(f"{name} is damaged", "")
        return content

    def _unusable(self, got: str, wanted: str) -> SnapshotError:
        return SnapshotError(f"snapshot {self.folder}", got, wanted)

    def _clear(self) -> None:
        """Remove what an owner that was killed in the middle of its work left behind."""
        for pattern in (f"{self.folder.name}.new-*", f"{self.folder.name}.old-*"):
            for path in self.folder.parent.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def cache_folders(base: Path) -> list[Path]:
    """Return where snapshots may be kept, the best first.

    That is the user's cache (XDG Base Directory Specification), or else a folder in ``base``.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if configured.startswith("/"):
        return [Path(configured) / "perfmeasure", base / "cache"]
    try:
        return [Path.home() / ".cache" / "perfmeasure", base / "cache"]
    except RuntimeError:  # a user without a home
        return [base / "cache"]


def take_slot(folders: Sequence[Path], key: str) -> Slot | None:
    """Return a slot that nobody uses, in the first folder that can be written, or None.

    Args:
        folders: where snapshots may be kept, the best first.
        key: names the tor and the torrc of the network.
    """
    for folder in folders:
        place = folder / "testnet" / key
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
            for number in range(_SLOTS):
                lock = os.open(place / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(lock)
                    continue
                return Slot(place / str(number), lock)
        except OSError:
            continue
        return None
    return None


def kept_files(data: Path) -> list[str]:
    """Return the names, relative to a DataDirectory, of the files that a snapshot keeps."""
    names = (
        path.relative_to(data).as_posix() for path in sorted(data.rglob("*")) if path.is_file()
    )
    return [name for name in names if _KEPT.fullmatch(name)]


def _described(relay: Relay) -> dict[str, Any]:
    return {
        name: value
        for name, value in asdict(relay).items()
        if name in {field.name for field in fields(Relay)} - {"folder"}
    }
