"""What a measurement is asked to do: a TOML file < environment < command line, one frozen object.

The names are the same everywhere: ``--num-transfers 5`` on the command line is
``PERFMEASURE_NUM_TRANSFERS=5`` in the environment and ``num_transfers = 5`` in the file.
"""

from __future__ import annotations

import enum
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfmeasure.errors import UsageError
from perfmeasure.logfile import DAY_SECONDS
from perfmeasure.units import parse_bytes

_NICKNAME = re.compile(r"[A-Za-z0-9-]+\Z")


class Network(enum.StrEnum):
    """The network that is measured."""

    PUBLIC = "public"
    """The real Tor network."""
    TESTNET = "testnet"
    """A private Tor network on loopback, made and run by the harness."""


class Flows(enum.StrEnum):
    """Whether the kernel's view of the measurement's connections is recorded."""

    AUTO = "auto"
    """Where the machine allows it; the database says why where it does not."""
    ON = "on"
    """Without it there is no measurement."""
    OFF = "off"
    """Not recorded."""


RECORD_AUTO, RECORD_OFF = "auto", "off"
"""What `MeasureConfig.record` is if it is no interface: record where this machine can, or never."""
NO_CUTOFF = "none"


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Everything that ``perfmeasure measure`` can be told. Durations are in seconds."""

    network: Network = Network.PUBLIC
    prefix: Path = Path("perfmeasure-data")
    key_prefix: Path | None = None
    """Folder of the onion key and the control cookies; None is ``private/`` under the prefix."""
    nickname: str = ""
    """Key of this host in the database; empty is the short host name."""
    tor: str | None = None
    tgen: str | None = None
    """The external tgen program; None is ``tgen`` on PATH, else the built-in generator."""
    num_transfers: int = 0
    """Transfers for each kind of destination; 0 is for ever."""
    transfer_size_bytes: int = 5 * 2**20
    connect_ip: str = "0.0.0.0"  # noqa: S104 - not bound to: it means "find it out"
    listen_port: int = 8080
    connect_port: int | None = None
    """Port that exits connect to and that the onion service offers; None is ``listen_port``."""
    pause_initial_seconds: float | None = None
    pause_between_seconds: float | None = None
    drop_guards_hours: float = 0.0
    exclude_cbt: bool = False
    onion_only: bool = False
    inet_only: bool = False
    single_onion: bool = False
    additional_client_conf: str = ""
    torclient_conf_file: Path | None = None
    torserver_conf_file: Path | None = None
    stop_at: str | None = None
    events: tuple[str, ...] = ()
    """Events of tor's control port asked for besides the default ones."""
    flows: Flows = Flows.AUTO
    record: str = RECORD_AUTO
    """The interface whose packets are recorded, or `RECORD_AUTO`, or `RECORD_OFF`."""
    record_cutoff: str = "15 KB"
    """Of each connection, a size or `NO_CUTOFF`."""
    record_budget: str = "1 GiB"
    """Disk space for packets and their indexes, and once more for those that are published."""
    publish_packets: bool = False
    """Whether the docroot has the packets of each transfer."""
    rotate_every_seconds: int = DAY_SECONDS
    http_port: int = 8081
    http_bind: str = "127.0.0.1"
    keep_serving: bool = False

    def __post_init__(self) -> None:
        if self.onion_only and self.inet_only:
            raise UsageError(
                "--onion-only and --inet-only", "both were given", "at most one of them"
            )
        if self.single_onion and self.inet_only:
            raise UsageError(
                "--single-onion and --inet-only", "both were given", "at most one of them"
            )
        if self.nickname and not _NICKNAME.match(self.nickname):
            raise UsageError(
                "--nickname", repr(self.nickname), "letters, digits and dashes only"
            )  # fmt: skip
        if self.record_cutoff != NO_CUTOFF:
            parse_bytes(self.record_cutoff, "--record-cutoff")
        parse_bytes(self.record_budget, "--record-budget")
        if self.publish_packets and self.record == RECORD_OFF:
            raise UsageError(
                "--publish-packets", "given with --record off", "packets that are recorded"
            )
        if self.stop_at is not None:
            try:
                re.compile(self.stop_at.encode())
            except re.error as error:
                raise UsageError("--stop-at", f"{self.stop_at!r}: {error}", "a regex") from error

    @property
    def is_testnet(self) -> bool:
        """Whether the network is the private one."""
        return self.network is Network.TESTNET

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of destination, in the order in which they alternate: exit, onion."""
        if self.onion_only:
            return ("onion",)
        return ("exit",) if self.inet_only else ("exit", "onion")

    @property
    def private(self) -> Path:
        """The folder of keys and cookies."""
        return self.key_prefix or self.prefix / "private"

    @property
    def docroot(self) -> Path:
        """The folder that is served."""
        return self.prefix / "docroot"

    @property
    def archive(self) -> Path:
        """The folder of rotated logs."""
        return self.prefix / "log_archive"

    @property
    def host(self) -> str:
        """The nickname, or one made of the short host name."""
        return self.nickname or default_host()

    @property
    def pauses_seconds(self) -> tuple[float, float]:
        """The pause before the first transfer and the one between transfers."""
        initial, between = (0.0, 1.0) if self.is_testnet else (300.0, 300.0)
        return (
            initial if self.pause_initial_seconds is None else self.pause_initial_seconds,
            between if self.pause_between_seconds is None else self.pause_between_seconds,
        )


def default_host() -> str:
    """Return a nickname made of the short host name."""
    short = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9-]", "-", short) or "unknown"


def load_toml(path: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """Read settings from a TOML file; dashes and underscores in names are the same.

    Args:
        path: the file.
        names: what a setting is called in the file -> what it is called in the result.

    Raises:
        UsageError: the file cannot be read, is not TOML, or has a name that is not in ``names``.
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise UsageError(str(path), f"cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(str(path), f"not TOML: {error}") from error
    settings = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in names:
            known = ", ".join(sorted(names))
            raise UsageError(f"{path}: {key}", "no such setting", f"one of {known}")
        if isinstance(value, dict):
            raise UsageError(f"{path}: {key}", "a table", "a plain value")
        settings[names[name]] = value
    return settings
