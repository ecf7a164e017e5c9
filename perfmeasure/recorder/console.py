"""What carries out commands: of a running recorder, or of a store alone.

Any number of clients may give commands at once, each from a thread of its own. What concerns the
recording is done by the thread that records, between two blocks of packets; queries are done by
the client's thread on a snapshot, so that recording goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from perfmeasure.errors import MeasurementError, PerfmeasureError, UsageError
from perfmeasure.recorder import language, show
from perfmeasure.recorder.catalogue import Resolver
from perfmeasure.recorder.expression import parse
from perfmeasure.recorder.outlet import Client, Outlet, outlet
from perfmeasure.recorder.predicate import Node
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.recording import Recording
from perfmeasure.recorder.snapshot import Follower, Snapshot, StoreAt
from perfmeasure.recorder.store import Chunk, Counts, Store
from perfmeasure.recorder.subscription import Subscription

MAX_SUBSCRIPTIONS = 64
_ASK_SECONDS = 0.2
_CLOSE_SECONDS = 5.0

T = TypeVar("T")


@dataclass
class _Subscribed:
    """A subscription, whose it is, and the command that asked for it."""

    subscription: Subscription
    client: Client
    is_feed: bool
    line: str


class Console:
    """Carries out commands.

    Args:
        folder: of the store.
        recorder: that captures into it, in this process; without one there are only queries.
        tell: is given a message when a subscription to a file ends with an error.
    """

    def __init__(
        self,
        folder: Path,
        recorder: Recorder | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = folder
        self._recorder = recorder
        self._tell = tell
        self._lock = threading.Lock()
        self._in_use: set[object] = set()
        self._subscribed: dict[int, _Subscribed] = {}
        self._next = 1
        self._moments = threading.Lock()
        self._latest: Callable[[], Snapshot | None] = lambda: None
        self._taken = float("-inf")
        self._last: Snapshot | None = None

    # ---- commands -------------------------------------------------------------------------------

    def execute(self, line: str, client: Client) -> str:
        """Carry out a command; return ``OK …`` or ``ERROR …``, the last line of the answer.

        Raises:
            OSError: the client is gone.
        """
        try:
            return self._execute(line, client)
        except (PerfmeasureError, sqlite3.Error) as error:
            return f"ERROR {' '.join(str(error).split())}"

    def _execute(self, line: str, client: Client) -> str:
        command = language.parse(line)
        match command:
            case language.Query():
                return self._query(command, line.strip(), client)
            case language.Print(lines):
                answer = list(lines)
            case language.Unsubscribe(number):
                answer = self._unsubscribe(number)
            case language.Show("subscriptions"):
                answer = self._subscriptions()
            case _:
                answer = self._ask(lambda recording: self._change(recording, command))
        for text in answer:
            client.text(text)
        return "OK"

    def _change(self, recording: Recording, command: language.Command) -> list[str]:
        """Carry out what concerns the recording; in the thread that records."""
        match command:
            case language.Suspend(what, is_suspended, key):
                show.slot_of(recording, key)
                is_cutoff = what == "cutoff"
                change = recording.suspend_cutoff if is_cutoff else recording.suspend_timeout
                change(key, is_suspended=is_suspended)
            case language.Assign(address, None):
                recording.classes.unassign(address)
            case language.Assign(address, str(name), side):
                recording.assign(address, name, side)
            case language.Show("sample"):
                return show.sample(recording)
            case language.Show("conn", key) if key is not None:
                return [show.connection(recording, key)]
            case language.Show("stats") if self._recorder is not None:
                return show.statistics(self._recorder, recording)
        return []

    def _ask(self, function: Callable[[Recording], T]) -> T:
        """Have the thread that records call a function, and return what it returns."""
        if self._recorder is None or self._last is not None:
            raise MeasurementError("NO RECORDER", "none answers here", "one that is running")
        future = self._recorder.submit(function)
        while True:
            try:
                return future.result(_ASK_SECONDS)
            except (FutureTimeoutError, CancelledError) as error:
                if self._last is not None or isinstance(error, CancelledError):
                    raise MeasurementError("NO RECORDER", "it has stopped") from None

    def _snapshot(self, age_seconds: float = 0.0) -> Snapshot:
        """Return what is written now, or was at most so long ago, or when the recording ended."""
        with self._moments:  # one after the other, so that none is older than the one before
            recent = self._latest()
            if recent is not None and time.monotonic() - self._taken <= age_seconds:
                return self._last or recent
            try:
                found = self._ask(lambda _: self._written())
            except MeasurementError:
                if self._last is None:
                    raise
                return self._last
            self._taken = time.monotonic()
            self._latest = weakref.ref(found)  # whoever follows it keeps it
            return found

    def _written(self) -> Snapshot:
        assert self._recorder is not None  # noqa: S101 - `_ask` has looked
        return self._recorder.writer.snapshot()

    # ---- queries --------------------------------------------------------------------------------

    def _query(self, query: language.Query, line: str, client: Client) -> str:
        begun = time.perf_counter()
        counts = Counts()
        is_live = self._recorder is not None or query.is_subscribed or query.is_mem_only
        snapshot = self._snapshot() if is_live else None
        store = (
            Store(self._folder)
            if snapshot is None
            else StoreAt(self._folder, snapshot, is_mem_only=query.is_mem_only)
        )
        try:
            node = query.node or _expression(query.expression, store)
            if query.target is None:
                counts = store.count(node)
            elif snapshot is not None and query.is_subscribed:
                self._subscribe(query.target, node, (store, counts, snapshot), line, client)
            else:
                with self._reserved(outlet(query.target, self._folder, client)) as out:
                    try:
                        out.answer(store.packets(node, counts))
                    finally:
                        out.close()
        finally:
            store.close()
        for problem in store.problems:
            client.text(problem)
        if counts.drops:
            client.text(
                f"while these segments were recorded {counts.drops} packets were lost: "
                "the answer may have gaps"
            )
        self._count(counts)
        seconds = time.perf_counter() - begun
        return f"OK {counts.packets} packets {counts.bytes} bytes {seconds:.6f} s"

    def _count(self, counts: Counts) -> None:
        """Have the statistics know what was delivered."""
        if self._recorder is not None and self._last is None:
            statistics = self._recorder.statistics
            self._recorder.submit(lambda _: statistics.add_query(counts.packets, counts.bytes))

    @contextlib.contextmanager
    def _reserved(self, out: Outlet) -> Iterator[Outlet]:
        """Let nobody else write to the same file, or to the same program with the same tag."""
        with self._lock:
            if out.key in self._in_use:
                raise UsageError("IN USE", "another query writes to it", "another name or tag")
            self._in_use.add(out.key)
        try:
            yield out
        finally:
            with self._lock:
                self._in_use.discard(out.key)

    # ---- subscriptions --------------------------------------------------------------------------

    def _subscribe(
        self,
        target: language.ToFile | language.Feed,
        node: Node,
        past: tuple[Store, Counts, Snapshot],
        line: str,
        client: Client,
    ) -> None:
        """Deliver what there is, and have a subscription deliver what comes after the snapshot."""
        store, counts, snapshot = past
        is_feed = isinstance(target, language.Feed)
        link = self._recorder.link if self._recorder is not None else None
        if link is None:
            raise MeasurementError("NO RECORDER", "nothing is captured", "one that captures")
        with contextlib.ExitStack() as held:
            out = held.enter_context(self._reserved(outlet(target, self._folder, client)))
            held.enter_context(_closing(out))
            with self._lock:
                if len(self._subscribed) >= MAX_SUBSCRIPTIONS:
                    raise UsageError(
                        "TOO MANY SUBSCRIPTIONS", f"{MAX_SUBSCRIPTIONS}", "unsubscribe NUMBER"
                    )
                number, self._next = self._next, self._next + 1
            out.begin(link, store.packets(node, counts))
            client.text(f"subscription {number}")
            at_end = held.pop_all()

        def write(chunk: Chunk) -> None:
            out.write(chunk)
            captured = int(chunk.frames["captured"].sum(dtype="u8"))
            self._count(Counts(len(chunk.frames), captured))

        def finish(error: Exception | None) -> None:
            with self._lock:
                self._subscribed.pop(number, None)
            if error is not None and not is_feed and self._tell is not None:
                self._tell(f"subscription {number} has ended: {error}")
            at_end.close()

        subscription = Subscription(
            node, Follower(self._folder, node, snapshot), self._snapshot, write, finish
        )
        with self._lock:
            self._subscribed[number] = _Subscribed(subscription, client, is_feed, line)
        subscription.start()

    def _subscriptions(self) -> list[str]:
        with self._lock:
            subscribed = sorted(self._subscribed.items())
        return [
            f"{number} packets {one.subscription.counts.packets} "
            f"bytes {one.subscription.counts.bytes} missed_segments {one.subscription.missed} "
            f"{one.line}"
            for number, one in subscribed
        ]

    def _unsubscribe(self, number: int) -> list[str]:
        with self._lock:
            found = self._subscribed.get(number)
        if found is None:
            raise UsageError(
                f"NO SUCH SUBSCRIPTION - {number}", "unknown", "one of show subscriptions"
            )
        found.subscription.stop()
        found.subscription.join()
        return []

    def leave(self, client: Client) -> None:
        """End what feeds a client that is gone; its subscriptions to files go on."""
        with self._lock:
            left = [one.subscription for one in self._subscribed.values()
                    if one.client is client and one.is_feed]  # fmt: skip
        for subscription in left:
            subscription.stop()
        for subscription in left:
            subscription.join()

    def close(self) -> None:
        """Have all subscriptions deliver what was recorded to the end, for some seconds at most.

        To be called when recording is over, before the store is closed.
        """
        if self._recorder is None:
            return
        self._last = self._recorder.writer.snapshot()
        with self._lock:
            left = [one.subscription for one in self._subscribed.values()]
        for subscription in left:
            subscription.stop()
        until = time.monotonic() + _CLOSE_SECONDS
        for subscription in left:
            subscription.join(max(0.0, until - time.monotonic()))


@contextlib.contextmanager
def _closing(out: Outlet) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            out.close()


def _expression(text: str, store: Store) -> Node:
    try:
        return parse(text, Resolver(store.catalogue))
    except UsageError as error:
        raise UsageError(
            f"PARSER ERROR - {error.where}", error.got, error.wanted, error.next_step
        ) from error
