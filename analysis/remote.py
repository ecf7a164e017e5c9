"""Files and folders that are not on this machine: whatever fsspec reaches, by URL.

``s3://bucket/host/``, ``sftp://host/logs``, ``file:///logs`` and so on. fsspec, and for some
protocols a package beside it, come with ``pip install 'perfmeasure[fleet]'``.
"""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from perfmeasure.errors import MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL = "install it with: pip install 'perfmeasure[fleet]'"
"""What brings the packages that an analysis beyond one machine needs."""


@dataclasses.dataclass(frozen=True)
class RemotePath:
    """A file or a folder by its URL, with those methods of `pathlib.Path` that are needed.

    All that fails is an OSError, as it is of a local path, except for a protocol that this
    machine does not have (`MissingError`) or nobody (`UsageError`).
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, other: PurePosixPath | str) -> RemotePath:
        below = str(other)
        return self if below == "." else RemotePath(f"{self.url.rstrip('/')}/{below}")

    @property
    def inside(self) -> PurePosixPath:
        """The path without the protocol, for its names only."""
        return PurePosixPath("/", self.url.partition("://")[2])

    def _system(self) -> tuple[Any, str]:
        try:
            import fsspec  # noqa: PLC0415 - only those who have such files need it
        except ImportError:
            raise MissingError(
                self.url, "fsspec, which opens such files, is not installed", next_step=INSTALL
            ) from None
        try:
            return fsspec.core.url_to_fs(self.url)  # type: ignore[no-any-return]
        except ImportError as error:
            raise MissingError(self.url, str(error), next_step=INSTALL) from error
        except ValueError as error:
            raise UsageError(self.url, str(error), "a path, or a URL that fsspec knows") from error

    def open(self, mode: str = "rb", buffering: int = -1) -> IO[bytes]:
        """Open the file; it is read in blocks of its own, whatever ``buffering``."""
        del buffering
        system, path = self._system()
        try:
            return system.open(path, mode)  # type: ignore[no-any-return]
        except OSError:
            raise
        except Exception as error:
            raise _as_os_error(error) from error

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._ask("exists"))

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return bool(self._ask("isdir"))

    def _ask(self, method: str) -> Any:
        system, path = self._system()
        try:
            return getattr(system, method)(path)
        except OSError:
            raise
        except Exception as error:
            raise _as_os_error(error) from error

    def resolve(self) -> RemotePath:
        """Return the one way to write it."""
        system, path = self._system()
        return RemotePath(system.unstrip_protocol(path))

    def walk(self) -> Iterator[tuple[PurePosixPath, list[str], list[str]]]:
        """Yield each folder below: its path from here, its folders (to be pruned), its files."""
        system, top = self._system()
        try:
            for folder, folders, names in system.walk(top, on_error="raise"):
                yield PurePosixPath(folder).relative_to(PurePosixPath(top)), folders, names
        except OSError:
            raise
        except Exception as error:
            raise _as_os_error(error) from error


def _as_os_error(error: Exception) -> OSError:
    """Return what a package that reaches a store raised, as what any file would raise."""
    return OSError(errno.EIO, f"{type(error).__name__}: {error}")


def path_of(text: str) -> Path | RemotePath:
    """Return the path that a command's argument means."""
    return RemotePath(text) if "://" in text else Path(text)
