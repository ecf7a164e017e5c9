"""A log of records, one JSON object a line, with the clock pairs and losses that belong in each.

A full disk loses lines and no more: it is said once, and counted in the log when it is over.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import perfmeasure
from perfmeasure import jsonio
from perfmeasure.clock import ClockWatch, read_pair
from perfmeasure.logfile import LogFile

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Lines = list[dict[str, Any]]
"""Records; the first two fields are ``record`` and ``unix_ts``."""


def now() -> float:
    """Return the Unix time to the microsecond."""
    return round(time.time(), 6)


def start_line(program: str, **fields: Any) -> dict[str, Any]:
    """Return the record with which a program begins to write."""
    return {
        "record": "start",
        "unix_ts": now(),
        "program": program,
        "version": perfmeasure.__version__,
        "host": platform.node(),
        "kernel": platform.release(),
        "boot_id": BOOT_ID.read_text(encoding="ascii").strip(),
        **fields,
    }


class RecordLog:
    """Writes records into a log.

    Args:
        log: the file and its rotation.
        report: takes one sentence for people.
        head: gives what every file begins with, and what a program begins with in a file that it
            goes on with.
    """

    def __init__(
        self,
        log: LogFile,
        report: Callable[[str], None],
        head: Callable[[], Lines] | None = None,
    ) -> None:
        self._log = log
        self._report = report
        self._head = head
        self._clock = ClockWatch()
        self._lost: dict[str, int] = {}
        self._unwritten = 0
        if head is not None:
            self._append(head())

    def write(self, lines: Lines) -> None:
        """Append records; all of them or none."""
        if self._head is not None:
            self._log.turn_to(lines[0]["unix_ts"])
            if self._log.is_empty:
                lines = self._head() + lines
        self._append(lines)

    def _append(self, lines: Lines) -> None:
        unix_ts = lines[0]["unix_ts"]
        entry = "".join(f"{jsonio.compact(line)}\n" for line in lines).encode()
        try:
            self._log.write(entry, unix_ts)
        except OSError as error:
            if not self._unwritten:
                self._report(
                    f"{self._log.path}: cannot be written ({error.strerror}); records are being "
                    "lost. Free space on the disk"
                )
            self._unwritten += len(lines)
            return
        if self._unwritten:
            self._report(f"{self._log.path}: written again, {self._unwritten} lines were lost")
            count, self._unwritten = self._unwritten, 0
            self.write([{"record": "lost", "unix_ts": now(), "count": count, "what": "lines"}])

    def keep_house(self, lost: dict[str, int]) -> None:
        """Write a clock pair and losses when they are due; rotate a log that nothing is said in.

        To be called about once a second.

        Args:
            lost: what was lost since the start, by kind.
        """
        pair = read_pair()
        reason = self._clock.due(pair)
        unix_ts = now()
        lines: Lines = []
        if reason is not None:
            pair_fields = {"utc_ns": pair.utc_ns, "monotonic_ns": pair.monotonic_ns}
            lines.append({"record": "clock", "unix_ts": unix_ts, **pair_fields, "reason": reason})
        for what, total in lost.items():
            if count := total - self._lost.get(what, 0):
                lines.append({"record": "lost", "unix_ts": unix_ts, "count": count, "what": what})
        self._lost = dict(lost)
        if lines:
            self.write(lines)
        try:
            self._log.rotate_if_due(unix_ts)
        except OSError as error:
            self._report(f"{self._log.path}: cannot be rotated ({error.strerror})")

    def stop(self, reason: str) -> None:
        """Write an orderly end, and close."""
        self.write([{"record": "stop", "unix_ts": now(), "reason": reason}])
        self._log.close()
