"""Sends samples to a server by remote write, until each has been acknowledged and is on its disk.

An acknowledgement says that the server has it in memory. One that is killed forgets what it has
not written yet, so whatever was acknowledged shortly before a request failed is sent again. That
does no harm: the same sample again has the same time and the same value.
"""

from __future__ import annotations

import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from perfmeasure.errors import InputError, MeasurementError
from perfmeasure.topology.batches import Batch
from perfmeasure.topology.remotewrite import HEADERS
from perfmeasure.topology.server import Answer, Broken, Server
from perfmeasure.units import format_seconds

GIVE_UP_SECONDS = 120.0
"""How long a server may fail before the import ends."""

_PATH = "/api/v1/write"
_FLUSH_PATH = "/internal/force_flush"
_FORGETTABLE_SECONDS = 15.0
"""What VictoriaMetrics acknowledged is on its disk 5 s later."""
_METRICS_SECONDS = 1.2
"""VictoriaMetrics makes its own figures anew once a second."""
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 15.0
_BUSY = frozenset({408, 425, 429})
_TOO_OLD = re.compile(rb"out of bounds|out of order|too old|duplicate sample", re.IGNORECASE)
_NEXT_STEPS = {
    401: "give user and password as http://user:password@host",
    403: "give user and password as http://user:password@host",
    404: "look at the URL's path; Prometheus needs --web.enable-remote-write-receiver",
}
_IGNORED = re.compile(rb"^vm_rows_ignored_total\{[^}]*\} (\d+)", re.MULTILINE)
_DEDUPLICATION = re.compile(
    rb'^flag\{name="dedup.minScrapeInterval", value="([^"]*)"', re.MULTILINE
)


@dataclass
class Imported:
    """What an import did.

    Attributes:
        samples: how many were acknowledged, each counted once.
        requests: how many requests were, those that were sent again among them.
        bytes: of the bodies of those requests.
        failures: how many requests failed.
    """

    samples: int = 0
    requests: int = 0
    bytes: int = 0
    failures: int = 0


@dataclass(frozen=True)
class _Problem:
    """Why a request failed, and how long the server asks to be left alone."""

    text: str
    wait_seconds: float = 0.0


class Importer:
    """Sends batches, one at a time.

    Args:
        server: where to.
        say: takes one sentence for people: when the server fails, works again, or is set up so
            that it keeps samples twice.
        give_up_seconds: how long it may fail.
    """

    def __init__(
        self,
        server: Server,
        *,
        say: Callable[[str], None],
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._server = server
        self._say = say
        self._give_up_seconds = give_up_seconds
        self._recent: deque[tuple[float, Batch]] = deque()
        self._done = Imported()

    def send(self, batches: Iterable[Batch]) -> Imported:
        """Send all of them, and have the server show them to queries.

        Raises:
            InputError: the server does not want them, whenever they are sent.
            MeasurementError: the server failed for too long, or dropped samples.
        """
        ignored_before = self._look_at_server()
        for batch in batches:
            self._deliver(deque([batch]))
            self._done.samples += batch.count
        if self._done.samples:
            self._deliver(deque(), is_end=True)
            if ignored := self._ignored_since(ignored_before):
                raise MeasurementError(
                    str(self._server),
                    f"it dropped {ignored} samples, as being outside what it keeps",
                    "a -retentionPeriod that reaches back to the first of them",
                    "start it with a longer one, and import again",
                )
        return self._done

    def _look_at_server(self) -> int | None:
        """Say what is to be said of its settings; return how many samples it has dropped so far.

        Only VictoriaMetrics tells. A server that does not answer will be told on by what follows.
        """
        metrics = self._metrics()
        if (found := _DEDUPLICATION.search(metrics)) and found[1] in {b"", b"0", b"0s"}:
            self._say(
                f"{self._server}: does not remove samples that are sent twice; "
                "start it with -dedup.minScrapeInterval=1ms"
            )
        return _ignored(metrics)

    def _ignored_since(self, before: int | None) -> int:
        if before is None:
            return 0
        time.sleep(_METRICS_SECONDS)
        now = _ignored(self._metrics()) or 0
        return now - before if now >= before else now  # it counts anew when it is started

    def _metrics(self) -> bytes:
        try:
            answer = self._server.ask("GET", "/metrics")
        except Broken:
            return b""
        return answer.body if answer.status == 200 else b""

    def _deliver(self, pending: deque[Batch], *, is_end: bool = False) -> None:
        """Send what is pending, and what that shows to be in doubt; at the end, flush."""
        failing_since: float | None = None
        pause_seconds = _FIRST_PAUSE_SECONDS
        while pending or is_end:
            is_flush = not pending
            problem = self._flush(pending) if is_flush else self._post(pending)
            now = time.monotonic()
            if problem is None:
                if failing_since is not None:
                    took = format_seconds(now - failing_since)
                    self._say(f"{self._server}: takes samples again, after {took}")
                failing_since, pause_seconds = None, _FIRST_PAUSE_SECONDS
                is_end = is_end and not is_flush
                continue
            self._done.failures += 1
            if failing_since is None:
                failing_since = now
                self._say(
                    f"{self._server}: {problem.text}; trying for up to {self._give_up_seconds:g} s"
                )
            left = failing_since + self._give_up_seconds - now
            if left <= 0:
                raise self._gave_up(problem)
            # Not all of a fleet at the same moment.
            pause = pause_seconds * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret
            time.sleep(min(left, max(problem.wait_seconds, pause)))
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _post(self, pending: deque[Batch]) -> _Problem | None:
        batch = pending[0]
        try:
            answer = self._server.ask("POST", _PATH, batch.body, HEADERS)
        except Broken as error:
            self._doubt(pending)
            return _Problem(str(error))
        if 200 <= answer.status < 300:
            now = time.monotonic()
            self._recent.append((now, pending.popleft()))
            while self._recent[0][0] < now - _FORGETTABLE_SECONDS:
                self._recent.popleft()
            self._done.requests += 1
            self._done.bytes += len(batch.body)
            return None
        if answer.status >= 500:  # who stands before a server that restarts says this of it
            self._doubt(pending)
        elif answer.status not in _BUSY:
            raise self._refused(answer)
        return _Problem(str(answer), answer.retry_after_seconds)

    def _flush(self, pending: deque[Batch]) -> _Problem | None:
        try:
            self._server.ask("GET", _FLUSH_PATH)  # which Prometheus has not, nor needs
        except Broken as error:
            self._doubt(pending)
            return _Problem(str(error))
        return None

    def _doubt(self, pending: deque[Batch]) -> None:
        """Put what the server may have forgotten before what is pending."""
        pending.extendleft(batch for _, batch in reversed(self._recent))
        self._recent.clear()

    def _refused(self, answer: Answer) -> InputError:
        where = f"{self._server}{_PATH}"
        if answer.status == 400 and _TOO_OLD.search(answer.body):
            return InputError(
                where, f"refused samples for their times ({answer})",
                "a server that takes samples of any time, such as VictoriaMetrics",
                "Prometheus only takes what is new: have it scrape /metrics of `perfmeasure serve`",
            )  # fmt: skip
        step = _NEXT_STEPS.get(answer.status, "see the server's own log")
        return InputError(
            where, f"refused the samples ({answer})", "a server that takes them", step
        )

    def _gave_up(self, problem: _Problem) -> MeasurementError:
        return MeasurementError(
            str(self._server),
            f"{problem.text}, for {self._give_up_seconds:g} s",
            "a server that takes samples",
            f"{self._done.samples} samples were acknowledged before; import again when it works, "
            "for what is there already is not counted twice",
        )


def _ignored(metrics: bytes) -> int | None:
    """Return how many samples a VictoriaMetrics has dropped; None if it is none."""
    found = _IGNORED.findall(metrics)
    return sum(map(int, found)) if found else None
