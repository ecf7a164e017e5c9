"""The control group (cgroup v2) of one measurement, whose sockets alone are recorded.

A socket belongs to the group that its process was in when it was opened, so children have to be
started inside (`perfmeasure.tether`), not moved in later.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from perfmeasure.errors import MissingError

MOUNTS = Path("/proc/mounts")
PROC = Path("/proc")
_PREFIX = "perfmeasure"
_EMPTY_WITHIN_SECONDS = 2.0
_WALK_SECONDS = 1.0


def mount_point(mounts: Path = MOUNTS) -> Path | None:
    """Return where cgroup v2 is mounted, None if it is not."""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            # proc(5): a blank or the like in a path stands as an octal escape.
            return Path(place.encode().decode("unicode_escape"))
    return None


class GroupPaths:
    """Finds the path of a control group by its number, which is its folder's inode.

    Args:
        root: where cgroup v2 is mounted; None where it is not.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._found: dict[int, str] = {}
        self._next_walk = 0.0

    def __call__(self, number: int) -> str | None:
        """Return the path below the mount, ``/system.slice/x.service`` say; None if it is gone."""
        if number not in self._found and time.monotonic() >= self._next_walk:
            self._walk()
            self._next_walk = time.monotonic() + _WALK_SECONDS
        return self._found.get(number)

    def _walk(self) -> None:
        """Note all groups; those that have gone since the last time stay."""
        if self._root is None:
            return
        for folder, _, _ in os.walk(self._root):
            with contextlib.suppress(OSError):
                path = folder[len(str(self._root)) :] or "/"
                self._found[Path(folder).stat().st_ino] = path


class MeasurementCgroup:
    """A group that this process makes, and removes when all is over.

    Args:
        parent: the folder to make it in; `mount_point` by default.

    Raises:
        MissingError: there is no cgroup v2, or no right to make a group in it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or mount_point()
        if parent is None:
            raise MissingError(
                "cgroup v2", "not mounted",
                next_step="mount -t cgroup2 none /sys/fs/cgroup, if nothing is mounted there",
            )  # fmt: skip
        remove_stale(parent)
        self.path = parent / f"{_PREFIX}-{os.getpid()}-{_start_ticks(os.getpid())}"
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise MissingError(
                str(self.path),
                f"cannot be made ({error.strerror})",
                next_step="run as root, or let somebody delegate a cgroup v2 to this user",
            ) from error

    def remove(self) -> bool:
        """Remove the group; False when processes are still in it after a short wait."""
        deadline = time.monotonic() + _EMPTY_WITHIN_SECONDS
        while not _remove(self.path):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def remove_stale(parent: Path) -> list[Path]:
    """Remove the groups of processes that ended without it; return those that are gone.

    One in which processes still live stays.
    """
    gone = []
    for folder in parent.glob(f"{_PREFIX}-*-*"):
        _, pid, ticks = folder.name.rsplit("-", 2)
        if not (pid.isdigit() and ticks.isdigit()):
            continue
        if _start_ticks(int(pid)) != int(ticks) and _remove(folder):
            gone.append(folder)
    return gone


def _remove(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            folder.rmdir()
        except OSError:
            return False
    return True


def _start_ticks(pid: int) -> int | None:
    """Return when a process started (proc(5), stat), to tell it from a later one of its number."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
