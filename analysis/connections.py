"""Puts the facts of one machine's logs together: the connections that the kernel saw.

`connectionscan` finds the facts in each log by itself; here they are taken in the order of time.
Snapshots and close of one connection become one object, by the boot of the machine, the network
namespace and the kernel's cookie, since cookies begin again after a reboot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmeasure.analysis import scan
from perfmeasure.analysis.clocksteps import ClockPair, ClockSteps
from perfmeasure.analysis.connectionscan import (
    CollectorAbsent,
    CollectorLost,
    CollectorStarted,
    ConnectionSeen,
)
from perfmeasure.analysis.kernel import BootClocks, Collector, Ends, KernelConnection, KernelLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfmeasure.analysis.scan import FactsOf
    from perfmeasure.analysis.source import Fact, Input


class ConnectionAssembly:
    """Takes the facts of one machine in the order of time; `finish` returns what they mean."""

    def __init__(self) -> None:
        self._log = KernelLog()
        self._collector: Collector | None = None
        self._clocks = BootClocks()
        self._steps = ClockSteps()
        self._known: dict[tuple[str, int, int], KernelConnection] = {}

    def take(self, facts: Iterable[Fact], withdraw: Callable[[int, str], None]) -> None:
        """Take the next facts; ``withdraw`` takes back a line of theirs, and why."""
        for line, ts, fact in facts:
            if isinstance(fact, CollectorAbsent):
                if fact.reason not in self._log.absent:
                    self._log.absent.append(fact.reason)
                continue
            collector = self._run(ts, fact)
            if isinstance(fact, ConnectionSeen):
                if reason := self._connection(collector, ts, fact):
                    withdraw(line, reason)
            elif isinstance(fact, ClockPair):
                self._steps.take(fact)
                self._clocks.add(collector.boot_id, fact)
            elif isinstance(fact, CollectorLost):
                lost = collector.lost
                lost[fact.what] = lost.get(fact.what, 0) + fact.lost_count

    def finish(self) -> KernelLog:
        """Return what the facts say; the times of connections are known only now."""
        self._log.clock_steps = self._steps.found
        for connection in self._log.connections:
            connection.settle_times(self._clocks)
        return self._log

    def _run(self, ts: float, fact: object) -> Collector:
        """Return the collector that wrote this."""
        started = fact if isinstance(fact, CollectorStarted) else None
        if started or self._collector is None:
            self._collector = Collector(started, ts, ts)
            self._log.collectors.append(self._collector)
        self._collector.end = ts
        return self._collector

    def _connection(self, collector: Collector, ts: float, seen: ConnectionSeen) -> str:
        """Take a record about a connection; return why it cannot be used, if so."""
        ends = Ends(seen.local_ip, seen.local_port, seen.remote_ip, seen.remote_port)
        key = (collector.boot_id, seen.netns, seen.cookie)
        known = self._known.get(key)
        if known is None or _connects_again(known, seen):
            known = self._known[key] = KernelConnection(
                collector, seen.cookie, seen.netns, ends, seen.family, seen.side, ts, ts
            )
            self._log.connections.append(known)
        elif known.end:
            return "a connection after its end"
        elif known.ends != ends:
            return "a connection whose ends are not those it had"
        known.take(ts, seen)
        return ""


def _connects_again(known: KernelConnection, seen: ConnectionSeen) -> bool:
    """Whether the socket of a connection, which keeps its cookie, has begun another."""
    connect_ns = seen.stamps.get("connect")
    return known.began_ns is not None and connect_ns is not None and connect_ns > known.began_ns


def read_logs(logs: Iterable[Input], facts_of: FactsOf = scan.facts) -> KernelLog:
    """Read the logs of one machine, given in the order of time.

    Raises:
        InputError: a file cannot be read any more.
    """
    assembly = ConnectionAssembly()
    for log in logs:
        for facts in facts_of(log, is_whole=False):
            assembly.take(facts, log.counts.withdraw)
    return assembly.finish()
