"""What ``/proc`` says about processes: which holds a socket, what it is called, where it belongs.

The program's name is the process's own (``comm``), whole where ``/proc/PID/exe`` shows that it was
cut at 15 characters. Arguments are never read but by `command_line`, and never kept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_CUT_CHARACTERS = 15
_SOCKET = "socket:["


class Process(NamedTuple):
    """A process as it was looked at."""

    pid: int
    start_ticks: int
    """When it was started, in clock ticks since the boot; another of its number has another."""
    command: str
    """The program's name."""
    cgroup: str
    """Path of its control group: of v2, or where that is the root, of systemd's hierarchy."""

    def start_unix_ts(self) -> float:
        """Return when it was started, in Unix time by the clock as it is now."""
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return round(booted + self.start_ticks / _TICKS, 2)

    @property
    def unit(self) -> str | None:
        """The service of systemd that it belongs to, such as ``nginx.service``; None if to none."""
        return unit_of(self.cgroup)


def unit_of(cgroup: str) -> str | None:
    """Return the service of systemd whose control group has that path, or is above it."""
    for part in reversed(cgroup.split("/")):
        if part.endswith(".service") and not part.startswith("user@"):
            return part
        if part.startswith("user@"):
            return None
    return None


def look_at(pid: int) -> Process | None:
    """Return what there is to know about a process; None if it is gone."""
    folder = f"{PROC}/{pid}"
    try:
        stat = _read(f"{folder}/stat")
        groups = _read(f"{folder}/cgroup")
    except OSError:
        return None
    command = program_name(stat[stat.index("(") + 1 : stat.rindex(")")])
    if len(command) == _CUT_CHARACTERS:
        with contextlib.suppress(OSError):
            whole = Path(f"{folder}/exe").readlink().name.removesuffix(" (deleted)")
            if whole.startswith(command):
                command = whole
    return Process(pid, int(stat.rpartition(")")[2].split()[19]), command, _group(groups))


def program_name(command: str) -> str:
    """Return the first word of what a process calls itself: some put what they do behind it."""
    words = command.split(maxsplit=1)
    return (words[0].rstrip(":") if words else "") or "unknown"


def start_ticks(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since the boot; None if it is gone."""
    try:
        return int(_read(f"{PROC}/{pid}/stat").rpartition(")")[2].split()[19])
    except OSError:
        return None


def command_line(pid: int) -> list[str]:
    """Return the arguments of a process, to be matched but not published; none if it is gone."""
    try:
        return _read(f"{PROC}/{pid}/cmdline").split("\0")[:-1]
    except OSError:
        return []


def holders(pids: Iterable[int]) -> dict[int, list[int]]:
    """Return the inode of each socket that some processes hold, and which they are, in order.

    A process that may not be looked at is passed over.
    """
    found: dict[int, list[int]] = {}
    for pid in pids:
        folder = f"{PROC}/{pid}/fd"
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            for name in os.listdir(descriptor):  # noqa: PTH208 - relative to it, for speed
                try:
                    target = os.readlink(name, dir_fd=descriptor)
                except OSError:
                    continue
                if target.startswith(_SOCKET):
                    inode = int(target[len(_SOCKET) : -1])
                    pids_of_it = found.setdefault(inode, [])
                    if not pids_of_it or pids_of_it[-1] != pid:
                        pids_of_it.append(pid)
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return found


def owner(pids: list[int]) -> int:
    """Return whose a socket is that several hold: the first of them, but for init's own.

    With socket activation systemd, process 1, keeps what it opened for a service.
    """
    return next((pid for pid in pids if pid != 1), pids[0])


def network_namespace(pid: int | str = "self") -> int:
    """Return the inode of a process's network namespace; 0 if it may not be looked at."""
    try:
        return (PROC / str(pid) / "ns" / "net").stat().st_ino
    except OSError:
        return 0


def _group(text: str) -> str:
    """Return the path out of ``/proc/PID/cgroup``."""
    unified = systemd = "/"
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            unified = path
        elif controllers == "name=systemd":
            systemd = path
    return systemd if unified == "/" else unified


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
