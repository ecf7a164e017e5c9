"""A child that records beside a measurement, and without which there can be a measurement.

It says ``READY`` when it has begun. One that ends before that is not started again: what it said
last is what the machine lacks. One that dies later is, and given up when it dies too often.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from perfmeasure.errors import MissingError
from perfmeasure.process import ChildProcess, RestartPolicy
from perfmeasure.supervisor import Supervisor
from perfmeasure.tether import READY

_READY_LIMIT_SECONDS = 60.0
_LATER_DEATHS_ALLOWED = 5


class ReadyChild:
    """One such child.

    Args:
        name: what people call it.
        argv: the program and its arguments. It keeps its own records, and ends in order at SIGTERM.
        supervisor: keeps it running.
        report: takes one sentence for people: each line that the child says once it has begun, but
            READY and what ``take`` has taken, and how it died.
        on_give_up: told why it was given up after it had begun.
        take: sees these lines first, and returns whether a line is its own.
        final_status: see `ChildProcess`.
        idle_limit_seconds: how long it may go without a line that ``take`` takes.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        supervisor: Supervisor,
        *,
        report: Callable[[str], None],
        on_give_up: Callable[[str], None],
        take: Callable[[bytes], bool] = lambda _line: False,
        final_status: int | None = None,
        idle_limit_seconds: float | None = None,
    ) -> None:
        self._name = name
        self._supervisor = supervisor
        self._report = report
        self._on_give_up = on_give_up
        self._take = take
        self._ready: Deferred[None] = Deferred()
        self._child = ChildProcess(
            name,
            argv,
            reactor=supervisor.reactor,
            report=report,
            on_line=self._line,
            on_end=self._given_up,
            final_status=final_status,
            # SIGKILL could cut a line that is just being written.
            death_signal=signal.SIGTERM,
            idle_limit_seconds=idle_limit_seconds,
            policy=RestartPolicy(deaths_allowed=0),
        )

    async def start(self) -> None:
        """Start it, and wait until it has begun.

        Raises:
            MissingError: it cannot; with its own words.
        """
        late = self._supervisor.reactor.callLater(_READY_LIMIT_SECONDS, self._too_late)
        self._supervisor.keep(self._child)
        try:
            await self._ready
        except MissingError:
            await self._supervisor.stop(self._child)
            raise
        finally:
            if late.active():
                late.cancel()

    def _line(self, line: bytes) -> None:
        if self._ready.called:
            if self._take(line):
                self._child.mark_work()
            elif line != READY.encode():  # which it says after each restart
                self._report(line.decode(errors="replace"))
        elif line == READY.encode():
            self._child.policy = RestartPolicy(deaths_allowed=_LATER_DEATHS_ALLOWED)
            self._ready.callback(None)

    def _given_up(self, why: str | None) -> None:
        if self._ready.called:
            self._on_give_up(why or "")
        else:
            said = b" ".join(self._child.last_lines).decode(errors="replace")
            self._ready.errback(_as_missing(self._name, said or why or ""))

    def _too_late(self) -> None:
        said = f"{self._name}: not ready in {_READY_LIMIT_SECONDS:.0f} s"
        self._child.last_lines.append(said.encode())
        self._child.signal(signal.SIGKILL)


def _as_missing(name: str, said: str) -> MissingError:
    """Return the child's own error, which it printed as one line."""
    where, separator, got = said.removeprefix("perfmeasure: ").partition(": ")
    return MissingError(where, got) if separator else MissingError(name, where)
