"""What the generator needs of Twisted's reactor, in terms that a type checker can follow.

Twisted describes its reactor by zope interfaces, whose methods have no ``self``; these protocols
say the same, and let a test pass anything that does as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due later (`twisted.internet.interfaces.IDelayedCall`)."""

    def cancel(self) -> None:
        """Forget the call."""

    def active(self) -> bool:
        """Return whether it is neither done nor forgotten."""


class Reactor(Protocol):
    """Timers and readiness of file descriptors (``IReactorTime``, ``IReactorFDSet``)."""

    def callLater(self, delay: float, call: Callable[..., object], /, *args: object) -> Timer:
        """Call ``call(*args)`` in ``delay`` seconds."""

    def addReader(self, reader: object) -> None:
        """Call the descriptor's ``doRead`` whenever it can be read."""

    def addWriter(self, writer: object) -> None:
        """Call the descriptor's ``doWrite`` whenever it can be written."""

    def removeReader(self, reader: object) -> None:
        """Stop `addReader`."""

    def removeWriter(self, writer: object) -> None:
        """Stop `addWriter`."""

    def resolve(self, name: str, timeout: tuple[int, ...] = ...) -> object:
        """Return a Deferred of the IPv4 address of a host name."""


def cancel(timer: Timer | None) -> None:
    """Forget a call if there is one and it is still to come."""
    if timer is not None and timer.active():
        timer.cancel()


def monotonic_us() -> int:
    """Return the monotonic time in microseconds, the unit of the log's times."""
    return time.monotonic_ns() // 1000
