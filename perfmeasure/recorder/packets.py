"""The packets of a measurement: of which interface, which ones, and a child that records them.

What is recorded is the traffic of a private network alone, by its ports. On the real network relays
listen on any port: there it is all TCP of the interface but ssh, the docroot's visitors and tor's
control ports, which carry what is nobody else's. Why there are no packets is written beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from perfmeasure.config import RECORD_AUTO, RECORD_OFF
from perfmeasure.errors import MissingError, UsageError
from perfmeasure.plan import Plan
from perfmeasure.progress import Progress
from perfmeasure.readychild import ReadyChild
from perfmeasure.recorder import absence
from perfmeasure.supervisor import Supervisor
from perfmeasure.tether import HEALTH
from perfmeasure.tor.relay import Relay

_IDLE_LIMIT_SECONDS = 120.0
_SSH_PORT = 22
_ROUTES = Path("/proc/net/route")
_UP, _DEFAULT = 1, "00000000"


class PacketRecording:
    """Records the packets of one measurement, if it is wanted and can be.

    Args:
        plan: of the measurement.
        supervisor: keeps the recorder running.
        progress: where people see how far it is.
    """

    def __init__(self, plan: Plan, supervisor: Supervisor, progress: Progress) -> None:
        self._plan = plan
        self._supervisor = supervisor
        self._progress = progress
        self._is_asked_for = plan.config.record not in {RECORD_AUTO, RECORD_OFF}
        self._folder = plan.folder(absence.PACKETS)
        self._health = ""

    async def start(self, relays: Iterable[Relay]) -> None:
        """Start the recorder and wait until it records.

        Args:
            relays: of the private network; none on the real one.

        Raises:
            MissingError: it cannot, and an interface was asked for.
        """
        config = self._plan.config
        if config.record == RECORD_OFF:
            self._note("turned off (--record off)")
            return
        self._progress.phase("packets")
        try:
            interface = config.record if self._is_asked_for else self._interface()
            absence.make_store(self._folder)
            await ReadyChild(
                "packets",
                self._argv(
                    interface, packet_filter(self._plan, (relay.or_port for relay in relays))
                ),
                self._supervisor,
                report=self._progress.warn,
                on_give_up=self._given_up,
                take=self._take,
                idle_limit_seconds=_IDLE_LIMIT_SECONDS,
            ).start()
        except (MissingError, UsageError) as error:
            if self._is_asked_for:
                raise
            self._note(str(error))
            self._progress.done(f"not recorded: {error}")
            return
        absence.clear(self._folder)
        self._progress.done(f"those of {interface} are recorded in {self._folder}")
        if config.publish_packets:
            self._progress.warn(
                "--publish-packets: the packets of each transfer become public, that is addresses "
                "and payload of the measurement's own connections"
            )

    def close(self) -> None:
        """Say what was recorded, once the recorder has ended."""
        if self._health:
            self._progress.phase("packets")
            self._progress.done(self._health)

    def _interface(self) -> str:
        if self._plan.config.is_testnet:
            return "lo"
        found = default_interface(_ROUTES.read_text("ascii"))
        if found is None:
            raise MissingError(
                "packets", "no route to the internet", "an interface", "name it with --record"
            )
        return found

    def _argv(self, interface: str, expression: str) -> list[str]:
        config = self._plan.config
        argv = [sys.executable, "-m", "perfmeasure.recorder.child", "--interface", interface]
        argv += ["--store", str(self._folder), "--filter", expression]
        return [*argv, "--cutoff", config.record_cutoff, "--budget", config.record_budget]

    def _take(self, line: bytes) -> bool:
        is_health = line.startswith(HEALTH.encode())
        if is_health:
            self._health = line.decode(errors="replace").removeprefix(HEALTH)
        return is_health

    def _given_up(self, why: str) -> None:
        self._progress.warn(f"packets are recorded no more: {why}")
        self._note(f"from here on: {why}")

    def _note(self, reason: str) -> None:
        try:
            absence.note(self._folder, reason)
        except OSError as error:  # it may be a full disk that ended the recorder
            self._progress.warn(f"{self._folder}: cannot be written ({error.strerror})")


def packet_filter(plan: Plan, relay_ports: Iterable[int]) -> str:
    """Return which packets are the measurement's, in pcap's language.

    Args:
        plan: of the measurement.
        relay_ports: of the relays of a private network.
    """
    if plan.config.is_testnet:
        ports = {*relay_ports, plan.socks_port, plan.listen_port, plan.connect_port}
        return "tcp and (" + " or ".join(f"port {port}" for port in sorted(ports)) + ")"
    others = {_SSH_PORT, plan.config.http_port, plan.client_control_port, plan.server_control_port}
    return " and ".join(["tcp", *(f"not port {port}" for port in sorted(others) if port)])


def default_interface(routes: str) -> str | None:
    """Return the interface of the route to everywhere, by ``/proc/net/route``."""
    found = []
    for line in routes.splitlines()[1:]:
        name, target, _, flags, _, _, metric, mask, *_ = line.split()
        if target == mask == _DEFAULT and int(flags, 16) & _UP:
            found.append((int(metric), name))
    return min(found)[1] if found else None
