"""The children of a measurement: which program each one is, where its lines go, what its work is.

Each has a sign of work, so that one that lives but does nothing is noticed:

============  ======================================================================
tor           it answers a question on its control port
monitor       its log grows (tor tells its bandwidth each second)
tgen server   it writes a heartbeat
tgen client   a transfer ends
relay         none: a relay that stands still shows in the transfers
============  ======================================================================
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall

from perfmeasure.errors import ControlError
from perfmeasure.logfile import LogFile
from perfmeasure.plan import LOOPBACK, Plan
from perfmeasure.process import ChildProcess
from perfmeasure.supervisor import Supervisor
from perfmeasure.tgen.graphml import Graph, write_graphml
from perfmeasure.tgen.model import longest_transfer_seconds
from perfmeasure.tor.client import TorController
from perfmeasure.tor.relay import Relay

_QUESTION_SECONDS = 15.0
_TOR_IDLE_SECONDS = 90.0
_HEARTBEAT_SECONDS = 60.0
_MARGIN_SECONDS = 30.0


class Children:
    """Starts the children of one measurement and knows their signs of work.

    Args:
        plan: what they run.
        supervisor: keeps them running.
        reactor: Twisted's reactor.
        report: takes one sentence for people.
    """

    def __init__(
        self, plan: Plan, supervisor: Supervisor, *, reactor: Any, report: Callable[[str], None]
    ) -> None:
        self.on_give_up: Callable[[str], None] = report
        """Told why a child was given up."""
        self.cgroup: Path | None = None
        """The control group that those started from now on run in; None is ours."""
        self._plan = plan
        self._supervisor = supervisor
        self._reactor = reactor
        self._report = report
        self._log_sizes: dict[str, tuple[int, int]] = {}
        self._questions = LoopingCall(self._ask_all)
        self._questions.clock = reactor
        self._controllers: dict[str, TorController] = {}
        self._tgen_client: ChildProcess | None = None

    # ---- the relays of a private network (perfmeasure.tor.testnet.Launcher) -------------------

    def launch(self, relay: Relay, argv: list[str]) -> None:
        """Start a relay and keep it running."""
        log = LogFile(relay.log_path, self._plan.config.archive)
        self._keep(self._child(f"tor-relay {relay.name}", argv, log=log))

    def is_alive(self, name: str) -> bool:
        """Tell whether the relay of that name runs."""
        return self._named(f"tor-relay {name}").pid is not None

    async def stop_all(self) -> None:
        """End the relays."""
        for child in reversed(self._supervisor.children):
            if child.name is not None and child.name.startswith("tor-relay "):
                await self._supervisor.stop(child)

    # ---- the measurement's own ----------------------------------------------------------------

    def start_tor(self, name: str, on_line: Callable[[bytes], None] | None = None) -> None:
        """Start ``tor-client`` or ``tor-server``; its torrc is in place."""
        optional = {"on_line": on_line} if on_line is not None else {}
        child = self._child(
            name,
            self._plan.tor_argv(name),
            log=self._log(name, "perfmeasure.tor.log"),
            idle_limit_seconds=_TOR_IDLE_SECONDS,
            **optional,
        )
        self._keep(child)
        self._controllers[name] = TorController(
            name,
            self._control_port(name),
            self._plan.cookie_path(name),
            reactor=self._reactor,
            last_words=lambda: b" / ".join(child.last_lines).decode(errors="replace")[-600:],
        )
        if not self._questions.running:
            self._questions.start(_QUESTION_SECONDS, now=False)

    def controller(self, name: str) -> TorController:
        """Return the connection to the tor of that name."""
        return self._controllers[name]

    def start_monitor(self, name: str) -> None:
        """Start the control-port reader of the tor of that name."""
        config = self._plan.config
        argv = [sys.executable, "-m", "perfmeasure.tor.monitor", "--wait"]
        argv += ["--control", f"{LOOPBACK}:{self._control_port(name)}"]
        argv += ["--cookie", str(self._plan.cookie_path(name)), "--nickname", config.host]
        argv += ["--log", str(self._torctl_path(name)), "--archive", str(config.archive.absolute())]
        argv += ["--rotate-every", f"{config.rotate_every_seconds} seconds"]
        for event in config.events:
            argv += ["--custom-events", event]
        self._keep(
            self._child(
                f"monitor {name}",
                argv,
                on_line=lambda line: self._report(line.decode(errors="replace")),
                # SIGKILL could cut a line that is just being written.
                death_signal=signal.SIGTERM,
                idle_limit_seconds=2 * _TOR_IDLE_SECONDS,
            )
        )

    def start_tgen_server(self) -> None:
        """Write the server's model and start the tgen server."""
        name = "tgen-server"
        self._write_model(name, self._plan.server_graph())
        child: ChildProcess = self._child(
            name,
            self._plan.tgen_argv(name),
            log=self._log(name, "perfmeasure.tgen.log"),
            is_stamped=True,
            on_line=lambda _line: child.mark_work(),
            idle_limit_seconds=3 * _HEARTBEAT_SECONDS,
        )
        self._keep(child)

    def start_tgen_client(
        self,
        graph: Callable[[], Graph],
        *,
        on_line: Callable[[bytes], bool],
        on_end: Callable[[str | None], None],
        is_once: bool,
    ) -> None:
        """Start the tgen client.

        Args:
            graph: gives its model anew at each start: what is still to be done.
            on_line: takes a line and tells whether a transfer ended with it.
            on_end: told None when the model has ended, or why the client was given up.
            is_once: the model ends by itself.
        """
        name = "tgen-client"

        def write_model() -> None:
            model = graph()
            self._write_model(name, model)
            child.idle_limit_seconds = longest_transfer_seconds(model) + _MARGIN_SECONDS

        def take(line: bytes) -> None:
            if on_line(line):
                child.mark_work()

        child = self._child(
            name,
            self._plan.tgen_argv(name),
            log=self._log(name, "perfmeasure.tgen.log"),
            is_stamped=True,
            is_once=is_once,
            on_line=take,
            on_end=on_end,
            before_start=write_model,
        )
        self._tgen_client = child
        self._keep(child)

    async def stop_tgen_client(self) -> None:
        """End the transfers; the rest goes on."""
        if self._questions.running:
            self._questions.stop()
        if self._tgen_client is not None:
            child, self._tgen_client = self._tgen_client, None
            await self._supervisor.stop(child)

    # ---- signs of work ------------------------------------------------------------------------

    async def _ask_all(self) -> None:
        for name, controller in self._controllers.items():
            monitor = self._named(f"monitor {name}")
            try:
                await controller.bootstrap_phase()
            except ControlError:
                # Without a tor that answers, its reader has nothing to do.
                monitor.mark_work()
                continue
            self._named(name).mark_work()
            try:
                found = self._torctl_path(name).stat()
            except FileNotFoundError:
                continue
            size = (found.st_ino, found.st_size)
            if self._log_sizes.get(name) != size:
                self._log_sizes[name] = size
                monitor.mark_work()

    # ---- small ones ---------------------------------------------------------------------------

    def _child(self, name: str, argv: list[str], **settings: Any) -> ChildProcess:
        settings.setdefault("on_end", self._given_up)
        # The children log in UTC; a library's own stamps do, too.
        env = {**os.environ, "TZ": "UTC", "PYTHONUNBUFFERED": "1"}
        return ChildProcess(
            name,
            argv,
            reactor=self._reactor,
            report=self._report,
            env=env,
            cgroup=self.cgroup,
            **settings,
        )

    def _given_up(self, why: str | None) -> None:
        self.on_give_up(why or "a child ended that should run for ever")

    def _keep(self, child: ChildProcess) -> None:
        self._supervisor.keep(child)

    def _named(self, name: str) -> ChildProcess:
        service = self._supervisor.getServiceNamed(name)
        assert isinstance(service, ChildProcess)  # noqa: S101 - for the type checker
        return service

    def _log(self, folder: str, name: str) -> LogFile:
        config = self._plan.config
        return LogFile(
            self._plan.folder(folder) / name, config.archive.absolute(), config.rotate_every_seconds
        )

    def _write_model(self, name: str, model: Graph) -> None:
        folder = self._plan.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        write_graphml(model, folder / "tgen.graphml.xml")

    def _torctl_path(self, name: str) -> Path:
        return self._plan.folder(name) / "perfmeasure.torctl.log"

    def _control_port(self, name: str) -> int:
        plan = self._plan
        return plan.client_control_port if name == "tor-client" else plan.server_control_port
