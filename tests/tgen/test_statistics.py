"""perfmeasure.tgen.statistics: the heartbeat's text, as TGen's real logs have it."""

from __future__ import annotations

import re
from pathlib import Path

from perfmeasure.tgen.statistics import Statistics


def test_the_heartbeat_is_that_of_a_real_log(fixtures: Path) -> None:
    log = (fixtures / "tgen/client-direct-success.tgen.log").read_text()
    real = re.findall(r"\[driver-heartbeat\] \[.*\]", log)[:2]
    ours = Statistics()
    for line in real:
        ours.bytes_read += int(re.search(r"bytes-read=(\d+)", line)[1])  # type: ignore[index]
        ours.bytes_written += int(re.search(r"bytes-written=(\d+)", line)[1])  # type: ignore[index]
        ours.created("stream")
        ours.created("flow")
        ours.ended("stream", is_success=True)
        ours.ended("flow", is_success=True)
        assert ours.take_heartbeat() == line


def test_what_pends_and_what_failed_is_shown_and_zeros_are_not() -> None:
    ours = Statistics()
    for kind in ("stream", "flow", "traffic"):
        ours.created(kind)
        ours.created(kind)
    ours.ended("stream", is_success=False)
    assert ours.streams_completed == 1
    ours.take_heartbeat()
    assert ours.take_heartbeat() == (
        "[driver-heartbeat] [bytes-read=0,bytes-written=0,"
        "total-streams-created=2,total-streams-failed=1,total-streams-pending=1,"
        "total-flows-created=2,total-flows-pending=2,"
        "total-traffics-created=2,total-traffics-pending=2]"
    )
