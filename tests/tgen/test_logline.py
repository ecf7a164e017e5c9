"""perfmeasure.tgen.logline."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.tgen.logline import Log, place


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def test_a_line_has_tgens_columns_in_utc(pipe: tuple[int, int]) -> None:
    log = Log(pipe[1])
    before = time.time()
    log.message(place("run"), "hello\nworld")
    line = os.read(pipe[0], 1000).decode()
    found = re.fullmatch(
        r"(\S+ \S+) (\d+\.\d{6}) \[message\] \[test_logline\.py:\d+\] \[run\] hello world\n", line
    )
    assert found
    assert before - 1e-6 <= float(found[2]) <= time.time()
    assert found[1] == time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(found[2])))


def test_a_clock_pair_has_its_own_line(pipe: tuple[int, int]) -> None:
    Log(pipe[1]).clock_pair(ClockPair(1795316415206400071, 5), "start")
    assert os.read(pipe[0], 1000).decode() == (
        "2026-11-22 03:00:15 1795316415.206400 [message] [clock] [clock_pair] [clock]"
        " utc_ns=1795316415206400071 monotonic_ns=5 reason=start\n"
    )


def test_less_important_levels_are_left_out(pipe: tuple[int, int]) -> None:
    lines = Log(pipe[1])
    lines.info("[a:1] [b]", "not shown")
    assert not lines.shows_info
    lines.set_level("info")
    assert lines.shows_info
    lines.info("[a:1] [b]", "shown")
    lines.write("debug", "[a:1] [b]", "not shown")
    lines.warning("[a:1] [b]", "warned")
    lines.critical("[a:1] [b]", "bad")
    text = os.read(pipe[0], 4096).decode()
    assert [line.split("] ", 3)[3] for line in text.splitlines()] == ["shown", "warned", "bad"]


def test_a_reader_that_left_breaks_nothing(pipe: tuple[int, int]) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.close(pipe[0])
    log = Log(pipe[1])
    log.message("[a:1] [b]", "x")
    assert log.is_broken
    log.message("[a:1] [b]", "y")


def test_lines_wait_for_a_slow_reader_and_stay_whole(pipe: tuple[int, int]) -> None:
    log = Log(pipe[1])
    got = bytearray()

    def read() -> None:
        while len(got) < total:
            time.sleep(0.001)
            got.extend(os.read(pipe[0], 10_000))

    total = 200 * len("2026-11-22 03:00:15 1795316415.206400 [message] [a:1] [b] \n") + 200 * 5000
    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        log.message("[a:1] [b]", "x" * 5000)
    reader.join(10)
    assert all(line.endswith(b"x" * 5000) for line in got.splitlines())


def test_in_a_hurry_it_gives_up_a_reader_that_does_not_read(pipe: tuple[int, int]) -> None:
    log = Log(pipe[1])
    log.hurry(0.2)
    begin = time.monotonic()
    for _ in range(40):
        log.message("[a:1] [b]", "x" * 4000)
    assert log.is_broken
    assert time.monotonic() - begin < 40 * 0.2  # it does not wait for each
