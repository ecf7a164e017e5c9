"""perfmeasure.tor.processes: nothing that was started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfmeasure.errors import MissingError
from perfmeasure.tor import processes as module
from perfmeasure.tor.processes import Processes


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait(condition: object, limit_seconds: float = 10) -> None:
    assert callable(condition)
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_output_is_appended_and_status_known(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with Processes() as processes:
        processes.start("one", ["sh", "-c", "echo out; echo err >&2; exit 3"], log)
        _wait(lambda: processes.status("one") is not None)
        assert processes.status("one") == 3
    assert log.read_text() == "before\nout\nerr\n"


def test_all_are_ended_at_the_end(tmp_path: Path) -> None:
    with Processes() as processes:
        processes.start("a", ["sleep", "60"], tmp_path / "log")
        processes.start("b", ["sleep", "60"], tmp_path / "log")
        assert processes.status("a") is None
        processes.signal("b", signal.SIGKILL)
        _wait(lambda: processes.status("b") == -signal.SIGKILL)


def test_who_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TERM_SECONDS", 0.3)
    log = tmp_path / "log"
    with Processes() as processes:
        processes.start(
            "deaf", ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], log
        )
        _wait(lambda: "up" in log.read_text())
        before = time.monotonic()
    assert time.monotonic() - before < 5


def test_no_such_program(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Processes() as processes:
        processes.start("none", [str(tmp_path / "none")], log)
        _wait(lambda: processes.status("none") is not None)
    assert "cannot run" in log.read_text()
    with pytest.raises(MissingError, match="cannot be started"):
        processes.start("x", ["true"], tmp_path / "no" / "log")


def test_they_die_with_us(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from perfmeasure.tor.processes import Processes\n"
        "p = Processes(); p.start('a', ['sleep', '60'], Path(sys.argv[1]))\n"
        "print(p._running['a'].pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    _wait(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _wait(lambda: not _is_alive(child))
