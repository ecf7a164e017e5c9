"""The kernel's view of a measurement: a control group for its children, a collector beside it.

The children are started inside the group, so every socket of theirs is recorded and nobody else's:
its connections, and its packets by windows. What the machine lacks, or what ended the collector, is
written into the log as the reason why there are no records.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from perfmeasure import jsonio
from perfmeasure.children import Children
from perfmeasure.config import Flows, MeasureConfig
from perfmeasure.errors import ExitStatus, MissingError
from perfmeasure.flows.cgroup import MeasurementCgroup
from perfmeasure.logfile import LogFile
from perfmeasure.progress import Progress
from perfmeasure.readychild import ReadyChild
from perfmeasure.supervisor import Supervisor


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
        self._services_path = (config.prefix / "services" / "services.log").absolute()
        self._group: MeasurementCgroup | None = None

    async def start(self) -> None:
        """Start the collector and wait until it records.

        Raises:
            MissingError: it cannot, and was asked for with ``--flows on``.
        """
        if self._config.flows is Flows.OFF:
            self._write_absent("turned off (--flows off)", self._log_path, self._services_path)
            return
        self._progress.phase("flows")
        try:
            self._group = MeasurementCgroup()
            await ReadyChild(
                "flows",
                self._argv(self._group),
                self._supervisor,
                report=self._progress.warn,
                on_give_up=self._given_up,
                # Such as packets that are not accounted for: another start would not make it true.
                final_status=ExitStatus.FAILED,
            ).start()
        except MissingError as error:
            self.close()
            if self._config.flows is Flows.ON:
                raise
            self._write_absent(str(error), self._log_path)
            await self._start_poller()
            self._progress.done(
                f"connections and packets are not recorded: {error}. Services are polled"
            )
            return
        self._children.cgroup = self._group.path
        self._progress.done("connections and packets are recorded")

    def close(self) -> None:
        """Remove the group; nothing may run in it any more."""
        group, self._group = self._group, None
        self._children.cgroup = None
        if group is not None and not group.remove():
            self._progress.warn(f"{group.path}: not removed, for a process is still in it")

    def _given_up(self, why: str) -> None:
        if self._config.flows is Flows.ON:
            self._children.on_give_up(why)
        else:
            self._progress.warn(f"connections and packets are recorded no more: {why}")
            self._write_absent(f"from here on: {why}", self._log_path, self._services_path)

    def _argv(self, group: MeasurementCgroup) -> list[str]:
        config = self._config
        argv = [sys.executable, "-m", "perfmeasure.flows.collector", "--cgroup", str(group.path)]
        argv += ["--log", str(self._log_path), "--archive", str(config.archive.absolute())]
        argv += ["--windows", str(self._log_path.with_name("windows"))]
        argv += ["--services", str(config.prefix.absolute()), "--instance-id", config.host]
        return [*argv, "--rotate-every", f"{config.rotate_every_seconds} seconds"]

    async def _start_poller(self) -> None:
        """Have services told of without the kernel's records."""
        config = self._config
        argv = [sys.executable, "-m", "perfmeasure.topology.poller"]
        argv += ["--prefix", str(config.prefix.absolute()), "--instance-id", config.host]
        argv += ["--archive", str(config.archive.absolute())]
        argv += ["--rotate-every", f"{config.rotate_every_seconds} seconds"]

        def given_up(why: str) -> None:
            self._progress.warn(f"services are told of no more: {why}")
            self._write_absent(f"from here on: {why}", self._services_path)

        poller = ReadyChild(
            "services", argv, self._supervisor, report=self._progress.warn, on_give_up=given_up
        )
        try:
            await poller.start()
        except MissingError as error:
            given_up(str(error))

    def _write_absent(self, reason: str, *paths: Path) -> None:
        config = self._config
        now = round(time.time(), 6)
        line = {"record": "absent", "unix_ts": now, "reason": reason}
        for path in paths:
            log = LogFile(path, config.archive.absolute(), config.rotate_every_seconds)
            log.write(f"{jsonio.compact(line)}\n".encode(), now)
            log.close()
