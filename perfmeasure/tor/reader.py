"""Follows the events of one control port, through every restart of its tor.

It never gives up: when tor goes away it marks the gap in the log, waits, and goes on with the next
tor on the same port. The log's lines that are ours: ``Starting torctl program …`` and ``NOTICE
BOOTSTRAP …`` after each connection, ``[WARNING] event X …`` for an event that tor refuses,
``[GAP] …`` when the connection was lost and when it is back, ``[CLOCK] …`` (see
`perfmeasure.clock`), and ``[RELAY] …`` (see `perfmeasure.tor.relays`).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from perfmeasure.clock import ClockWatch, read_pair
from perfmeasure.errors import ControlError, UsageError
from perfmeasure.logfile import DAY_SECONDS
from perfmeasure.tor.control import ControlAddress, ControlConnection
from perfmeasure.tor.eventlog import BATCH_SECONDS, EventLog
from perfmeasure.tor.relays import Relays

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfmeasure.tor.control import Arrival

DEFAULT_EVENTS = (
    "CIRC", "CIRC_MINOR", "STREAM", "BW", "BUILDTIMEOUT_SET", "GUARD", "HS_DESC", "ORCONN",
    "STATUS_CLIENT", "STATUS_GENERAL", "CONF_CHANGED", "NETWORK_LIVENESS", "SIGNAL",
    "NOTICE", "WARN", "ERR",
)  # fmt: skip
"""What the analysis uses. CIRC_BW is not in it: tor >= 0.4.8 sends one for each cell."""

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_TICK_SECONDS = 1.0
_DRAIN_SECONDS = 1.0
_LATE_SECONDS = 1.0


@dataclass(frozen=True)
class MonitorConfig:
    """What to read and where to write it.

    ``log`` None is standard output. ``nickname`` is the host's name in the log's first line.
    ``is_waiting``: keep trying when nothing answers at first, instead of failing.
    """

    address: ControlAddress
    log: Path | None = None
    events: tuple[str, ...] = DEFAULT_EVENTS
    cookie: Path | None = None
    password: str | None = field(default=None, repr=False)
    archive: Path | None = None
    rotate_every_seconds: int = DAY_SECONDS
    nickname: str = field(default_factory=lambda: socket.gethostname().split(".")[0])
    is_waiting: bool = False


class Stop:
    """A request to stop that also ends a wait: once set, ``fd`` is readable and stays so."""

    def __init__(self) -> None:
        self.is_set = False
        self.fd, self.writable_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def set(self) -> None:
        """Ask to stop."""
        self.is_set = True
        with contextlib.suppress(BlockingIOError):
            os.write(self.writable_fd, b"!")

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.fd)
        os.close(self.writable_fd)


class Reader:
    """Follows one control port until it is told to stop.

    Args:
        config: what to read.
        log: where to write.
        report: takes one sentence for people.
        stop: tells when to stop.
    """

    def __init__(
        self, config: MonitorConfig, log: EventLog, report: Callable[[str], None], stop: Stop
    ) -> None:
        self._config = config
        self._log = log
        self._report = report
        self._stop = stop
        self._watch = ClockWatch()
        self._relays = Relays(log.note)
        self._next_tick = 0.0
        self._lost_at: float | None = None
        """Monotonic time at which the connection was lost, during a gap."""

    def run(self) -> None:
        """Read until told to stop, then write what has come by then.

        Raises:
            ControlError: the first connection failed, and ``is_waiting`` was not set.
            UsageError: tor knows none of the events.
        """
        pause = _FIRST_PAUSE_SECONDS
        last_problem = ""
        is_failure_final = not self._config.is_waiting
        while not self._stop.is_set:
            started = time.monotonic()
            try:
                with self._connect() as connection:
                    is_failure_final = False
                    last_problem = ""
                    self._follow(connection)
            except ControlError as error:
                if self._stop.is_set:
                    break
                if is_failure_final:
                    raise
                if str(error) != last_problem:
                    last_problem = str(error)
                    self._report(f"{last_problem} (trying again, for ever)")
                if time.monotonic() - started > _LONGEST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                self._wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _connect(self) -> ControlConnection:
        connection = ControlConnection.connect(
            self._config.address, on_events=self._take, interrupt_fd=self._stop.fd
        )
        try:
            connection.authenticate(self._config.cookie, self._config.password)
        except BaseException:
            connection.close()
            raise
        return connection

    def _follow(self, connection: ControlConnection) -> None:
        """Read from one connection until told to stop.

        Raises:
            ControlError: the connection was lost; the log says so already.
            UsageError: see `run`.
        """
        log = self._log
        try:
            self._begin(connection)
            while not self._stop.is_set:
                # Reading goes before writing: what came thick is written in one go.
                wait = BATCH_SECONDS if log.has_pending else self._next_tick - time.monotonic()
                arrival = connection.receive(max(wait, 0))
                if arrival is None:
                    log.flush()
                else:
                    self._take(arrival)
                if (now := time.monotonic()) >= self._next_tick:
                    self._tick(now)
                    self._relays.ask(connection)
            self._drain(connection)
        except ControlError as error:
            self._lost_at = time.monotonic()
            unfinished = connection.unfinished_bytes
            rest = f"; {unfinished} bytes of an unfinished message dropped" if unfinished else ""
            log.note(f"[GAP] control connection lost: {error.got}{rest}")
            raise

    def _take(self, arrival: Arrival) -> None:
        self._log.add(arrival)
        self._relays.see(arrival.messages)

    def _begin(self, connection: ControlConnection) -> None:
        """Write what belongs before the events of a connection, and subscribe."""
        info = connection.get_info("version", "status/version/current", "status/bootstrap-phase")
        if self._lost_at is not None:
            away = time.monotonic() - self._lost_at
            self._lost_at = None
            self._log.note(f"[GAP] control connection back after {away:.6f} seconds")
            self._report(f"{self._config.address}: connected again after {away:.3f} s")
        self._log.note(
            f"Starting torctl program on host {self._config.nickname} using Tor version "
            f"{info.get('version', 'unknown').split(' ')[0]} "
            f"status={info.get('status/version/current', 'unknown')}"
        )
        if "status/bootstrap-phase" in info:
            self._log.note(info["status/bootstrap-phase"])
        self._tick(time.monotonic())
        self._subscribe(connection)
        self._relays.begin(connection)

    def _subscribe(self, connection: ControlConnection) -> None:
        """Ask for one event more at a time: tor refuses a whole list for one unknown name."""
        accepted: list[str] = []
        for name in self._config.events:
            if connection.command(f"SETEVENTS {' '.join([*accepted, name])}").status == 250:
                accepted.append(name)
            else:
                self._log.note(
                    f"[WARNING] event {name} is recognized by perfmeasure but not by tor"
                )
        if not accepted:
            raise UsageError(
                "--events",
                f"tor at {self._config.address} knows none of {', '.join(self._config.events)}",
                "at least one that it knows",
                "see https://spec.torproject.org/control-spec",
            )

    def _drain(self, connection: ControlConnection) -> None:
        """Take what has reached the socket, and the rest of a message that is under way."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < deadline:
            arrival = connection.receive(0)
            if arrival is not None:
                self._log.add(arrival)
            elif connection.unfinished_bytes:
                time.sleep(BATCH_SECONDS)
            else:
                break
        self._log.flush()

    def _tick(self, now: float) -> None:
        """Do what is due about once a second, also when tor is silent or gone."""
        self._next_tick = now + _TICK_SECONDS
        pair = read_pair()
        if reason := self._watch.due(pair):
            self._log.note(f"[CLOCK] {pair.fields(reason)}", pair.utc_ns)
        self._log.idle(pair.utc_ns / 1e9 - _LATE_SECONDS)

    def _wait(self, seconds: float) -> None:
        """Sleep, but not past a stop; during a gap the clock and the rotation go on."""
        poll = select.poll()
        poll.register(self._stop.fd, select.POLLIN)
        poll.poll(seconds * 1000)
        if self._lost_at is not None and (now := time.monotonic()) >= self._next_tick:
            self._tick(now)
