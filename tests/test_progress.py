from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from perfmeasure.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


def plain(text: str) -> str:
    """Leave out the durations, which differ from run to run."""
    return re.sub(r"\(\d+\.\d+ s\)", "(T)", text)


def test_what_is_open_and_the_last_warnings_can_be_asked_for() -> None:
    with Progress(io.StringIO()) as progress:
        progress.phase("bootstrap")
        progress.update("loading", 0.5)
        progress.phase("transfers")
        assert progress.open_lines == ["bootstrap: 50 % loading", "transfers …"]
        progress.done()
        assert progress.open_lines == ["bootstrap: 50 % loading"]
        for number in range(30):
            progress.warn(f"number {number}")
    assert [text for _, text in progress.warnings] == [f"number {n}" for n in range(10, 30)]
    times = [unix_ts for unix_ts, _ in progress.warnings]
    assert times == sorted(times)
    assert times[0] > 1e9


def test_plain_lines_that_never_repeat() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.phase("bootstrap tor-client")
        for _ in range(3):
            progress.update("loading_descriptors", 0.45)
        progress.update("loading_descriptors", 0.4501)
        progress.warn("slow")
        progress.update("done", 1.0)
        progress.done()
        progress.phase("transfers")
        progress.update("1 of 5")
        progress.done("5 of 5")
    assert plain(stream.getvalue()).splitlines() == [
        "bootstrap tor-client …",
        "bootstrap tor-client: 45 % loading_descriptors",
        "warning: slow",
        "bootstrap tor-client: 100 % done",
        "bootstrap tor-client: done (T)",
        "transfers …",
        "transfers: 1 of 5",
        "transfers: 5 of 5 (T)",
    ]


def test_two_phases_in_turns_do_not_repeat_either() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        for text in ("10 %", "10 %", "20 %"):
            for name in ("client", "server"):
                progress.phase(name)
                progress.update(text)
        progress.phase("client")
        progress.done()
    assert plain(stream.getvalue()).splitlines() == [
        "client …",
        "client: 10 %",
        "server …",
        "server: 10 %",
        "client: 20 %",
        "server: 20 %",
        "client: done (T)",
    ]


def test_long_lines_and_odd_texts_are_kept_as_they_are() -> None:
    stream = io.StringIO()
    text = "[red]no markup[/] :smile: " + "x" * 500
    with Progress(stream) as progress:
        progress.phase("p")
        progress.update(text, 7.0)
    assert f"p: 100 % {text}\n" in stream.getvalue()


def test_update_and_done_without_a_phase() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.done()
        progress.update("something")
    assert stream.getvalue() == "perfmeasure …\nperfmeasure: something\n"


def test_a_stream_that_went_away_ends_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    stream.close()
    progress.phase("p")
    progress.warn("w")
    progress.close()


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    with Progress(io.StringIO()) as progress:
        progress.phase("p")
        assert threading.active_count() == before


ON_A_TERMINAL = """
import sys, threading
from perfmeasure.progress import Progress
with Progress() as progress:
    progress.phase("bootstrap tor-client")
    progress.update("loading_descriptors", 0.45)
    progress.warn("slow")
    assert threading.active_count() == 1, threading.enumerate()
    if len(sys.argv) > 1:
        raise SystemExit(7)
    progress.done()
"""


def run_on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Run the program above with stderr on a terminal; return its status and what it drew."""
    ours, its = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *arguments],
        stderr=its,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(its)
    drawn = b""
    try:
        while chunk := os.read(ours, 4096):
            drawn += chunk
    except OSError:
        pass  # a terminal whose last user is gone answers EIO
    os.close(ours)
    return child.wait(timeout=30), drawn.decode()


@pytest.mark.parametrize(("arguments", "status"), [((), 0), (("fail",), 7)])
def test_a_terminal_is_drawn_over_and_left_clean(arguments: tuple[str, ...], status: int) -> None:
    ended, drawn = run_on_a_terminal(*arguments)
    assert ended == status
    assert "━" in drawn  # the bar
    assert "warning: slow" in drawn
    # The cursor that was hidden while drawing is shown again, after the last drawing.
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn).strip().splitlines()[-1]
    expected = "bootstrap tor-client: done (T)" if status == 0 else "45 % loading_descriptors"
    assert expected in plain(last)


def test_a_file_gets_plain_lines(tmp_path: Path) -> None:
    with (tmp_path / "err").open("wb") as stderr:
        subprocess.run([sys.executable, "-c", ON_A_TERMINAL], stderr=stderr, check=True, timeout=30)
    written = (tmp_path / "err").read_text()
    assert "\x1b" not in written
    assert "bootstrap tor-client: 45 % loading_descriptors\nwarning: slow\n" in written
