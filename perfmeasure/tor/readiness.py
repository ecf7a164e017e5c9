"""Whether a private network can be used yet, by what its relays say of themselves.

A client that starts too early loses far more time than it gains: having fetched a consensus
without relays it does not ask again for most of a minute, and a directory cache that does not yet
have the descriptors answers 404, after which a client waits 10 s. So the network is ready when
each relay's consensus lists all relays with an exit among them, each has every microdescriptor,
and each says that it has enough to make circuits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from perfmeasure.errors import ControlError, MeasurementError
from perfmeasure.tor.conversation import ControlClient, ControlRefusedError
from perfmeasure.tor.relay import log_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perfmeasure.tor.relay import Relay

_LISTED = re.compile(r"^r ", re.MULTILINE)
_EXIT = re.compile(r"^s (?:.* )?Exit(?: |$)", re.MULTILINE)
_MICRODESCRIPTOR = re.compile(r"^onion-key", re.MULTILINE)
_ANSWER_LIMIT_SECONDS = 10.0


@dataclass(frozen=True)
class NetworkState:
    """What one look at the relays showed.

    Args:
        phase: ``starting``, ``voting``, ``incomplete``, ``spreading`` or ``ready``.
        detail: what is still wanted, for people.
    """

    phase: str
    detail: str

    @property
    def is_ready(self) -> bool:
        """Whether clients can start."""
        return self.phase == "ready"

    @property
    def is_incomplete(self) -> bool:
        """Whether there is a consensus in which relays are missing, until the next vote."""
        return self.phase == "incomplete"

    def __str__(self) -> str:
        return f"{self.phase}: {self.detail}"


class NetworkWatch:
    """Looks at relays, blocking for moments; keeps one control connection to each.

    Args:
        relays: an authority first.
        is_owner: each tor is to end when this watch does.
        is_alive: tells whether the process of the relay of that name lives.
    """

    def __init__(
        self,
        relays: Sequence[Relay],
        *,
        is_owner: bool = False,
        is_alive: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        self._relays = relays
        self._is_owner = is_owner
        self._is_alive = is_alive
        self._clients: dict[str, ControlClient] = {}
        self._ready: set[str] = set()
        self._log_start = {
            relay.name: relay.log_path.stat().st_size if relay.log_path.exists() else 0
            for relay in relays
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def look(self) -> NetworkState:
        """Ask the relays once.

        Raises:
            MeasurementError: a relay has ended; the message has its last words.
        """
        try:
            waiting = [relay.name for relay in self._relays if not self._connect(relay)]
            if waiting:
                return NetworkState("starting", f"no answer yet from {', '.join(waiting)}")
            return self._ask()
        except ControlError:  # restarted under our eyes; the next look finds out
            self._drop_all()
            return NetworkState("starting", "a relay broke off")

    def close(self) -> None:
        """Close the connections."""
        self._drop_all()

    def _ask(self) -> NetworkState:
        first = self._clients[self._relays[0].name]
        consensus = first.getinfo("ns/all")
        listed, wanted = len(_LISTED.findall(consensus)), len(self._relays)
        if not _has_consensus(first):
            return NetworkState("voting", "no consensus yet")
        if listed < wanted or not _EXIT.search(consensus):
            detail = f"the consensus lists {listed} of {wanted} relays, or no exit"
            return NetworkState("incomplete", detail)
        for relay in self._relays:
            if relay.name not in self._ready and self._has_all(relay):
                self._ready.add(relay.name)
        lacking = [relay.name for relay in self._relays if relay.name not in self._ready]
        if lacking:
            return NetworkState("spreading", f"descriptors for {', '.join(lacking)}")
        return NetworkState("ready", f"{wanted} relays")

    def _has_all(self, relay: Relay) -> bool:
        client = self._clients[relay.name]
        return (
            client.getinfo("status/enough-dir-info") == "1"
            and len(_LISTED.findall(client.getinfo("ns/all"))) == len(self._relays)
            and len(_MICRODESCRIPTOR.findall(client.getinfo("md/all"))) >= len(self._relays)
        )

    def _connect(self, relay: Relay) -> bool:
        errors = [
            line
            for line in log_lines(relay.log_path, self._log_start[relay.name])
            if "[err]" in line
        ]
        if errors or not self._is_alive(relay.name):
            words = relay.last_words(since_byte=self._log_start[relay.name])
            raise MeasurementError(
                f"testnet relay {relay.name}",
                f"ended; it last said: {words}",
                "a relay that runs",
                f"look at {relay.log_path}",
            )
        if relay.name in self._clients:
            return True
        try:
            client = ControlClient(relay.control_port, relay.cookie_path, _ANSWER_LIMIT_SECONDS)
        except ControlError:
            return False
        self._clients[relay.name] = client
        if self._is_owner:
            client.take_ownership()
        return True

    def _drop_all(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._ready.clear()


def _has_consensus(client: ControlClient) -> bool:
    try:
        return client.getinfo("consensus/valid-after") != ""
    except ControlRefusedError:
        return False
