from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis.workers import ATTEMPTS, Here, Processes
from perfmeasure.errors import ExitStatus, PerfmeasureError
from tests.analysis import killing

if TYPE_CHECKING:
    from tests.analysis.conftest import Lines


def test_each_task_is_done_once() -> None:
    with Processes(2) as workers:
        done = sorted(workers.run(killing.double, range(9), [""] * 9))
        again = sorted(workers.run(killing.double, [3], [""]))
    assert done == [(number, 2 * number) for number in range(9)]
    assert again == [(0, 6)]
    assert list(Here().run(killing.double, [4], [""])) == [(0, 8)]
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_costs_a_retry(tmp_path: Path) -> None:
    with Processes(2) as workers:
        killed = killing.OneIsKilled(workers, tmp_path)
        found = killed.run(killing.double, range(5), [""] * 5)
        assert sorted(found) == [(number, 2 * number) for number in range(5)]
    assert killed.attempts() == 6  # five tasks, and one of them again


def test_a_task_that_kills_each_worker_ends_the_work_and_is_named() -> None:
    names = [f"log {number}" for number in range(9)]
    with (
        pytest.raises(
            PerfmeasureError, match="log 7: the worker that read it was killed"
        ) as caught,
        Processes(2) as workers,
    ):
        list(workers.run(killing.die, range(9), names))
    assert caught.value.exit_status is ExitStatus.FAILED
    assert ATTEMPTS > 1
    assert multiprocessing.active_children() == []


def test_what_a_task_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="never 1"), Processes(2) as workers:
        list(workers.run(killing.fail, [1], [""]))
    assert multiprocessing.active_children() == []


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_command_no_process_is_left(
    tmp_path: Path, lines: type[Lines], number: signal.Signals
) -> None:
    line = lines.status(1, 0, 5000, 10)
    for name in "ab":
        (tmp_path / f"{name}.tgen.log").write_text(lines.initializing(0) + line * 60_000)
    command = [sys.executable, "-m", "perfmeasure", "analyze", str(tmp_path), "--workers", "2"]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "db.json")],
        start_new_session=True,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        for _ in range(600):
            workers = children_of(process.pid)
            if len(workers) == 3:  # two, and Python's own that keeps account of them
                break
            assert process.poll() is None
            time.sleep(0.01)
        if number is signal.SIGINT:
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        else:
            os.kill(process.pid, number)
        _, said = process.communicate(timeout=20)
        for _ in range(1000):
            left = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
            if not left:
                break
            time.sleep(0.01)
        assert left == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert said.strip() == b"perfmeasure: interrupted"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgen.log", "b.tgen.log"]
