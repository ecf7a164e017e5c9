"""A query that goes on: packets that match are delivered as they are recorded.

A subscription is a thread that looks into the store ten times a second for what has come. The
thread that records does nothing for it but take a snapshot, so that no subscriber, however slow,
can hold it up or make it keep packets in memory: what a slow one has not read yet lies on disk.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable

from perfmeasure.errors import PerfmeasureError
from perfmeasure.recorder.predicate import END_OF_TIME_NS, Node
from perfmeasure.recorder.snapshot import Follower, Snapshot
from perfmeasure.recorder.store import Chunk, Counts

POLL_SECONDS = 0.1
_LATE_NS = 2_000_000_000
"""How much later than its own time a packet may be in the store."""


class Subscription:
    """Delivers what matches a query from a snapshot on.

    Args:
        node: the query.
        follower: of the same query; what came before it began is not delivered.
        snapshot: returns what is written now, or was at most so many seconds ago; what it returns
            is never of an earlier moment than what it has returned to whoever asks.
        write: takes packets, in order of time within each call. An error ends the subscription.
        finish: is called once, when it has ended, with the error or None.

    Attributes:
        counts: what was delivered.
        missed: segments that the budget of the store dropped before they could be delivered.
    """

    def __init__(
        self,
        node: Node,
        follower: Follower,
        snapshot: Callable[[float], Snapshot],
        write: Callable[[Chunk], None],
        finish: Callable[[Exception | None], None],
    ) -> None:
        self._node = node
        self._follower = follower
        self._snapshot = snapshot
        self._write = write
        self._finish = finish
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="subscription", daemon=True)
        self.counts = Counts()

    @property
    def missed(self) -> int:
        """See above."""
        return self._follower.missed

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """Have it deliver what there is, and end; does not wait for that."""
        self._is_stopping.set()

    def join(self, timeout_seconds: float | None = None) -> None:
        """Return when it has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        why: Exception | None = None
        try:
            is_over = False
            while not is_over:
                is_over = self._is_stopping.wait(POLL_SECONDS)
                # What comes is of now or later; once that cannot match, no more will come.
                latest_ns = time.time_ns() - _LATE_NS
                is_over |= not self._node.may_match(latest_ns, END_OF_TIME_NS)[0]
                snapshot = self._snapshot(0.0 if is_over else POLL_SECONDS / 2)
                for chunk in self._follower.advance(snapshot, self.counts):
                    self._write(chunk)
        except (PerfmeasureError, OSError, sqlite3.Error) as error:
            why = error
        finally:
            with contextlib.suppress(OSError):
                self._finish(why)
