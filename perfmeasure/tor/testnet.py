"""A private Tor network on loopback, made from the stock tor: authorities and exits.

The way of a start::

    a good snapshot is restored, or a network is made anew and becomes the snapshot
      |-> the relays are launched, by whoever looks after processes
      |-> clients can start at once; client_lines go into the torrc of each

`Testnet.start` does all of it, once more with a new network should a restored one not come up.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from perfmeasure.errors import MeasurementError, MissingError
from perfmeasure.tor.founding import (
    authority_lines,
    consensus_unix_ts,
    due_unix_ts,
    forget_votes,
    found,
    too_slow,
    with_control_ports,
    write_torrcs,
)
from perfmeasure.tor.onion import make_private
from perfmeasure.tor.ports import is_free
from perfmeasure.tor.readiness import NetworkState, NetworkWatch
from perfmeasure.tor.relay import INTERVAL_SECONDS, NextVote, Relay
from perfmeasure.tor.snapshot import Slot, SnapshotError, cache_folders, take_slot

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_SECONDS = 0.1
_READY_LIMIT_SECONDS = 45.0
# From the start of the relays of a restored network to a vote, if it needs one.
_LEAD_SECONDS = 4.0
# A restored consensus is kept if the next vote is so far away.
_FRESH_SECONDS = 300.0
_PORTS_LIMIT_SECONDS = 3.0


@dataclass(frozen=True)
class Layout:
    """How many relays of each kind; authorities are relays without exit, too."""

    authorities: int = 3
    exits: int = 3

    def relays(self, base: Path) -> list[Relay]:
        """Return the relays, without keys and ports, authorities first."""
        kinds = (
            ("authority", self.authorities, True, False),
            ("exit", self.exits, False, True),
        )
        return [
            Relay(f"{kind}{number}", base / f"{kind}{number}", is_authority, is_exit)
            for kind, count, is_authority, is_exit in kinds
            for number in range(count)
        ]


class Launcher(Protocol):
    """Whoever runs the relays of a prepared network."""

    def launch(self, relay: Relay, argv: list[str]) -> None:
        """Start the relay, its output going to ``relay.log_path``, and keep it running."""

    async def stop_all(self) -> None:
        """End all relays that were launched and wait until they have ended."""


class Testnet:
    """A private network in the folder ``base``.

    Args:
        base: one folder for each relay is made in it; nobody else uses it at the same time.
        tor: the program.
        tor_gencert: the program that makes an authority's keys, part of tor's package.
        layout: which relays there are.
        cache: where snapshots are kept; by default the user's cache, or else in ``base``.
    """

    __test__ = False  # for pytest

    def __init__(
        self,
        base: Path,
        *,
        tor: str | Path = "tor",
        tor_gencert: str | Path = "tor-gencert",
        layout: Layout | None = None,
        cache: Path | None = None,
    ) -> None:
        self._base = base.absolute()
        self._tor = tor
        self._tor_gencert = tor_gencert
        self._layout = layout or Layout()
        self._folders = cache_folders(self._base) if cache is None else [cache]
        self._slot: Slot | None = None
        self._closing = threading.Event()
        self._made_unix_ts = 0.0
        self._kept_consensus_unix_ts = 0.0
        self._was_ready = False
        self.relays: list[Relay] = self._layout.relays(self._base)
        """The relays, complete once prepared; authorities first."""
        self.is_restored = False
        """Whether the network comes from a snapshot."""

    @property
    def client_lines(self) -> tuple[str, ...]:
        """What makes a tor a client or an onion host of this network (lines of a torrc)."""
        return (
            "TestingTorNetwork 1",
            *authority_lines(self.relays),
            "AddressDisableIPv6 1",
            "PathsNeededToBuildCircuits 0.67",
            # So few relays collide too often with second-layer guards; tor then gives up paths.
            "VanguardsLiteEnabled 0",
        )

    def argv(self, relay: Relay) -> list[str]:
        """Return the program that is this relay, with its arguments."""
        return relay.argv(self._tor)

    def prepare(self, say: Callable[[str], None], *, is_anew: bool = False) -> None:
        """Restore a snapshot or make the network anew; blocks for up to 3 minutes.

        Afterwards every folder, key and torrc is in place and nothing runs.

        Args:
            say: is told what is being done, one line each, in this thread.
            is_anew: make it anew even if there is a good snapshot.

        Raises:
            MissingError: tor or tor-gencert is not there.
            MeasurementError: no network could be made; the message says in which phase.
        """
        make_private(self._base)
        if self._slot is None:
            self._slot = take_slot(self._folders, self._key())
        if not is_anew and self._restore(say):
            return
        self.is_restored = False
        relays = self._layout.relays(self._base)
        self.relays = found(relays, self._tor, self._tor_gencert, say, self._pause)
        self._made_unix_ts = time.time()
        try:
            self._keep()
        except OSError as error:
            say(f"the private network is not kept for the next start ({error.strerror})")
        self._plan_next_vote()

    async def start(
        self,
        launcher: Launcher,
        reactor: Any,
        say: Callable[[str], None],
        *,
        is_alive: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        """Prepare, launch and wait until clients can start.

        A restored network that does not come up is made anew, once.

        Raises:
            MissingError: tor or tor-gencert is not there.
            MeasurementError: there is no usable network; all relays are stopped then.
        """
        for is_anew in (False, True):
            await self._prepare_in_thread(reactor, say, is_anew=is_anew)
            try:
                for relay in self.relays:
                    launcher.launch(relay, self.argv(relay))
                await self._wait_ready(reactor, say, is_alive)
                self._was_ready = True
            except MeasurementError as error:
                await launcher.stop_all()
                if not self.is_restored:
                    raise
                say(f"the kept private network does not come up ({error}); making a new one")
            else:
                return

    def close(self) -> None:
        """Let others use the snapshot; to be called when the relays have ended.

        Should they have voted meanwhile, their newer state is kept instead.
        """
        self._closing.set()
        if self._slot is None:
            return
        votes = {consensus_unix_ts(relay) for relay in self.relays}
        if self._was_ready and len(votes) == 1 and votes.pop() > self._kept_consensus_unix_ts:
            # Nobody is left to be told; what is kept stays as it was, then.
            with contextlib.suppress(OSError):
                self._keep()
        self._slot.release()
        self._slot = None

    def _keep(self) -> None:
        if self._slot is not None:
            self._slot.save(self.relays, self._made_unix_ts)
            self._kept_consensus_unix_ts = consensus_unix_ts(self.relays[0])

    # ---- restoring --------------------------------------------------------------------------

    def _restore(self, say: Callable[[str], None]) -> bool:
        if self._slot is None:
            say("making a private network (no place to keep one, or all kept ones are in use)")
            return False
        try:
            relays, self._made_unix_ts = self._slot.restore(self._base, time.time())
        except SnapshotError as error:
            say(f"making a private network ({error.got})")
            return False
        except OSError as error:
            raise MeasurementError(
                str(self._base), f"cannot be written ({error.strerror})", "a folder with space"
            ) from error
        taken = self._taken_ports(relays)
        if taken:
            say(f"making a private network (port {taken[0]} of the kept one is in use)")
            return False
        self.relays = with_control_ports(relays)
        self._kept_consensus_unix_ts = consensus_unix_ts(self.relays[0])
        self._plan_next_vote()
        self.is_restored = True
        say("restored a private network from its snapshot")
        return True

    def _plan_next_vote(self) -> None:
        """Write the torrcs so that the next vote is on time, or comes first.

        A client asks for a newer consensus once its own is no longer fresh. The answer that
        there is none makes it regard the relay that gave it as down, soon all of them. So
        without a fresh consensus the relays keep nothing but their keys.
        """
        made_unix_ts = consensus_unix_ts(self.relays[0])
        next_unix_ts = made_unix_ts + INTERVAL_SECONDS
        is_first = not made_unix_ts <= time.time() <= next_unix_ts - _FRESH_SECONDS
        if is_first:
            forget_votes(self.relays)
            next_unix_ts = due_unix_ts(_LEAD_SECONDS)
        write_torrcs(self.relays, NextVote(next_unix_ts, is_first=is_first))

    def _taken_ports(self, relays: list[Relay]) -> list[int]:
        """Return the ports that others use, after giving relays of a killed run time to end."""
        ports = [p for relay in relays for p in (relay.or_port, relay.dir_port) if p]
        deadline = time.monotonic() + _PORTS_LIMIT_SECONDS
        while True:
            taken = [port for port in ports if not is_free(port)]
            if not taken or time.monotonic() >= deadline:
                return taken
            self._pause(_POLL_SECONDS)

    def _key(self) -> str:
        """Return the name for networks that this tor makes of these torrcs."""
        try:
            said = subprocess.run([str(self._tor), "--version"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise MissingError(
                str(self._tor), f"cannot be run ({error})", "the program tor", "apt install tor"
            ) from error
        torrcs = [
            relay.torrc_text([], NextVote(0, is_first=False), owner_pid=0)
            for relay in self._layout.relays(Path())
        ]
        text = said.stdout + "".join(torrcs).encode()
        return hashlib.sha256(text).hexdigest()[:16]

    def _pause(self, seconds: float) -> None:
        """Sleep, unless the network is being closed."""
        if self._closing.wait(seconds):
            raise MeasurementError("private network", "interrupted while it was being made")

    async def _wait_ready(
        self, reactor: Any, say: Callable[[str], None], is_alive: Callable[[str], bool]
    ) -> None:
        deadline = reactor.seconds() + _READY_LIMIT_SECONDS
        last = ""
        with NetworkWatch(self.relays, is_alive=is_alive) as watch:
            while True:
                state: NetworkState = await deferToThreadPool(
                    reactor, reactor.getThreadPool(), watch.look
                )
                if str(state) != last:
                    last = str(state)
                    say(f"private network: {last}")
                if state.is_ready:
                    return
                if state.is_incomplete:
                    raise MeasurementError("private network", state.detail)
                if reactor.seconds() >= deadline:
                    raise too_slow(self.relays, state, _READY_LIMIT_SECONDS)
                await deferLater(reactor, _POLL_SECONDS)

    async def _prepare_in_thread(
        self, reactor: Any, say: Callable[[str], None], *, is_anew: bool
    ) -> None:
        def work() -> None:
            self.prepare(lambda line: reactor.callFromThread(say, line), is_anew=is_anew)

        try:
            await deferToThreadPool(reactor, reactor.getThreadPool(), work)
        except CancelledError:
            self._closing.set()  # the thread stops what it runs and ends
            raise
