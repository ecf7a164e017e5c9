"""From what was asked to what will be run: programs, ports, torrc files, traffic models.

A plan starts nothing and writes nothing, so that ``--dry-run`` can show it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from perfmeasure import jsonio
from perfmeasure.config import MeasureConfig
from perfmeasure.errors import MeasurementError, MissingError, UsageError
from perfmeasure.tgen.graphml import Graph, format_graphml
from perfmeasure.tgen.model import client_model, server_model
from perfmeasure.tor.onion import OnionService
from perfmeasure.tor.ports import free_ports, is_free
from perfmeasure.tor.torrc import NO_DEFAULTS, TorSettings

LOOPBACK = "127.0.0.1"
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")


@dataclass(frozen=True)
class Plan:
    """What a measurement runs, with every port and program settled.

    Args:
        config: what was asked.
        tor: the tor program.
        tgen: the external tgen program; None is the built-in generator.
        listen_port: where the tgen server listens, on all addresses (the testnet: loopback).
        connect_port: where exits and the onion service's clients connect.
        socks_port: of the tor client.
        client_control_port: of the tor client.
        server_control_port: of the onion host.
    """

    config: MeasureConfig
    tor: Path
    tgen: Path | None
    listen_port: int
    connect_port: int
    socks_port: int
    client_control_port: int
    server_control_port: int

    @property
    def onion(self) -> OnionService | None:
        """The onion service, if transfers go to one."""
        if "onion" not in self.config.kinds:
            return None
        return OnionService.under(
            self.config.private.absolute(),
            self.connect_port,
            self.listen_port,
            is_single_onion=self.config.single_onion,
        )

    def folder(self, name: str) -> Path:
        """Return the absolute folder of one part, such as ``tor-client``."""
        return (self.config.prefix / name).absolute()

    def cookie_path(self, name: str) -> Path:
        """Return where the tor of that name puts its control cookie."""
        return self.config.private.absolute() / f"{name}.cookie"

    def tor_argv(self, name: str) -> list[str]:
        """Return the program that is the tor of that name."""
        return [str(self.tor), "-f", str(self.folder(name) / "torrc"), *NO_DEFAULTS]

    def client_torrc(self, network_lines: tuple[str, ...]) -> str:
        """Return the torrc of the tor client."""
        return TorSettings(
            data_directory=self.folder("tor-client") / "data",
            cookie_path=self.cookie_path("tor-client"),
            control_port=self.client_control_port,
            socks_port=self.socks_port,
            drop_guards_hours=self.config.drop_guards_hours,
            network_lines=network_lines,
            base_text=os.environ.get("BASETORRC", ""),
            file_text=_text_of(self.config.torclient_conf_file),
            additional_text=self.config.additional_client_conf,
        ).text()

    def server_torrc(self, network_lines: tuple[str, ...]) -> str:
        """Return the torrc of the onion host."""
        return TorSettings(
            data_directory=self.folder("tor-server") / "data",
            cookie_path=self.cookie_path("tor-server"),
            control_port=self.server_control_port,
            drop_guards_hours=self.config.drop_guards_hours,
            onion=self.onion,
            network_lines=network_lines,
            base_text=os.environ.get("BASETORRC", ""),
            file_text=_text_of(self.config.torserver_conf_file),
        ).text()

    def tgen_argv(self, name: str) -> list[str]:
        """Return the generator, external or built in, with the model of that name."""
        model = str(self.folder(name) / "tgen.graphml.xml")
        if self.tgen is not None:
            return [str(self.tgen), model]
        return [sys.executable, "-m", "perfmeasure.tgen", model]

    def client_graph(self, addresses: Mapping[str, str], remaining: Mapping[str, int]) -> Graph:
        """Return the client's traffic model.

        Args:
            addresses: kind of destination -> host without port.
            remaining: kind -> transfers still wanted, the next kind first; all 0 is for ever.
        """
        initial, between = self.config.pauses_seconds
        return client_model(
            {kind: f"{addresses[kind]}:{self.connect_port}" for kind in remaining},
            socks=f"{LOOPBACK}:{self.socks_port}",
            size=self.config.transfer_size_bytes,
            initial_pause_seconds=initial,
            pause_seconds=between,
            num_streams=sum(remaining.values()),
        )

    def server_graph(self) -> Graph:
        """Return the server's traffic model."""
        return server_model(self.listen_port)


def make_plan(config: MeasureConfig) -> Plan:
    """Settle programs and ports.

    Raises:
        MissingError: tor, or the tgen that was asked for, is not there.
        MeasurementError: a port is taken.
    """
    tor = find_program(config.tor or "tor")
    if tor is None:
        raise MissingError(
            config.tor or "tor", "not found", "the program tor",
            "install it (apt-get install tor) or say where it is with --tor",
        )  # fmt: skip
    tgen = find_program(config.tgen or "tgen")
    if tgen is None and config.tgen:
        raise MissingError(
            config.tgen, "not found", "the program tgen",
            "say where it is with --tgen, or leave that out to use the built-in generator",
        )  # fmt: skip
    if config.listen_port and not is_free(config.listen_port):
        raise MeasurementError(
            f"port {config.listen_port}", "something listens there already",
            "a free port for the tgen server", "give another with --tgen-listen-port, or 0",
        )  # fmt: skip
    spare, socks, client_control, server_control = free_ports(4)
    listen_port = config.listen_port or spare
    return Plan(
        config=config,
        tor=tor,
        tgen=tgen,
        listen_port=listen_port,
        connect_port=config.connect_port or listen_port,
        socks_port=socks,
        client_control_port=client_control,
        server_control_port=server_control,
    )


def find_program(name: str) -> Path | None:
    """Return the absolute path of a program on PATH, or in the system's own folders."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    found = shutil.which(name, path=path)
    return Path(found).absolute() if found else None


def find_address(config: MeasureConfig) -> str:
    """Return the address at which exits reach this host.

    Raises:
        MeasurementError: it has only private addresses, so that it must be told.
    """
    if config.connect_ip != "0.0.0.0":  # noqa: S104 - what OnionPerf's users write for "find out"
        return config.connect_ip
    if config.is_testnet:
        return LOOPBACK
    address = "none"
    # Nothing is sent: connecting a datagram socket only asks the kernel for a route.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    if address == "none" or not ipaddress.ip_address(address).is_global:
        raise MeasurementError(
            "this host's address", f"the route to the internet leaves from {address}",
            "an address that exits can reach",
            "give it with --tgen-connect-ip, or measure with --onion-only",
        )  # fmt: skip
    return address


def describe(config: MeasureConfig) -> str:
    """Return what a measurement would run, as text for ``--dry-run``."""
    plan = make_plan(config)
    settings = {name: value for name, value in asdict(config).items() if value is not None}
    addresses = {"onion": "ADDRESS-OF-THE-ONION-SERVICE.onion", "exit": "ADDRESS-OF-THIS-HOST"}
    if "exit" in config.kinds:
        with contextlib.suppress(MeasurementError):
            addresses["exit"] = find_address(config)
    if plan.onion is not None:
        with contextlib.suppress(MeasurementError):
            addresses["onion"] = plan.onion.address()
    lines = ("# and the lines that name the private network's authorities",)
    network_lines = lines if config.is_testnet else ()
    wanted = dict.fromkeys(config.kinds, config.num_transfers)
    parts = [
        ("settings", jsonio.pretty({k: v if isinstance(v, (int, float)) else str(v)
                                    for k, v in settings.items()})),
        ("tgen server", " ".join(plan.tgen_argv("tgen-server"))),
        (
            f"{plan.folder('tgen-server')}/tgen.graphml.xml",
            format_graphml(plan.server_graph()).decode(),
        ),
        ("tor client", " ".join(plan.tor_argv("tor-client"))),
        (f"{plan.folder('tor-client')}/torrc", plan.client_torrc(network_lines)),
    ]  # fmt: skip
    if plan.onion is not None:
        parts += [
            ("onion host", " ".join(plan.tor_argv("tor-server"))),
            (f"{plan.folder('tor-server')}/torrc", plan.server_torrc(network_lines)),
        ]
    parts += [
        ("tgen client", " ".join(plan.tgen_argv("tgen-client"))),
        (
            f"{plan.folder('tgen-client')}/tgen.graphml.xml",
            format_graphml(plan.client_graph(addresses, wanted)).decode(),
        ),
        ("web server", f"http://{config.http_bind}:{config.http_port}/ serves {config.docroot}"),
    ]
    return "\n\n".join(f"==> {title}\n{text.rstrip()}" for title, text in parts)


def _text_of(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(str(path), f"cannot be read ({error})", "a torrc file") from error
