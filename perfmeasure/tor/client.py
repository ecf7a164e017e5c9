"""What a measurement asks of its tors while they run, as coroutines under Twisted.

`TorController` connects again when tor was restarted, and hears of uploaded onion descriptors
from the first moment on. It does not read the stream of events that a measurement records: that
is the task of `perfmeasure.tor.monitor`, since stem's handler cannot keep up with it.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import stem
import stem.control
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from perfmeasure.errors import ControlError, MeasurementError
from perfmeasure.tor.conversation import ANSWER_LIMIT_SECONDS, open_port, socket_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PAIR = re.compile(r'([A-Z_]+)=("(?:[^"\\]|\\.)*"|\S*)')
_POLL_SECONDS = 0.1
_SETTLE_SECONDS = 5.0

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class BootstrapPhase:
    """How far tor is on its way into the network (control-spec, GETINFO status/bootstrap-phase).

    Args:
        percent: 0 to 100.
        tag: the phase's name for programs, such as ``loading_descriptors``.
        summary: the same for people.
        warning: what hinders tor, when it said so.
    """

    percent: int
    tag: str
    summary: str
    warning: str = ""

    @classmethod
    def parse(cls, text: str) -> BootstrapPhase:
        """Read tor's ``NOTICE BOOTSTRAP PROGRESS=… TAG=… SUMMARY="…"``.

        Raises:
            ControlError: there is no progress in it.
        """
        found = {name: value.strip('"') for name, value in _PAIR.findall(text)}
        try:
            percent = int(found["PROGRESS"])
        except (KeyError, ValueError) as error:
            raise ControlError(
                "GETINFO status/bootstrap-phase", f"tor answered {text[:200]!r}", "PROGRESS=NUMBER"
            ) from error
        return cls(
            percent, found.get("TAG", ""), found.get("SUMMARY", ""), found.get("WARNING", "")
        )

    def __str__(self) -> str:
        text = f"{self.percent} % ({self.tag}: {self.summary})"
        return f"{text}, warning: {self.warning}" if self.warning else text


@dataclass
class _Uploads:
    """Where one onion service's descriptors are on their way to, and where they have arrived."""

    pending: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    first_done: float = 0.0


class TorController:
    """Questions and commands for one tor of a measurement, which may be restarted meanwhile.

    Every coroutine connects first if need be. While connected it listens for HS_DESC events: tor
    opens its control port seconds before it can upload anything, and what it uploads it announces
    only once, so a listener that comes with the connection misses nothing. A restarted tor
    uploads again; what was heard of the old one is forgotten.

    Args:
        name: for messages, such as ``tor-client``.
        port: its control port on this machine.
        cookie_path: the file with the cookie.
        reactor: Twisted's reactor.
        last_words: returns what tor said last, for messages.
    """

    def __init__(
        self,
        name: str,
        port: int,
        cookie_path: Path,
        *,
        reactor: Any,
        last_words: Callable[[], str] = lambda: "",
    ) -> None:
        self.name = name
        self._port = port
        self._cookie_path = cookie_path
        self._reactor = reactor
        self._last_words = last_words
        self._controller: Any = None
        self._uploads: dict[str, _Uploads] = {}
        self._lock = threading.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._controller is not None and bool(self._controller.is_alive())

    async def connect(self, limit_seconds: float = 30.0) -> None:
        """Connect, waiting for a tor that is just being started.

        Raises:
            ControlError: not within the limit; the message says what was the obstacle.
        """
        deadline = self._reactor.seconds() + limit_seconds
        while not self.is_connected:
            await self.close()
            try:
                await self._in_thread(self._open)
            except ControlError as error:
                if self._reactor.seconds() >= deadline:
                    raise ControlError(
                        self.name,
                        f"its control port did not open in {limit_seconds:.0f} s: {error}"
                        f"{self._said()}",
                        "a tor that answers",
                        f"look at {self.name}'s tor log",
                    ) from error
                await self._sleep(_POLL_SECONDS)

    async def close(self) -> None:
        """End the connection, if there is one."""
        controller, self._controller = self._controller, None
        if controller is not None:
            await self._in_thread(controller.close)

    async def version(self) -> str:
        """Return tor's version, such as ``0.4.9.11``.

        Raises:
            ControlError: tor cannot be asked.
        """
        return (await self._getinfo("version")).split(" ", 1)[0]

    async def bootstrap_phase(self) -> BootstrapPhase:
        """Return how far tor is.

        Raises:
            ControlError: tor cannot be asked.
        """
        return BootstrapPhase.parse(await self._getinfo("status/bootstrap-phase"))

    async def drop_guards(self) -> None:
        """Have tor choose new guards and forget the circuit build times of the old ones.

        Raises:
            ControlError: tor cannot be asked, or refuses.
        """
        for command in ("DROPGUARDS", "DROPTIMEOUTS"):
            await self.command(command)

    async def command(self, text: str) -> None:
        """Send a command that tor answers with OK, such as ``SIGNAL NEWNYM``.

        Raises:
            ControlError: tor cannot be asked, or refuses.
        """
        reply = await self._ask(lambda controller: controller.msg(text))
        if not reply.is_ok():
            raise ControlError(self.name, f"refuses {text}: {str(reply)[:200]}")

    async def wait_bootstrapped(
        self,
        *,
        stall_seconds: float,
        on_progress: Callable[[BootstrapPhase], None] = lambda _phase: None,
    ) -> None:
        """Wait until tor can make circuits, for as long as it gets on.

        Args:
            stall_seconds: give up when the phase stays the same for so long.
            on_progress: is told of each new phase.

        Raises:
            MeasurementError: no progress; the message names the phase and tor's last words.
        """
        last: BootstrapPhase | None = None
        since = self._reactor.seconds()
        while True:
            problem = ""
            try:
                phase = await self.bootstrap_phase()
            except ControlError as error:  # tor may be on its way up again
                problem = f"; {error}"
            else:
                if last is None or phase.percent != last.percent or phase.tag != last.tag:
                    since = self._reactor.seconds()
                if phase != last:
                    on_progress(phase)
                last = phase
                if phase.percent == 100:
                    return
            if self._reactor.seconds() - since > stall_seconds:
                raise MeasurementError(
                    self.name,
                    f"stays at {last or 'its start'} for {stall_seconds:.0f} s{problem}"
                    f"{self._said()}",
                    "100 %",
                    "check that this machine reaches the network and that its clock is right",
                )
            await self._sleep(_POLL_SECONDS)

    async def wait_descriptor_uploaded(self, address: str, *, limit_seconds: float) -> int:
        """Wait until an onion service can be found, and return on how many directories.

        That is when all uploads under way have ended, one of them well, or 5 s after the first
        that did.

        Args:
            address: with or without ``.onion``.
            limit_seconds: how long to wait.

        Raises:
            MeasurementError: nothing was uploaded; the message says what became of the attempts.
        """
        key = address.removesuffix(".onion")
        deadline = self._reactor.seconds() + limit_seconds
        problem = ""
        while True:
            try:
                await self.connect(limit_seconds=1)
                problem = ""
            except ControlError as error:
                problem = f"; {error}"
            with self._lock:
                uploads = self._uploads.get(key, _Uploads())
                done, pending = len(uploads.done), len(uploads.pending)
                failed = dict(uploads.failed)
                has_settled = time.monotonic() - uploads.first_done > _SETTLE_SECONDS
            if done and (not pending or has_settled):
                return done
            if self._reactor.seconds() >= deadline:
                raise MeasurementError(
                    self.name,
                    f"no descriptor of {key[:16]}….onion uploaded in {limit_seconds:.0f} s "
                    f"({pending} under way, {len(failed)} failed"
                    f"{': ' + ', '.join(sorted(set(failed.values()))) if failed else ''})"
                    f"{problem}{self._said()}",
                    "an upload to one directory at least",
                    f"look at {self.name}'s tor log",
                )
            await self._sleep(_POLL_SECONDS)

    # ---- in threads -------------------------------------------------------------------------

    def _open(self) -> None:
        port = open_port(self._port, self._cookie_path, ANSWER_LIMIT_SECONDS)
        # Events come when they come: the reader must be able to wait for ever.
        socket_of(port).settimeout(None)
        # The port is authenticated, but stem must not know: it would make itself the owner of a
        # tor whose __OwningControllerProcess we are, and that tor would end with the connection.
        controller = stem.control.Controller(port)
        controller.set_caching(False)
        with self._lock:
            self._uploads = {}
        try:
            controller.add_event_listener(self._on_descriptor, stem.control.EventType.HS_DESC)
            reply = controller.msg("SETEVENTS HS_DESC")
        except stem.ControllerError as error:
            controller.close()
            raise ControlError(self.name, f"broke off ({error})") from error
        if not reply.is_ok():
            controller.close()
            raise ControlError(self.name, f"refuses HS_DESC events ({str(reply)[:200]})")
        self._controller = controller

    def _on_descriptor(self, event: Any) -> None:
        """Take a HS_DESC event, in stem's thread."""
        with self._lock:
            uploads = self._uploads.setdefault(event.address, _Uploads())
            directory = str(event.directory_fingerprint)
            if event.action == "UPLOAD":
                uploads.pending.add(directory)
            elif event.action == "UPLOADED":
                uploads.pending.discard(directory)
                uploads.first_done = uploads.first_done or time.monotonic()
                uploads.done.add(directory)
            elif event.action == "FAILED":
                uploads.pending.discard(directory)
                uploads.failed[directory] = str(event.reason)

    # ---- between coroutines and threads -----------------------------------------------------

    async def _getinfo(self, key: str) -> str:
        return str(await self._ask(lambda controller: controller.get_info(key)))

    async def _ask(self, question: Callable[[Any], Any]) -> Any:
        await self.connect()
        controller = self._controller

        def ask() -> Any:
            try:
                return question(controller)
            except stem.ControllerError as error:
                raise ControlError(self.name, f"does not answer ({error}){self._said()}") from error

        answer = self._in_thread(ask)
        try:
            return await answer
        except (DeferredTimeoutError, CancelledError) as error:
            # A tor that stands still would keep the thread for ever.
            _shut_down(controller)
            if isinstance(error, CancelledError):
                raise
            raise ControlError(
                self.name, f"did not answer in {ANSWER_LIMIT_SECONDS:.0f} s{self._said()}"
            ) from error

    def _in_thread(self, function: Callable[[], _Result]) -> Any:
        deferred = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)
        deferred.addTimeout(2 * ANSWER_LIMIT_SECONDS, self._reactor)
        return deferred

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds)

    def _said(self) -> str:
        words = self._last_words()
        return f"; tor last said: {words}" if words else ""


def _shut_down(controller: Any) -> None:
    try:
        socket_of(controller._socket).shutdown(socket.SHUT_RDWR)  # noqa: SLF001
    except (OSError, ControlError):
        return
