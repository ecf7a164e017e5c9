"""perfmeasure.tgen.reactor."""

from __future__ import annotations

import time
from typing import Any

from perfmeasure.tgen.reactor import cancel, monotonic_us


def test_times_are_monotonic_microseconds() -> None:
    before = time.monotonic()
    assert before * 1e6 - 1 <= monotonic_us() <= time.monotonic() * 1e6


def test_a_call_is_cancelled_once(loop: Any) -> None:
    calls: list[int] = []
    timer = loop.reactor.callLater(0.01, calls.append, 1)
    cancel(timer)
    cancel(timer)
    cancel(None)
    done = loop.reactor.callLater(0.01, calls.append, 2)
    loop.until(lambda: calls)
    cancel(done)
    assert calls == [2]
