"""Writes ``services/services.log``: who listens where, and who talks to whom.

One JSON object a line; ``docs/formats.md`` describes them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfmeasure.clock import read_pair
from perfmeasure.errors import MissingError
from perfmeasure.flows import existing
from perfmeasure.flows.connections import Record
from perfmeasure.logfile import LogFile
from perfmeasure.recordlog import BOOT_ID, Lines, RecordLog, now, start_line
from perfmeasure.topology import processes
from perfmeasure.topology.connections import ConnectionTable
from perfmeasure.topology.datagram_source import DatagramSource
from perfmeasure.topology.datagrams import DatagramTable, Owner
from perfmeasure.topology.listeners import Listener, ListenerTable, ephemeral_ports, is_service
from perfmeasure.topology.naming import Known
from perfmeasure.topology.netlink import addresses
from perfmeasure.topology.polling import ConnectionPoll
from perfmeasure.topology.sockdiag import (
    CONNECTED_UDP,
    LISTENING,
    UNCONNECTED,
    Socket,
    SocketLister,
)

PROGRAM = "perfmeasure-services"
LOG_NAME = "services.log"
_HOUSEKEEPING_SECONDS = 1.0


@dataclass(frozen=True)
class Scope:
    """What is told of, and what of it is looked at how often."""

    instance_id: str
    source: str
    """``ebpf`` or ``polling``."""
    scope: str
    """``host``, or ``measurement``: the sockets of one control group."""
    poll_seconds: float
    """How often the listeners are listed, and live connections told of."""
    began_unix_ts: float
    """When the kernel's records began: what was there before counts from then on."""
    netns: int = field(default_factory=processes.network_namespace)
    """The network namespace that is told of; sockets of others are not."""
    group: Path | None = None
    """The control group of a measurement."""


class ServiceRecorder:
    """Moves what is known of services and their connections into the log.

    Args:
        log: where it goes.
        scope: what is told of.
        known: what processes are called.
        report: takes one sentence for people.
        lost: tells what the kernel's records lost since the start, by kind; None where connections
            are polled.
        datagrams: what the kernel counts of UDP; None where it does not.
        pids: gives the processes that may be ours; all of the machine, if it is not given.

    Raises:
        MissingError: sockets cannot be listed here.
    """

    def __init__(
        self,
        log: LogFile,
        scope: Scope,
        known: Known,
        report: Callable[[str], None],
        *,
        lost: Callable[[], dict[str, int]] | None,
        datagrams: DatagramSource | None = None,
        pids: Callable[[], list[int]] = existing.pids_of_machine,
    ) -> None:
        self._scope = scope
        self._known = known
        self._pids = pids
        self._addresses = addresses()
        self._new: Lines = []
        self._unknown: set[int] = set()
        self._group_id = scope.group.stat().st_ino if scope.group else 0
        self._ephemeral = ephemeral_ports()
        self.listeners = ListenerTable(known, self._tell)
        boot_id = BOOT_ID.read_text(encoding="ascii").strip()
        self._connections = ConnectionTable(known, self.listeners, boot_id, scope.began_unix_ts)
        try:
            self._lister = SocketLister()
            self._poll = None
            if lost is None:
                is_ours_only = scope.scope == "measurement"
                self._poll = ConnectionPoll(
                    self._lister, known, self.listeners, boot_id, pids, is_ours_only=is_ours_only
                )
        except OSError as error:
            raise MissingError(
                "sock_diag",
                f"sockets cannot be listed ({error.strerror})",
                next_step="load the kernel's modules tcp_diag and udp_diag",
            ) from error
        self._losses = [lost or (self._poll.lost if self._poll else dict)]
        self._datagrams = None
        if datagrams is not None:
            self._losses.append(datagrams.lost)
            self._datagrams = DatagramTable(
                datagrams,
                known,
                self.listeners,
                boot_id=boot_id,
                netns=scope.netns,
                is_service=lambda port: port not in self._ephemeral,
            )
            self._adopt(datagrams)
        self._log = RecordLog(log, report, self._head)
        self._next_poll = 0.0
        self._next_housekeeping = 0.0

    def take(self, records: list[Record]) -> None:
        """Take records of the kernel, in their order."""
        ours = [record for record in records if record.netns == self._scope.netns]
        if ours:
            self._write("service_connection", self._connections.take(ours, read_pair()))

    @property
    def is_due(self) -> bool:
        """Whether `look` will tell of live connections: what they are now should be taken first."""
        return time.monotonic() >= self._next_poll

    def look(self) -> None:
        """Write what has come and what is due; to be called some times a second."""
        moment = time.monotonic()
        if self._datagrams is not None:
            self._datagrams.take_events(read_pair())
        if self._poll is not None:
            if self._poll.read():
                self._list_listeners(now())
            self._write("service_connection", self._poll.ended(now()))
        if moment >= self._next_poll:
            self.poll()
            self._next_poll = max(self._next_poll + self._scope.poll_seconds, moment)
        if moment >= self._next_housekeeping:
            self._log.keep_house(self._lost())
            self._next_housekeeping = moment + _HOUSEKEEPING_SECONDS

    def poll(self) -> None:
        """List addresses and listeners, and tell of live connections."""
        found = addresses()
        if found != self._addresses:
            self._addresses = found
            self._log.write([self._instance()])
        listed_at = now() if self._next_poll else self._scope.began_unix_ts
        self._list_listeners(listed_at)
        if self._poll is not None:
            self._write("service_connection", self._poll.poll(listed_at))
        else:
            self._write("service_connection", self._connections.flush(read_pair()))
        if self._datagrams is not None:
            self._datagrams.take_events(read_pair())
            self._write("service_connection", self._datagrams.flush(read_pair()))

    def stop(self, reason: str) -> None:
        """Write the last state of everything, and an orderly end."""
        self.poll()
        self._log.keep_house(self._lost())
        self._log.stop(reason)
        self._lister.close()
        if self._poll is not None:
            self._poll.close()

    def _list_listeners(self, unix_ts: float) -> None:
        sockets = self._listed()
        self.listeners.reconcile(self._scope.netns, sockets, self._holders(sockets), unix_ts)

    def _adopt(self, datagrams: DatagramSource) -> None:
        """Tell the kernel's program whose the UDP sockets are that were there before it."""
        holders = processes.holders(self._pids())
        for one in self._lister.list(socket.IPPROTO_UDP, UNCONNECTED | CONNECTED_UDP):
            if pids := holders.get(one.inode):
                process = self._known.process(processes.owner(pids))
                command = process.command.encode()[:15]
                owner = Owner(one.cgroup_id, process.pid, self._scope.netns, 1, command)
                datagrams.adopt(one.cookie, owner)

    def _lost(self) -> dict[str, int]:
        return {what: count for lost in self._losses for what, count in lost().items()}

    def _listed(self) -> list[Socket]:
        """Return the listeners there are; in a measurement those of its control group."""
        found = self._lister.list(socket.IPPROTO_TCP, LISTENING)
        for one in self._lister.list(socket.IPPROTO_UDP, UNCONNECTED):
            if one.cookie in self.listeners or is_service(one, self._ephemeral):
                found.append(one)
        if self._scope.group is None:
            return found
        return [one for one in found if one.cgroup_id == self._group_id]

    def _holders(self, sockets: Iterable[Socket]) -> dict[int, list[int]]:
        """Return who holds the sockets, if there are some of which that is not known yet."""
        strangers = {
            one.cookie for one in sockets if one.inode and one.cookie not in self.listeners
        }
        if strangers <= self._unknown:
            return {}
        self._unknown = strangers  # those that even now are nobody's are not looked for again
        return processes.holders(self._pids())

    def _tell(self, listener: Listener) -> None:
        self._write("service", [listener.line(self._scope.instance_id, self._addresses)])

    def _write(self, record: str, lines: Lines) -> None:
        if not lines:
            return
        head = {"record": record, "unix_ts": now(), "instance_id": self._scope.instance_id}
        self._log.write([head | line for line in lines])

    def _instance(self) -> dict[str, Any]:
        scope = self._scope
        return {
            "record": "instance",
            "unix_ts": now(),
            "instance_id": scope.instance_id,
            "host": socket.gethostname(),
            "addresses": [{"netns": scope.netns, "ips": self._addresses}],
        }

    def _head(self) -> Lines:
        """Return what every file begins with, so that it stands alone."""
        scope = self._scope
        start = start_line(
            PROGRAM,
            instance_id=scope.instance_id,
            source=scope.source,
            scope=scope.scope,
            poll_seconds=scope.poll_seconds,
        )
        services = [
            {"record": "service", "unix_ts": now()} | one.line(scope.instance_id, self._addresses)
            for one in self.listeners.live
        ]
        return [start, self._instance(), *services]
