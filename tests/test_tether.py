from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from perfmeasure import tether

KILL = str(int(signal.SIGKILL))
TETHER = [sys.executable, "-I", "-S", str(Path(tether.__file__))]


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_the_program_dies_with_its_parent_however_that_dies() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import os, subprocess, sys, time\n"
                "argv = [*sys.argv[1:], str(os.getpid()), '9', '', 'sleep', '60']\n"
                "child = subprocess.Popen(argv)\n"
                "print(child.pid, flush=True)\n"
                "time.sleep(60)"
            ),
            *TETHER,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    comm = Path(f"/proc/{child}/comm")
    for _ in range(500):
        if comm.read_text().strip() == "sleep":
            break
        time.sleep(0.01)
    assert comm.read_text().strip() == "sleep"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(500):
        if not is_running(child):
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child outlived its parent by 5 s")


def test_a_parent_that_has_gone_already_means_that_nothing_is_run() -> None:
    done = subprocess.run(
        [*TETHER, "1", KILL, "", "echo", "ran"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ended before its child began" in done.stderr


def test_the_program_has_a_session_of_its_own_and_the_default_sigpipe() -> None:
    code = "import os, signal; print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGPIPE))"
    shell = "trap - PIPE; cat /proc/self/status | grep SigIgn"
    own = subprocess.run(
        [*TETHER, str(os.getpid()), KILL, "", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert own.stdout.startswith("True")
    ignored = subprocess.run(
        [*TETHER, str(os.getpid()), KILL, "", "sh", "-c", shell],
        capture_output=True,
        text=True,
        check=True,
    )
    mask = int(ignored.stdout.split()[1], 16)
    assert not mask & (1 << (signal.SIGPIPE - 1))


def test_a_program_that_is_not_there_is_named() -> None:
    done = subprocess.run(
        [*TETHER, str(os.getpid()), KILL, "", "no-such-program"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot run no-such-program: No such file" in done.stderr


def test_the_program_begins_in_the_control_group(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("root", "cgroup2")
    mount = next(
        Path(line.split()[1])
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split()[2] == "cgroup2"
    )
    group = mount / f"test-{os.getpid()}-{tmp_path.name}"
    group.mkdir()
    try:
        argv = tether.tethered(["cat", "/proc/self/cgroup"], cgroup=group)
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    finally:
        group.rmdir()
    assert f"0::/{group.name}\n" in done.stdout


def test_a_control_group_that_is_not_there_is_said_and_the_program_runs(tmp_path: Path) -> None:
    argv = tether.tethered(["echo", "ran"], cgroup=tmp_path / "gone")
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "ran\n"
    assert done.stderr == f"not in control group {tmp_path}/gone: No such file or directory\n"
