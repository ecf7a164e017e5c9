"""The torctl log: what tor sent, stamped and without its secrets, on disk or standard output.

One entry for each message of tor, as tor sent it, in UTC; a message of several lines is kept
whole, its further lines unstamped::

    YYYY-MM-DD HH:MM:SS UNIX.uuuuuu 650 BW 461 244

After a full disk a line ``[LOST] N entries were not written: REASON`` stands where they would be.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Protocol

from perfmeasure.tor.control import SHORT_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfmeasure.tor.control import Arrival

BATCH_SECONDS = SHORT_WAIT_SECONDS
"""How long an entry may wait for others, to be written with them in one go."""

_BATCH_BYTES = 1 << 16
_REPORT_SECONDS = 60.0

# A password stands in quotes, quotes in it escaped; one that is cut off goes up to the line's end.
_SOCKS_PASSWORD = re.compile(rb'(SOCKS_PASSWORD=)(?:"(?:[^"\\\r\n]|\\[^\r\n])*(?:"|\\?)|[^ \r\n]+)')
_SECRET_OPTIONS = re.compile(
    rb"^(650[-+ ](?:(?:__)?HashedControl\w*Password|HTTPS?ProxyAuthenticator|Socks5ProxyPassword"
    rb"|HidServAuth|HiddenServiceAuthorizeClient|ServerTransportOptions|Bridge)=)[^\r\n]+",
    re.IGNORECASE | re.MULTILINE,
)
_REDACTED = rb'\1"[redacted]"'


class Sink(Protocol):
    """Where entries go: a `LogFile`, or standard output."""

    def write(self, entry: bytes, unix_ts: float) -> None:
        """Append whole lines, or raise OSError."""

    def rotate_if_due(self, now: float) -> None:
        """Rotate a log that nothing is written to."""

    def close(self) -> None:
        """Close the log."""


class StandardOutput:
    """Standard output as a log; it does not rotate."""

    def __init__(self) -> None:
        self._is_cut = False

    def write(self, entry: bytes, unix_ts: float) -> None:  # noqa: ARG002 - for rotation only
        """Write whole lines; after a failure the next ones start on a line of their own."""
        view = memoryview(b"\n" + entry if self._is_cut else entry)
        size = len(view)
        try:
            while view:
                view = view[os.write(1, view) :]
        except OSError:
            self._is_cut = self._is_cut or len(view) < size
            raise
        self._is_cut = False

    def rotate_if_due(self, now: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Leave standard output open."""


def redact(entry: bytes) -> bytes:
    """Return log lines without the secrets that tor puts into its events."""
    if b"SOCKS_PASSWORD=" in entry:
        entry = _SOCKS_PASSWORD.sub(_REDACTED, entry)
    if b"650-CONF_CHANGED" in entry:
        entry = _SECRET_OPTIONS.sub(_REDACTED, entry)
    return entry


class EventLog:
    """Stamps entries and writes them, several at once when they come thick.

    When the disk is full it says so (not more than once a minute), counts what it could not
    write, and leaves a line with the count when it can write again.

    Args:
        sink: where the entries go.
        report: takes one sentence for people.
    """

    def __init__(self, sink: Sink, report: Callable[[str], None]) -> None:
        self._sink = sink
        self._report = report
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._pending_count = 0
        self._pending_utc_ns = 0
        self._second = -1
        self._second_text = ""
        self._lost = 0
        self._lost_reason = ""
        self._is_loss_reported = False
        self._next_report = 0.0

    @property
    def has_pending(self) -> bool:
        """Whether something waits for `flush`."""
        return bool(self._pending)

    def add(self, arrival: Arrival) -> None:
        """Take the messages of one arrival.

        Raises:
            BrokenPipeError: whoever read our standard output has gone.
        """
        if arrival.messages:
            self._add(*arrival)

    def _add(self, utc_ns: int, messages: list[bytes]) -> None:
        if utc_ns // 10**9 != self._second:
            # Periods of rotation are whole seconds: what is written at once lies in one of them.
            self.flush()
            self._second = utc_ns // 10**9
            self._second_text = time.strftime(
                f"%Y-%m-%d %H:%M:%S {self._second}", time.gmtime(self._second)
            )
        prefix = self._stamp(utc_ns)
        entry = redact(prefix + prefix.join(messages))
        if not self._pending:
            self._pending_utc_ns = utc_ns
        self._pending.append(entry)
        self._pending_bytes += len(entry)
        self._pending_count += len(messages)
        age_ns = utc_ns - self._pending_utc_ns
        if self._pending_bytes >= _BATCH_BYTES or age_ns >= BATCH_SECONDS * 1e9:
            self.flush()

    def note(self, text: str, utc_ns: int | None = None) -> None:
        """Write a line of our own, now or stamped ``utc_ns``."""
        utc_ns = time.time_ns() if utc_ns is None else utc_ns
        self._add(utc_ns, [text.encode("utf-8", "replace") + b"\n"])
        self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if not self._pending:
            return
        entry, count = b"".join(self._pending), self._pending_count
        self._pending.clear()
        self._pending_bytes = self._pending_count = 0
        if self._lost:
            note = f"[LOST] {self._lost} entries were not written: {self._lost_reason}\n"
            entry = self._stamp(self._pending_utc_ns) + note.encode() + entry
        try:
            # Whole microseconds, as in the text: the log rotates by the time that it shows.
            self._sink.write(entry, self._pending_utc_ns // 1000 / 1e6)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._lost_reason = error.strerror or str(error)
            self._lost += count
            if not self._is_loss_reported and time.monotonic() >= self._next_report:
                self._is_loss_reported = True
                self._report(
                    f"the log cannot be written ({self._lost_reason}); events are being lost. "
                    "Free space on the disk"
                )
        else:
            if self._is_loss_reported:
                self._is_loss_reported = False
                # A disk with little room takes a small entry between two large ones.
                self._next_report = time.monotonic() + _REPORT_SECONDS
                self._report(f"the log can be written again; {self._lost} entries were lost")
            self._lost = 0

    def idle(self, now: float) -> None:
        """Rotate a silent log when its time has come."""
        try:
            self._sink.rotate_if_due(now)
        except OSError as error:
            self._report(f"the log cannot be rotated ({error.strerror or error})")

    def close(self) -> None:
        """Write what is pending and close the log."""
        self.flush()
        if self._lost:
            self._report(f"{self._lost} entries were not written: {self._lost_reason}")
        self._sink.close()

    def _stamp(self, utc_ns: int) -> bytes:
        return f"{self._second_text}.{utc_ns // 1000 % 10**6:06d} ".encode()
