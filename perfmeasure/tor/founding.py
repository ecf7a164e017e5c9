"""How a private network comes to be: keys, ports, and the vote that all relays must be in.

The first vote decides. A relay that has not yet told the authorities of itself is not in their
consensus and would have to wait half an hour for the next, so such a network is begun again, with
the same keys and more time before the vote.
"""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from perfmeasure.errors import MeasurementError
from perfmeasure.tor.onion import make_private
from perfmeasure.tor.ports import free_ports
from perfmeasure.tor.processes import Processes
from perfmeasure.tor.readiness import NetworkState, NetworkWatch
from perfmeasure.tor.relay import DELAY_SECONDS, NextVote, Relay, utc_unix_ts
from perfmeasure.tor.snapshot import kept_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_POLL_SECONDS = 0.1
# From the start of the relays to the first vote, attempt by attempt.
_LEADS_SECONDS = (4.0, 8.0, 16.0)
_ATTEMPT_LIMIT_SECONDS = 40.0


def found(
    relays: Sequence[Relay],
    tor: str | Path,
    tor_gencert: str | Path,
    say: Callable[[str], None],
    pause: Callable[[float], None],
) -> list[Relay]:
    """Make a network: afterwards its relays' folders hold keys, a consensus, all descriptors.

    The relays run for that time only.

    Args:
        relays: authorities first, without keys and ports; what is in their folders goes.
        tor: the program.
        tor_gencert: the program that makes authorities' keys.
        say: is told what is being done, one line each.
        pause: sleeps for so many seconds, and raises MeasurementError when all is to end.

    Returns:
        The relays with keys and ports.

    Raises:
        MissingError: tor or tor-gencert is not there.
        MeasurementError: it did not work; the message says in which phase.
    """
    say("private network: making keys")
    for relay in relays:
        shutil.rmtree(relay.data, ignore_errors=True)
        make_private(relay.folder)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        relays = list(pool.map(lambda relay: relay.with_keys(tor, tor_gencert), relays))
    problem: MeasurementError | None = None
    for lead_seconds in _LEADS_SECONDS:
        pause(0)
        relays = _with_new_ports(relays)
        try:
            _vote(relays, tor, lead_seconds, say, pause)
        except MeasurementError as error:
            problem = error
            say(f"private network: trying again, since {error}")
        else:
            return relays
    raise MeasurementError(
        "private network",
        f"none came about in {len(_LEADS_SECONDS)} attempts; the last: {problem}",
        "a consensus that lists all relays",
        f"the machine may be too busy; the relays' logs are in {relays[0].folder.parent}",
    )


def _vote(
    relays: Sequence[Relay],
    tor: str | Path,
    lead_seconds: float,
    say: Callable[[str], None],
    pause: Callable[[float], None],
) -> None:
    """Run the relays until each of them has the first consensus and all descriptors."""
    forget_votes(relays)
    write_torrcs(relays, NextVote(due_unix_ts(lead_seconds), is_first=True))
    last = ""
    limit_seconds = lead_seconds + _ATTEMPT_LIMIT_SECONDS
    deadline = time.monotonic() + limit_seconds
    processes = Processes()

    def is_alive(name: str) -> bool:
        return processes.status(name) is None

    # Closed after the relays have ended: a tor whose owner goes ends by itself, too.
    with NetworkWatch(relays, is_owner=True, is_alive=is_alive) as watch, processes:
        for relay in relays:
            processes.start(relay.name, relay.argv(tor), relay.log_path)
        while True:
            state = watch.look()
            if str(state) != last:
                last = str(state)
                say(f"private network: {last}")
            if state.is_ready:
                return
            if state.is_incomplete:
                raise MeasurementError("the first vote", state.detail)
            if time.monotonic() >= deadline:
                raise too_slow(relays, state, limit_seconds)
            pause(_POLL_SECONDS)


def forget_votes(relays: Sequence[Relay]) -> None:
    """Leave relays, which must not be running, without any trace of a vote, but with their keys.

    Authorities forget descriptors, too: they would not take one that differs only in its time
    from one that they have, and without a consensus they do not vote for the latter.
    """
    for relay in relays:
        kept = {
            name
            for name in kept_files(relay.data)
            if name.startswith("keys/") or not (relay.is_authority or "consensus" in name)
        }
        for path in [path for path in relay.data.rglob("*") if not path.is_dir()]:
            if path.relative_to(relay.data).as_posix() not in kept:
                path.unlink()


def _with_new_ports(relays: Sequence[Relay]) -> list[Relay]:
    ports = iter(free_ports(3 * len(relays)))
    return [
        replace(
            relay,
            or_port=next(ports),
            dir_port=next(ports) if relay.is_authority else 0,
            control_port=next(ports),
        )
        for relay in relays
    ]


def with_control_ports(relays: Sequence[Relay]) -> list[Relay]:
    """Return the relays with other control ports, which no descriptor names."""
    ports = free_ports(len(relays))
    return [replace(relay, control_port=port) for relay, port in zip(relays, ports, strict=True)]


def write_torrcs(relays: Sequence[Relay], next_vote: NextVote) -> None:
    """Write the torrc of each relay, to be owned by this process."""
    lines = authority_lines(relays)
    for relay in relays:
        relay.torrc_path.write_text(relay.torrc_text(lines, next_vote, os.getpid()), "utf-8")


def authority_lines(relays: Sequence[Relay]) -> list[str]:
    """Return the DirAuthority lines that each tor of the network needs."""
    return [relay.authority_line() for relay in relays if relay.is_authority]


def due_unix_ts(lead_seconds: float) -> float:
    """Return when a first consensus is there, if the vote starts in ``lead_seconds``."""
    return time.time() + lead_seconds + 2 * DELAY_SECONDS


def consensus_unix_ts(relay: Relay) -> float:
    """Return from when on the consensus in a relay's folder is valid; 0 without one."""
    try:
        text = (relay.data / "cached-microdesc-consensus").read_text("utf-8", errors="replace")
        return utc_unix_ts(text.split("\nvalid-after ", 1)[1].split("\n", 1)[0])
    except (OSError, IndexError, ValueError):
        return 0.0


def too_slow(
    relays: Sequence[Relay], state: NetworkState, limit_seconds: float
) -> MeasurementError:
    """Return the error for a network that is not ready in time."""
    return MeasurementError(
        "private network",
        f"not ready after {limit_seconds:.0f} s ({state}); "
        f"{relays[0].name} last said: {relays[0].last_words()}",
        "all relays in the consensus, with all descriptors",
        f"look at the relays' logs in {relays[0].folder.parent}",
    )
