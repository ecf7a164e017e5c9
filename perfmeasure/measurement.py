"""A measurement from its first child to its summary.

The order, which is also that of the methods below::

    flows     the collector of connections, where the machine allows it
    network   a private one is made, or the public one is there
    packets   the recorder, where the machine allows it
      |-> tgen server, tor client, onion host, a control-port reader for each tor
      |-> bootstrap, descriptor upload, a first answer from the onion service
      |-> tgen client: the transfers
    until enough transfers have ended, a signal, a line that --stop-at names, or a child given up
      |-> all stop, the last started first; the last publication; the summary
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any, cast

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure

from perfmeasure.children import Children
from perfmeasure.config import MeasureConfig
from perfmeasure.errors import ControlError, ExitStatus, MeasurementError, PerfmeasureError
from perfmeasure.firstanswer import first_answer
from perfmeasure.flows.recording import Recording
from perfmeasure.lock import prefix_lock
from perfmeasure.plan import Plan, find_address, make_plan
from perfmeasure.progress import Progress
from perfmeasure.publication import Publication
from perfmeasure.recorder.packets import PacketRecording
from perfmeasure.status import Status
from perfmeasure.supervisor import Supervisor
from perfmeasure.tally import Tally
from perfmeasure.tor import torrc
from perfmeasure.tor.client import BootstrapPhase, TorController
from perfmeasure.tor.onion import make_private
from perfmeasure.tor.testnet import Testnet
from perfmeasure.units import utc_date
from perfmeasure.web.server import docroot_service

_BOOTSTRAP_STALL_SECONDS = 120.0
_LAST_EVENTS_SECONDS = 1.0
"""How long the control-port readers go on after the last transfer: tor reports the end of its
stream a moment after the generator has seen it."""


class Measurement:
    """One run of ``perfmeasure measure``.

    Args:
        plan: what to run.
        reactor: Twisted's reactor, running.
        progress: where people see how far it is.
        show: takes the lines of the summary.
    """

    def __init__(
        self, plan: Plan, *, reactor: Any, progress: Progress, show: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._config = plan.config
        self._reactor = reactor
        self._progress = progress
        self._show = show
        self._began_unix_ts = time.time()
        self._supervisor = Supervisor(reactor, progress.warn)
        self._children = Children(plan, self._supervisor, reactor=reactor, report=progress.warn)
        self._recording = Recording(plan.config, self._children, self._supervisor, progress)
        self._packets = PacketRecording(plan, self._supervisor, progress)
        self._controllers: dict[str, TorController] = {}
        self._testnet: Testnet | None = None
        self._starting: Deferred[None] | None = None
        self._ended: Deferred[str | None] = Deferred()
        """Fires with None at an orderly end, or with why it cannot go on."""
        self._interrupted: Deferred[None] = Deferred()
        self._guard_drops = LoopingCall(self._drop_guards)
        self._guard_drops.clock = reactor
        self._publication = Publication(plan.config, reactor=reactor, report=progress.warn)
        self._tally = Tally(
            self._config.kinds,
            self._config.num_transfers,
            on_transfer=self._transfer_ended,
            on_complete=lambda: self._end(None),
        )
        self._status = Status(plan.config, self._supervisor, self._tally, progress)

    async def run(self) -> int:
        """Measure, and return the exit status.

        Raises:
            PerfmeasureError: the measurement failed; what was measured is published all the same.
        """
        try:
            return await self._run()
        except OSError as error:
            raise MeasurementError(
                str(error.filename or self._config.prefix),
                f"cannot be read or written ({error.strerror or error})",
                "a data directory with space, in which nothing else is in the way",
                "mend that, or give another folder with --prefix",
            ) from error

    async def _run(self) -> int:
        config = self._config
        self._publication.show_page()
        web = docroot_service(
            config.docroot,
            config.http_port,
            config.http_bind,
            on_error=self._progress.warn,
            reactor=self._reactor,
        )
        web.privilegedStartService()
        web.startService()
        self._progress.phase("web server")
        self._progress.done(f"serving {config.docroot} at {web.url}")
        self._status.start()
        try:
            problem = await self._measure()
            try:
                has_success = await self._finish()
            except PerfmeasureError as error:
                self._show(f"{self._tally}; not published. The logs are in {config.prefix}")
                if problem is None:
                    raise
                self._progress.warn(str(error))  # what went wrong first is raised below
            if problem is not None:
                raise problem
            if config.keep_serving and not self._interrupted.called:
                self._status.stop()
                self._progress.phase("web server")
                self._progress.update(f"still serving at {web.url} (Ctrl-C stops)")
                await self._interrupted
        finally:
            self._status.stop()
            await web.stopService()
        return ExitStatus.DONE if has_success else ExitStatus.FAILED

    def interrupt(self, name: str) -> None:
        """End the measurement in order, as a signal of that name asks."""
        if not self._interrupted.called:
            self._progress.warn(f"{name}: stopping")
            self._interrupted.callback(None)
        else:
            self._publication.kill()  # who asks twice does not want to wait
        if self._starting is not None:
            self._starting.cancel()
        self._end(None)

    # ---- while it runs ------------------------------------------------------------------------

    async def _measure(self) -> PerfmeasureError | None:
        """Start everything, wait for the end, stop everything; return what went wrong."""
        self._supervisor.startService()
        try:
            for start in (self._recording.start, self._start_network, self._start_children):
                self._starting = Deferred.fromCoroutine(start())
                await self._starting
            self._starting = None
            self._publication.start()
            if self._config.drop_guards_hours:
                self._guard_drops.start(self._config.drop_guards_hours * 3600, now=False)
            why = await self._ended
            self._progress.phase("transfers")
            self._progress.done(str(self._tally))
            if why is not None:
                return MeasurementError("measure", why, "", "the logs are in the data directory")
        except CancelledError:
            return None
        except PerfmeasureError as error:
            self._progress.warn("the measurement cannot go on; stopping")
            return error
        finally:
            self._starting = None
            self._publication.stop()
            await self._stop()
        return None

    async def _start_network(self) -> None:
        if not self._config.is_testnet:
            return
        self._progress.phase("private network")
        gencert = self._plan.tor.with_name("tor-gencert")
        self._testnet = Testnet(
            self._plan.folder("testnet"),
            tor=self._plan.tor,
            tor_gencert=gencert if gencert.exists() else "tor-gencert",
        )
        await self._testnet.start(
            self._children,
            self._reactor,
            lambda line: self._progress.update(line.removeprefix("private network: ")),
            is_alive=self._children.is_alive,
        )
        self._progress.done(f"{len(self._testnet.relays)} relays ready")

    async def _start_children(self) -> None:
        plan, children = self._plan, self._children
        children.on_give_up = self._end
        await self._packets.start(self._testnet.relays if self._testnet is not None else ())
        children.start_tgen_server()
        network_lines = self._testnet.client_lines if self._testnet is not None else ()
        names = ["tor-client"]
        texts = {"tor-client": plan.client_torrc(network_lines)}
        if plan.onion is not None:
            plan.onion.prepare()
            texts["tor-server"] = plan.server_torrc(network_lines)
            names.append("tor-server")
        make_private(self._config.private.absolute())
        for name in names:
            path = plan.folder(name) / "torrc"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[name], "utf-8")
            for warning in torrc.verify(plan.tor, path):
                self._progress.warn(f"{path}: tor says: {warning}")
            children.start_tor(name, on_line=self._look_for_stop if name == "tor-client" else None)
            children.start_monitor(name)
        for name in names:
            await self._bootstrap(name)
        addresses = {}
        if plan.onion is not None:
            addresses["onion"] = await first_answer(
                plan,
                self._controllers["tor-server"],
                drop_guards=self._drop_guards,
                reactor=self._reactor,
                progress=self._progress,
            )
        if "exit" in self._config.kinds:
            addresses["exit"] = find_address(self._config)
        self._progress.phase("transfers")
        self._progress.update(str(self._tally), self._tally.fraction)
        children.start_tgen_client(
            lambda: plan.client_graph(addresses, self._tally.remaining),
            on_line=self._take_client_line,
            on_end=self._end,
            is_once=self._config.num_transfers > 0,
        )

    async def _bootstrap(self, name: str) -> None:
        controller = self._children.controller(name)
        self._controllers[name] = controller
        self._progress.phase(f"bootstrap {name}")

        def show(phase: BootstrapPhase) -> None:
            self._progress.update(phase.summary, phase.percent / 100)

        await controller.wait_bootstrapped(stall_seconds=_BOOTSTRAP_STALL_SECONDS, on_progress=show)
        self._progress.done(f"tor {await controller.version()} is ready")

    def _take_client_line(self, line: bytes) -> bool:
        self._look_for_stop(line)
        return self._tally.take(line)

    def _look_for_stop(self, line: bytes) -> None:
        if self._config.stop_at is not None and re.search(self._config.stop_at.encode(), line):
            self._progress.warn(f"--stop-at: {line.decode(errors='replace')[:200]}")
            self._end(None)

    def _transfer_ended(self, text: str) -> None:
        self._publication.mark_news()
        if not self._ended.called:
            self._progress.phase("transfers")
            self._progress.update(text, self._tally.fraction)

    async def _drop_guards(self) -> None:
        for name, controller in self._controllers.items():
            try:
                await controller.drop_guards()
            except ControlError as error:
                self._progress.warn(f"{name}: guards not dropped: {error}")

    def _end(self, why: str | None) -> None:
        if not self._ended.called:
            self._ended.callback(why)

    # ---- the end ------------------------------------------------------------------------------

    async def _stop(self) -> None:
        """Stop all children, the last started first."""
        self._progress.phase("stopping")
        if self._guard_drops.running:
            self._guard_drops.stop()
        await self._children.stop_tgen_client()
        if self._controllers:
            await deferLater(self._reactor, _LAST_EVENTS_SECONDS)
        for controller in self._controllers.values():
            await controller.close()
        await self._supervisor.stop_all()
        if self._testnet is not None:
            self._testnet.close()
        self._recording.close()
        self._progress.done("all children have ended")
        self._packets.close()

    async def _finish(self) -> bool:
        """Publish for the last time, show the summary, return whether a transfer succeeded."""
        if not self._tally.ended and not (self._config.prefix / "tgen-client").exists():
            return False
        self._progress.phase("publish")
        result = await self._publication.publish(
            utc_date(time.time()), since_unix_ts=self._began_unix_ts
        )
        self._progress.done(f"{self._config.docroot}")
        self._show(result["summary"])
        return any(self._tally.succeeded.values())


def run(config: MeasureConfig) -> int:
    """Run a measurement under a reactor of its own and return its exit status.

    Raises:
        PerfmeasureError: it cannot start, or it failed.
    """
    from twisted.internet import reactor as global_reactor  # noqa: PLC0415 - importing installs it

    reactor: Any = global_reactor
    # Twisted's own clock is UTC: a step of it would fire or hold up every timer.
    reactor.seconds = time.monotonic
    outcome: list[int | Failure] = []
    with prefix_lock(config.prefix), Progress() as progress:
        measurement = Measurement(
            make_plan(config), reactor=reactor, progress=progress, show=click.echo
        )

        def show_defect(event: dict[str, Any]) -> None:
            if event.get("log_level") in (LogLevel.error, LogLevel.critical):
                failure = event.get("log_failure")
                what = failure.getErrorMessage() if failure else formatEvent(event)
                progress.warn(f"a defect of perfmeasure itself: {what}")
                if failure and os.environ.get("PERFMEASURE_DEBUG"):
                    failure.printDetailedTraceback()

        globalLogBeginner.beginLoggingTo(
            [cast("ILogObserver", show_defect)], redirectStandardIO=False
        )

        def interrupt(number: int, _frame: object) -> None:
            reactor.callFromThread(measurement.interrupt, signal.Signals(number).name)

        def end(result: int | Failure) -> None:
            outcome.append(result)
            reactor.stop()

        def begin() -> None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, interrupt)
            Deferred.fromCoroutine(measurement.run()).addBoth(end)

        reactor.callWhenRunning(begin)
        reactor.run()
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result
