"""Keeps the children of a measurement: order of start, a watch over all, orderly stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.task import LoopingCall

from perfmeasure.process import ChildProcess

_WATCH_SECONDS = 1.0
_HELD_UP_SECONDS = 10.0
_LATE_LINES_SECONDS = 3.0
"""How long after the end of a period a line that was stamped in it may still be on its way."""


class Supervisor(MultiService):
    """The children in the order in which they were started; they stop in the reverse order.

    Args:
        reactor: Twisted's reactor.
        report: takes one sentence for people when a log cannot be rotated.
    """

    def __init__(self, reactor: Any, report: Callable[[str], None]) -> None:
        super().__init__()
        self._report = report
        self._said = ""
        self.reactor = reactor
        self._last_look: float | None = None
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor

    @property
    def children(self) -> list[ChildProcess]:
        """Every child, in order of start."""
        return [child for child in self.services if isinstance(child, ChildProcess)]

    def startService(self) -> None:
        """Start to watch."""
        super().startService()
        self._watch.start(_WATCH_SECONDS, now=False)

    def keep(self, child: ChildProcess) -> ChildProcess:
        """Start a child and keep it running."""
        child.setServiceParent(self)
        return child

    async def stop(self, child: ChildProcess) -> None:
        """End one child and wait until it has ended."""
        await child.disownServiceParent()

    async def stop_all(self) -> None:
        """End all, one after the other, the last started first."""
        if self._watch.running:
            self._watch.stop()
        for child in reversed(self.children):
            await self.stop(child)

    def _look(self) -> None:
        before, self._last_look = self._last_look, self.reactor.seconds()
        if before is not None and self._last_look - before > _HELD_UP_SECONDS:
            # It was we who stood still (a suspended machine, a stopped process), not they.
            for child in self.children:
                child.mark_work()
        now = time.time() - _LATE_LINES_SECONDS
        for child in self.children:
            child.check_work()
            if child.log is not None:
                try:
                    child.log.rotate_if_due(now)
                except OSError as error:
                    self._say_once(f"{child.log.path}: cannot be rotated ({error.strerror})")

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._report(text)
