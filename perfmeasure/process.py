"""A child process as a Twisted service: its lines into a log, its death noticed and mended.

A child that dies is started again after a pause that doubles each time. A child that lives but
does no work for too long is killed, which is then a death like any other. Too many deaths within
an hour and the child is given up, which ends the measurement.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet import error
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from perfmeasure.errors import PerfmeasureError
from perfmeasure.logfile import LogFile, stamp_of
from perfmeasure.tether import tethered
from perfmeasure.units import log_stamp

_LONGEST_LINE_BYTES = 1 << 20
_LAST_LINES_KEPT = 5


@dataclass(frozen=True)
class RestartPolicy:
    """How often a child may die, and how long to wait before each new start."""

    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0
    deaths_allowed: int = 10
    """Deaths within ``window_seconds`` after which the child is given up."""
    window_seconds: float = 3600.0


class ChildProcess(Service):
    """One program kept running.

    Args:
        name: what people call it, such as ``tor-client``.
        argv: the program and its arguments.
        reactor: Twisted's reactor.
        report: takes one sentence for people when the child dies, is restarted or given up.
        log: where its standard output and error go, line by line; None keeps the last few only.
        is_stamped: its lines carry Unix time as their third column; otherwise each line gets
            the UTC stamp of its arrival.
        env: its environment, ours if None.
        is_once: an exit with status 0 is its orderly end, not a death.
        on_line: sees each line, without the newline.
        on_end: called once, with None after an orderly end of an ``is_once`` child, or with a
            sentence that says why the child was given up.
        before_start: called before each start.
        final_status: an exit with this status is no accident: the child is given up at once.
        death_signal: what it gets when the harness is killed. SIGTERM is for a program of ours
            that writes a log and ends at once; any other gets SIGKILL.
        idle_limit_seconds: how long it may go without ``mark_work`` being called; None is for ever.
        cgroup: the folder of the control group that it runs in; None is ours.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        reactor: Any,
        report: Callable[[str], None],
        log: LogFile | None = None,
        is_stamped: bool = False,
        env: Mapping[str, str] | None = None,
        is_once: bool = False,
        on_line: Callable[[bytes], None] = lambda _line: None,
        on_end: Callable[[str | None], None] = lambda _why: None,
        before_start: Callable[[], None] = lambda: None,
        final_status: int | None = None,
        death_signal: int = signal.SIGKILL,
        idle_limit_seconds: float | None = None,
        cgroup: Path | None = None,
        policy: RestartPolicy | None = None,
    ) -> None:
        self.setName(name)
        self.argv = list(argv)
        self.log = log
        self.restarts = 0
        self.started_unix_ts: float | None = None
        self.last_lines: deque[bytes] = deque(maxlen=_LAST_LINES_KEPT)
        self.lost_lines = 0
        self.idle_limit_seconds = idle_limit_seconds
        self._reactor = reactor
        self._report = report
        self._is_stamped = is_stamped
        self._env = dict(os.environ if env is None else env)
        self._is_once = is_once
        self._on_line = on_line
        self._on_end = on_end
        self._before_start = before_start
        self._final_status = final_status
        self._death_signal = death_signal
        self._cgroup = cgroup
        self.policy = policy or RestartPolicy()
        self._deaths: deque[float] = deque()
        self._transport: Any = None
        self._again: Any = None
        self._stopped: Deferred[None] | None = None
        self._last_work = 0.0
        self._last_unix_ts = 0.0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._transport.pid if self._transport is not None else None

    def mark_work(self) -> None:
        """Note that the child did what it is there for."""
        self._last_work = self._reactor.seconds()

    @property
    def idle_seconds(self) -> float:
        """How long ago it last did what it is there for."""
        return float(self._reactor.seconds()) - self._last_work

    def startService(self) -> None:
        """Start the child."""
        super().startService()
        self._start()

    def stopService(self) -> Deferred[None]:
        """End the child: SIGTERM, and SIGKILL when that does not help in 10 s."""
        super().stopService()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._transport is None:
            self._close_log()
            return succeed(None)
        if self._stopped is None:
            self._stopped = Deferred()
            self.signal(signal.SIGTERM)
            kill = self._reactor.callLater(10, self.signal, signal.SIGKILL)
            self._stopped.addCallback(lambda _: kill.cancel() if kill.active() else None)
        return self._stopped

    def signal(self, number: int) -> None:
        """Send a signal to the child, if it is still there."""
        if self._transport is not None:
            try:
                self._transport.signalProcess(number)
            except error.ProcessExitedAlready:
                return

    def check_work(self) -> None:
        """Kill the child when it has been idle for too long; to be called now and then."""
        limit = self.idle_limit_seconds
        if limit is None or self._transport is None:
            return
        idle = self.idle_seconds
        if idle > limit:
            self._report(
                f"{self.name} (pid {self.pid}) lives but has done no work for {idle:.0f} s: killed"
            )
            self.mark_work()
            self.signal(signal.SIGKILL)

    # ---- between the child and its protocol -------------------------------------------------

    def line_received(self, line: bytes) -> None:
        """Take one line of the child's output, without the newline."""
        self.last_lines.append(line)
        now = time.time()
        if self._is_stamped:
            # A library's warning between the log's lines has the time of the line before it.
            self._last_unix_ts = stamp_of(line) or self._last_unix_ts or now
            entry = line + b"\n"
        else:
            self._last_unix_ts = now
            entry = log_stamp(now).encode() + b" " + line + b"\n"
        if self.log is not None:
            self._write(entry)
        self._on_line(line)

    def _write(self, entry: bytes) -> None:
        assert self.log is not None  # noqa: S101 - for the type checker
        try:
            self.log.write(entry, self._last_unix_ts)
        except OSError as problem:
            if not self.lost_lines:
                self._report(
                    f"{self.log.path}: cannot be written ({problem.strerror}); lines of "
                    f"{self.name} are being lost. Free space on the disk"
                )
            self.lost_lines += 1
        else:
            if self.lost_lines:
                self._report(f"{self.log.path}: written again, {self.lost_lines} lines were lost")
                self.lost_lines = 0

    def process_ended(self, reason: Failure) -> None:
        """Take the child's end."""
        self._transport = None
        if not self.running:
            self._close_log()
            if self._stopped is not None:
                stopped, self._stopped = self._stopped, None
                stopped.callback(None)
            return
        if self._is_once and reason.check(error.ProcessDone):
            self._close_log()
            self._on_end(None)
            return
        problem = reason.value
        status = problem.exitCode if isinstance(problem, error.ProcessTerminated) else None
        if status is not None and status == self._final_status:
            self._close_log()
            self._on_end(f"{self.name} {_how(reason)}; it last said: {self._last_words()}")
            return
        self._died(_how(reason))

    def _died(self, how: str) -> None:
        now = self._reactor.seconds()
        self._deaths.append(now)
        while now - self._deaths[0] > self.policy.window_seconds:
            self._deaths.popleft()
        deaths = len(self._deaths)
        if deaths > self.policy.deaths_allowed:
            self._close_log()
            self._on_end(
                f"{self.name} {how} and was given up after {deaths} deaths in "
                f"{self.policy.window_seconds:.0f} s; it last said: {self._last_words()}"
            )
            return
        pause = min(
            self.policy.first_pause_seconds * 2 ** (deaths - 1),
            self.policy.longest_pause_seconds,
        )
        self._report(f"{self.name} {how}; starting it again in {pause:.0f} s")
        self._again = self._reactor.callLater(pause, self._restart)

    def _last_words(self) -> str:
        return b" / ".join(self.last_lines).decode(errors="replace")[-600:] or "nothing"

    def _restart(self) -> None:
        self._again = None
        self.restarts += 1
        try:
            self._start()
        except (OSError, PerfmeasureError) as problem:
            self._died(f"could not be started ({problem})")

    def _start(self) -> None:
        self._before_start()
        self.mark_work()
        self.started_unix_ts = time.time()
        argv = tethered(self.argv, self._death_signal, self._cgroup)
        self._transport = self._reactor.spawnProcess(
            _Lines(self),
            argv[0],
            argv,
            env=self._env,
            childFDs={0: "w", 1: "r", 2: "r"},
        )
        self._transport.closeStdin()

    def _close_log(self) -> None:
        if self.log is not None:
            self.log.close()


class _Lines(ProcessProtocol):
    """Cuts the child's output into lines; standard output and error each have their own rest."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child
        self._rest = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._rest[childFD] + data).split(b"\n")
        if len(rest) > _LONGEST_LINE_BYTES:
            lines.append(rest)
            rest = b""
        self._rest[childFD] = rest
        for line in lines:
            self._child.line_received(line)

    def processEnded(self, reason: Failure) -> None:
        for rest in self._rest.values():
            if rest:
                self._child.line_received(rest)
        self._child.process_ended(reason)


def _how(reason: Failure) -> str:
    """Say how a process ended."""
    problem = reason.value
    if isinstance(problem, error.ProcessTerminated) and problem.signal is not None:
        return f"was killed by {signal.Signals(problem.signal).name}"
    status = problem.exitCode if isinstance(problem, error.ProcessTerminated) else 0
    return f"ended with status {status}"
