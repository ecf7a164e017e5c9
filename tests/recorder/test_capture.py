from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.errors import UsageError
from perfmeasure.recorder.capture import Capture
from perfmeasure.recorder.classes import PacketClass
from perfmeasure.recorder.configuration import Setup
from tests.recorder.wire import HERE, Line, inside

CUT = (PacketClass("all", cutoff_bytes=1000),)


def opened(line: Line, setup: Setup, **options: bool) -> tuple[bool, list[str]]:
    """Open a capture; return whether the kernel helps, and what was told."""
    told: list[str] = []
    with inside(line.name), Capture(HERE, setup, told.append, **options) as found:
        assert found.ring.interface == HERE
        return found.kernel is not None, told


def test_the_kernel_helps_where_there_is_a_cutoff(line: Line, require: Callable[..., None]) -> None:
    require("bpf")
    assert opened(line, Setup(classes=CUT, filter="tcp and port 80")) == (True, [])
    assert opened(line, Setup(classes=CUT)) == (True, [])
    assert opened(line, Setup(classes=CUT), is_cut_in_kernel=False) == (False, [])
    assert opened(line, Setup(filter="tcp")) == (False, [])


def test_mistakes_leave_no_socket_open(line: Line) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(UsageError, match="filter 'prot 7'"):
        opened(line, Setup(filter="prot 7"))
    with inside(line.name), pytest.raises(UsageError, match="there is none of this name"):
        Capture("none", Setup(), print)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
