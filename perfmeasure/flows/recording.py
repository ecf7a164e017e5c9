"""The kernel's view of a measurement: a control group for its children, a collector beside it.

The children are started inside the group, so every socket of theirs is recorded and nobody else's:
its connections, and its packets by windows. What the machine lacks, or what ended the collector, is
written into the log as the reason why there are no records.
"""

from __future__ import annotations

import signal
import sys
import time

from twisted.internet.defer import Deferred

from perfmeasure import jsonio
from perfmeasure.children import Children
from perfmeasure.config import Flows, MeasureConfig
from perfmeasure.errors import ExitStatus, MissingError
from perfmeasure.flows.cgroup import MeasurementCgroup
from perfmeasure.flows.collector import READY
from perfmeasure.logfile import LogFile
from perfmeasure.process import ChildProcess, RestartPolicy
from perfmeasure.progress import Progress
from perfmeasure.supervisor import Supervisor

_READY_LIMIT_SECONDS = 60.0
_LATER_DEATHS_ALLOWED = 5


class Recording:
    """Records the connections and packets of one measurement, if it is wanted and can be.

    Args:
        config: of the measurement.
        children: those started after `start` are recorded.
        supervisor: keeps the collector running.
        progress: where people see how far it is.
    """

    def __init__(
        self,
        config: MeasureConfig,
        children: Children,
        supervisor: Supervisor,
        progress: Progress,
    ) -> None:
        self._config = config
        self._children = children
        self._supervisor = supervisor
        self._progress = progress
        self._log_path = (config.prefix / "kernel" / "connections.log").absolute()
        self._group: MeasurementCgroup | None = None

    async def start(self) -> None:
        """Start the collector and wait until it records.

        Raises:
            MissingError: it cannot, and was asked for with ``--flows on``.
        """
        if self._config.flows is Flows.OFF:
            self._write_absent("turned off (--flows off)")
            return
        self._progress.phase("flows")
        try:
            self._group = MeasurementCgroup()
            await self._start_collector(self._group)
        except MissingError as error:
            self.close()
            if self._config.flows is Flows.ON:
                raise
            self._write_absent(str(error))
            self._progress.done(f"connections and packets are not recorded: {error}")
            return
        self._children.cgroup = self._group.path
        self._progress.done("connections and packets are recorded")

    def close(self) -> None:
        """Remove the group; nothing may run in it any more."""
        group, self._group = self._group, None
        self._children.cgroup = None
        if group is not None and not group.remove():
            self._progress.warn(f"{group.path}: not removed, for a process is still in it")

    async def _start_collector(self, group: MeasurementCgroup) -> None:
        ready: Deferred[None] = Deferred()

        def take(line: bytes) -> None:
            if ready.called:
                if line != READY.encode():  # which it says after each restart
                    self._progress.warn(line.decode(errors="replace"))
            elif line == READY.encode():
                child.policy = RestartPolicy(deaths_allowed=_LATER_DEATHS_ALLOWED)
                ready.callback(None)

        def given_up(why: str | None) -> None:
            if ready.called:
                self._given_up_later(why or "")
            else:
                said = b" ".join(child.last_lines).decode(errors="replace")
                ready.errback(_as_missing(said or why or ""))

        def too_late() -> None:
            child.last_lines.append(b"flows: not ready in %.0f s" % _READY_LIMIT_SECONDS)
            child.signal(signal.SIGKILL)

        child = ChildProcess(
            "flows",
            self._argv(group),
            reactor=self._supervisor.reactor,
            report=self._progress.warn,
            on_line=take,
            on_end=given_up,
            # Such as packets that are not accounted for: another start would not make it true.
            final_status=ExitStatus.FAILED,
            # SIGKILL could cut a line that is just being written.
            death_signal=signal.SIGTERM,
            policy=RestartPolicy(deaths_allowed=0),
        )
        late = self._supervisor.reactor.callLater(_READY_LIMIT_SECONDS, too_late)
        self._supervisor.keep(child)
        try:
            await ready
        except MissingError:
            await self._supervisor.stop(child)
            raise
        finally:
            if late.active():
                late.cancel()

    def _given_up_later(self, why: str) -> None:
        if self._config.flows is Flows.ON:
            self._children.on_give_up(why)
        else:
            self._progress.warn(f"connections and packets are recorded no more: {why}")
            self._write_absent(f"from here on: {why}")

    def _argv(self, group: MeasurementCgroup) -> list[str]:
        config = self._config
        argv = [sys.executable, "-m", "perfmeasure.flows.collector", "--cgroup", str(group.path)]
        argv += ["--log", str(self._log_path), "--archive", str(config.archive.absolute())]
        argv += ["--windows", str(self._log_path.with_name("windows"))]
        argv += ["--services", str(config.prefix.absolute()), "--instance-id", config.host]
        return [*argv, "--rotate-every", f"{config.rotate_every_seconds} seconds"]

    def _write_absent(self, reason: str) -> None:
        config = self._config
        now = round(time.time(), 6)
        line = {"record": "absent", "unix_ts": now, "reason": reason}
        log = LogFile(self._log_path, config.archive.absolute(), config.rotate_every_seconds)
        log.write(f"{jsonio.compact(line)}\n".encode(), now)
        log.close()


def _as_missing(said: str) -> MissingError:
    """Return the collector's own error, which it printed as one line."""
    where, separator, got = said.removeprefix("perfmeasure: ").partition(": ")
    return MissingError(where, got) if separator else MissingError("flows", where)
