"""What a process is called as a service: by rules, else by its systemd unit, else by its program.

A file of rules is TOML; the first rule all of whose conditions hold gives the name::

    [[service]]
    name = "shop"
    unit = "shop-*.service"     # the unit's name; * ? [] as in the shell
    command = "gunicorn"        # the program's name, the same way
    cgroup = "/docker/*"        # the control group's path, the same way
    port = 8080                 # or a list: it listens on one of these
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from perfmeasure.errors import UsageError
from perfmeasure.topology import processes
from perfmeasure.topology.processes import Process

_MOST_KNOWN = 16384
_CHECK_SECONDS = 1.0
_FOLDERS = frozenset(("tgen-client", "tgen-server", "tor-client", "tor-server"))
_PATTERNS = ("command", "unit", "cgroup")


@dataclass(frozen=True)
class Rule:
    """One rule; a condition that is None holds for all."""

    name: str
    command: str | None = None
    unit: str | None = None
    cgroup: str | None = None
    ports: frozenset[int] | None = None

    def holds(self, process: Process, ports: Iterable[int]) -> bool:
        """Whether the rule is for a process that listens on some ports."""
        values = (
            (self.command, process.command),
            (self.unit, process.unit or ""),
            (self.cgroup, process.cgroup),
        )
        if any(pattern is not None and not fnmatchcase(text, pattern) for pattern, text in values):
            return False
        return self.ports is None or not self.ports.isdisjoint(ports)


def load_rules(path: Path) -> tuple[Rule, ...]:
    """Read a file of rules.

    Raises:
        UsageError: it cannot be read, or is no file of rules.
    """
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(str(path), f"cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(str(path), f"not TOML: {error}") from error
    tables = found.pop("service", [])
    if found or not isinstance(tables, list):
        stranger = next(iter(found), "service")
        raise UsageError(f"{path}: {stranger}", "no such setting", "tables [[service]] only")
    return tuple(
        _rule(f"{path}: service {number}", table) for number, table in enumerate(tables, 1)
    )


def _rule(where: str, table: Any) -> Rule:
    wanted = f"name, and at least one of {', '.join(_PATTERNS)} and port"
    if not isinstance(table, dict) or not set(table) <= {"name", "port", *_PATTERNS}:
        raise UsageError(where, "something else in it", wanted)
    texts = {key: table[key] for key in ("name", *_PATTERNS) if key in table}
    if not all(isinstance(text, str) and text for text in texts.values()):
        raise UsageError(where, "a value that is no text", "text in quotes")
    ports = table.get("port", [])
    ports = ports if isinstance(ports, list) else [ports]
    if not all(type(port) is int and 0 < port < 65536 for port in ports):
        raise UsageError(f"{where}, port", str(table["port"]), "1 to 65535, or a list of such")
    if "name" not in texts or len(table) < 2:
        raise UsageError(where, "no name" if "name" not in texts else "no condition", wanted)
    return Rule(**texts, ports=frozenset(ports) if "port" in table else None)


Namer = Callable[[Process, Iterable[int]], str]
"""Gives a process, and the ports that it listens on, its name as a service."""


def by_rules(rules: tuple[Rule, ...]) -> Namer:
    """Return what names by rules, and without one that holds by unit or program."""

    def name(process: Process, ports: Iterable[int]) -> str:
        ports = frozenset(ports)
        for rule in rules:
            if rule.holds(process, ports):
                return rule.name
        return (process.unit or process.command).removesuffix(".service")

    return name


def of_measurement(prefix: Path) -> Namer:
    """Return what names the processes of the measurement with that data directory.

    Each of them is given a file in its own folder there, by which it is told.
    """

    def name(process: Process, _ports: Iterable[int]) -> str:
        for argument in processes.command_line(process.pid):
            path = Path(argument)
            if prefix not in path.parents:
                continue
            folder, *inside = path.relative_to(prefix).parts
            if folder == "testnet" and inside:
                return f"tor-relay {inside[0]}"
            if folder in _FOLDERS and len(inside) == 1:
                is_reader = inside[0].endswith(".torctl.log")
                return f"monitor {folder}" if is_reader else folder
        return process.command

    return name


class Known:
    """The processes that were met, looked at as soon as they are: a short one is soon gone.

    Args:
        namer: gives the names.
        cgroup_path: gives the path of the control group of a number, for what is gone already;
            None if that is gone, too.
    """

    def __init__(self, namer: Namer, cgroup_path: Callable[[int], str | None]) -> None:
        self._namer = namer
        self._cgroup_path = cgroup_path
        self._met: dict[tuple[int, str], tuple[Process, float]] = {}
        self._names: dict[Process, str] = {}
        self._ports: dict[int, set[int]] = {}

    def process(self, pid: int, command: str = "", cgroup_id: int = 0) -> Process:
        """Return a process that is live, or what is left to know about it.

        Args:
            pid: its number.
            command: what it was called when it was seen, if that is known.
            cgroup_id: its control group then.
        """
        moment = time.monotonic()
        met, checked = self._met.get((pid, command), (None, 0.0))
        if met is not None:
            if moment - checked < _CHECK_SECONDS:
                return met
            # Its number may be another's by now. One that is gone may still be told of.
            if processes.start_ticks(pid) in (met.start_ticks, None):
                self._met[pid, command] = met, moment
                return met
        found = processes.look_at(pid)
        if found is None:
            group = (self._cgroup_path(cgroup_id) if cgroup_id else None) or ""
            found = Process(pid, 0, processes.program_name(command), group)
        if len(self._met) >= _MOST_KNOWN:
            self._met.clear()
            self._names.clear()
            self._ports.clear()
        self._met[pid, command] = found, moment
        return found

    def name(self, process: Process) -> str:
        """Return what a process is called as a service."""
        name = self._names.get(process)
        if name is None:
            name = self._namer(process, self._ports.get(process.pid, ()))
            self._names[process] = name
        return name

    def listens(self, process: Process, port: int) -> None:
        """Take note that a process listens on a port, which a rule may name it by."""
        ports = self._ports.setdefault(process.pid, set())
        if port not in ports:
            ports.add(port)
            self._names.pop(process, None)
