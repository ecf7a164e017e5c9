"""When a measurement publishes: now and then while it runs, after each rotation, at its end.

The publisher itself (compress, analyse, write the docroot) runs as a process of its own: the
harness, which serves HTTP and feeds logs, never waits for it. A failure is reported and tried
again at the next occasion; it never stops the measuring.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from perfmeasure import jsonio
from perfmeasure.config import MeasureConfig
from perfmeasure.errors import (
    ExitStatus,
    InputError,
    MeasurementError,
    PerfmeasureError,
    UsageError,
)
from perfmeasure.plan import find_address
from perfmeasure.tether import tethered
from perfmeasure.units import parse_bytes, utc_date
from perfmeasure.web.publisher import publish

_TICK_SECONDS = 1.0
_ROTATION_GRACE_SECONDS = 8.0
"""After the end of a period, until every writer has rotated: the supervisor allows 3 s for lines
on their way, the control-port reader looks at its clock at least every few seconds."""
_SHORTEST_PAUSE_SECONDS = 10.0
_PAUSE_FACTOR = 20.0
"""A publication that took 1 s is followed by a pause of 20 s: at most 5 % of one processor."""
_LIMIT_SECONDS = 1800.0
"""A publisher that takes longer stands still and is killed."""
_RETRY_SECONDS = 60.0
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")

_ERRORS: dict[int, type[PerfmeasureError]] = {
    ExitStatus.USAGE: UsageError,
    ExitStatus.UNUSABLE_INPUT: InputError,
}


class Publication:
    """Publishes the logs of a measurement.

    Args:
        config: of the measurement.
        reactor: Twisted's reactor.
        report: takes one sentence for people when a publication failed.
    """

    def __init__(
        self, config: MeasureConfig, *, reactor: Any, report: Callable[[str], None]
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._report = report
        self._lock = DeferredLock()
        self._publisher: _Publisher | None = None
        self._retry_at = 0.0
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor
        self._has_news = True
        self._next_at = 0.0
        self._period = self._period_of(time.time())
        self._dates_due: dict[str, bool] = {}
        """Days to publish, and whether each is over (or its logs have just rotated)."""

    def show_page(self) -> None:
        """Put the page in place, for those who look before there is anything to publish.

        Raises:
            MeasurementError: the docroot cannot be written.
        """
        publish(self._config.docroot, {})

    def start(self) -> None:
        """Begin to publish now and then, first of all the days that an earlier run left."""
        days = days_to_publish(self._config.archive, self._config.docroot)
        self._dates_due = dict.fromkeys(days, True)
        self._next_at = self._reactor.seconds() + _SHORTEST_PAUSE_SECONDS / 2
        self._loop.start(_TICK_SECONDS, now=False)

    def stop(self) -> None:
        """Publish no more by itself."""
        if self._loop.running:
            self._loop.stop()

    def mark_news(self) -> None:
        """Note that something happened that is worth a publication."""
        self._has_news = True

    def kill(self) -> None:
        """End a publication that is under way; what was published before stays."""
        if self._publisher is not None:
            self._publisher.kill()

    async def publish(
        self, date: str, *, is_over: bool = True, since_unix_ts: float | None = None
    ) -> dict[str, Any]:
        """Publish one UTC day, after any publication that is under way.

        Args:
            date: ``YYYY-MM-DD``.
            is_over: publish the day's own files, too; without it only the newest database.
            since_unix_ts: summarise the transfers that began from then on.

        Returns:
            What the publisher says of it (see ``perfmeasure.web.publisher``).

        Raises:
            MeasurementError: it failed; the message is the publisher's own.
        """
        await self._lock.acquire()
        try:
            began = self._reactor.seconds()
            self._has_news = False
            said, problem, status = await self._run(self._arguments(date, is_over, since_unix_ts))
            took = self._reactor.seconds() - began
            self._next_at = self._reactor.seconds() + max(
                _SHORTEST_PAUSE_SECONDS, _PAUSE_FACTOR * took
            )
        finally:
            self._lock.release()
        if status != 0:
            text = problem.decode("utf-8", "replace").strip().removeprefix("perfmeasure: ")
            kind = _ERRORS.get(status, MeasurementError)
            raise kind(f"publishing {date}", text or f"ended with status {status}")
        lines = said.splitlines() or [b""]
        result: dict[str, Any] = jsonio.loads(lines[-1], "the publisher's answer")
        return result

    def _run(self, arguments: Sequence[str]) -> Deferred[tuple[bytes, bytes, int]]:
        argv = tethered([sys.executable, "-m", "perfmeasure.web.publisher", *arguments])
        publisher = self._publisher = _Publisher()
        self._reactor.spawnProcess(publisher, argv[0], argv, env=os.environ)
        limit = self._reactor.callLater(_LIMIT_SECONDS, publisher.kill)

        def ended(outcome: tuple[bytes, bytes, int]) -> tuple[bytes, bytes, int]:
            self._publisher = None
            if limit.active():
                limit.cancel()
            return outcome

        return publisher.done.addCallback(ended)

    def _arguments(self, date: str, is_over: bool, since_unix_ts: float | None) -> list[str]:
        config = self._config
        arguments = ["--prefix", str(config.prefix), "--docroot", str(config.docroot)]
        arguments += ["--date", date, "--nickname", config.host]
        with contextlib.suppress(MeasurementError):
            arguments += ["--address", find_address(config)]
        if config.exclude_cbt:
            arguments.append("--exclude-cbt")
        if not is_over:
            arguments.append("--unfinished")
        if config.publish_packets:
            budget = parse_bytes(config.record_budget, "--record-budget")
            arguments += ["--packets-budget", str(budget)]
        if since_unix_ts is not None:
            arguments += ["--since", f"{since_unix_ts:.6f}"]
        return arguments

    def _period_of(self, unix_ts: float) -> tuple[str, int]:
        return utc_date(unix_ts), int(unix_ts % 86400) // self._config.rotate_every_seconds

    async def _tick(self) -> None:
        now = time.time()
        period = self._period_of(now - _ROTATION_GRACE_SECONDS)
        if period > self._period:
            self._dates_due[self._period[0]] = True
            self._period = period
        if self._has_news and self._reactor.seconds() >= self._next_at:
            self._dates_due.setdefault(utc_date(now), False)
        if self._reactor.seconds() < self._retry_at:
            return
        # The newest day last: latest.json is what was published last.
        for date in sorted(self._dates_due):
            is_over = self._dates_due.pop(date)
            try:
                result = await self.publish(date, is_over=is_over)
            except (InputError, UsageError) as error:
                self._report(str(error))  # trying again would find the same
            except (PerfmeasureError, OSError) as error:
                self._report(f"{error}; trying again in {_RETRY_SECONDS:.0f} s")
                self._dates_due[date] = is_over or self._dates_due.get(date, False)
                self._retry_at = self._reactor.seconds() + _RETRY_SECONDS
                return
            else:
                for warning in result.get("warnings", ()):
                    self._report(f"publishing {date}: {warning}")


class _Publisher(ProcessProtocol):
    """The publisher's process; ``done`` fires with output, error output, and status or signal."""

    def __init__(self) -> None:
        self.done: Deferred[tuple[bytes, bytes, int]] = Deferred()
        self._output = {1: b"", 2: b""}

    def kill(self) -> None:
        """End it at once."""
        if self.transport is not None and not self.done.called:
            transport: Any = self.transport
            transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._output[childFD] += data

    def processEnded(self, reason: Failure) -> None:
        problem = reason.value
        status = getattr(problem, "exitCode", None)
        if status is None:
            status = int(getattr(problem, "signal", None) or 1)
            self._output[2] += b"killed by signal %d" % status
            status += 128
        self.done.callback((self._output[1], self._output[2], status))


def days_to_publish(archive: Path, docroot: Path) -> set[str]:
    """Return the days whose archived logs are newer than their database, or have none."""
    due = set()
    for folder in archive.glob("*/"):
        if not _DATE.match(folder.name):
            continue
        database = docroot / f"{folder.name}.perfmeasure.analysis.json.xz"
        logs = [path.stat().st_mtime_ns for path in folder.glob("*/*log*")]
        if logs and (not database.exists() or max(logs) > database.stat().st_mtime_ns):
            due.add(folder.name)
    return due
