"""Counts of what the generator did, and the heartbeat line that shows them."""

from __future__ import annotations

import collections

_CREATED, _SUCCEEDED, _FAILED = "created", "succeeded", "failed"
_KINDS = ("stream", "flow", "traffic")


class Statistics:
    """Bytes, streams, flows and traffics: since the last heartbeat, and in total."""

    def __init__(self) -> None:
        self.bytes_read = 0
        self.bytes_written = 0
        self._reported_read = 0
        self._reported_written = 0
        self._total: collections.Counter[tuple[str, str]] = collections.Counter()
        self._recent: collections.Counter[tuple[str, str]] = collections.Counter()

    def created(self, kind: str) -> None:
        """Count a ``stream``, ``flow`` or ``traffic`` that began."""
        self._count(kind, _CREATED)

    def ended(self, kind: str, *, is_success: bool) -> None:
        """Count one that ended."""
        self._count(kind, _SUCCEEDED if is_success else _FAILED)

    def _count(self, kind: str, what: str) -> None:
        self._total[kind, what] += 1
        self._recent[kind, what] += 1

    @property
    def streams_completed(self) -> int:
        """Streams that ended, well or not."""
        return self._total["stream", _SUCCEEDED] + self._total["stream", _FAILED]

    def take_heartbeat(self) -> str:
        """Return the heartbeat's text and begin the next interval; counts of 0 are left out."""
        fields = [
            f"bytes-read={self.bytes_read - self._reported_read}",
            f"bytes-written={self.bytes_written - self._reported_written}",
        ]
        for kind in _KINDS:
            fields += [
                f"{kind}s-{what}={count}"
                for what in (_CREATED, _SUCCEEDED, _FAILED)
                if (count := self._recent[kind, what])
            ]
        for kind in _KINDS:
            counts = {what: self._total[kind, what] for what in (_CREATED, _SUCCEEDED, _FAILED)}
            pending = counts[_CREATED] - counts[_SUCCEEDED] - counts[_FAILED]
            for what, count in (*counts.items(), ("pending", pending)):
                if count > 0:
                    fields.append(f"total-{kind}s-{what}={count}")
        self._reported_read, self._reported_written = self.bytes_read, self.bytes_written
        self._recent.clear()
        return f"[driver-heartbeat] [{','.join(fields)}]"
