from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.errors import MissingError
from perfmeasure.flows import cgroup
from perfmeasure.flows.cgroup import MeasurementCgroup, mount_point, remove_stale


def test_the_mount_point_is_read_with_its_escapes(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("proc /proc proc rw 0 0\ncgroup2 /a\\040b cgroup2 rw 0 0\n")
    assert mount_point(mounts) == Path("/a b")
    mounts.write_text("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n")
    assert mount_point(mounts) is None


def test_without_cgroup_v2_there_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "mount_point", lambda: None)
    with pytest.raises(MissingError, match="cgroup v2: not mounted"):
        MeasurementCgroup()
    with pytest.raises(MissingError, match="cannot be made"):
        MeasurementCgroup(Path("/proc"))


@pytest.fixture
def parent(require: Callable[..., None]) -> Path:
    require("root")
    found = mount_point()
    if found is None:
        pytest.skip("no cgroup v2 is mounted")
    return found


def test_children_are_started_inside(parent: Path) -> None:
    group = MeasurementCgroup()
    try:
        assert group.path.parent == parent
        child = subprocess.Popen(
            group.entering([sys.executable, "-c", "input()"]), stdin=subprocess.PIPE
        )
        try:
            other = subprocess.Popen(["sleep", "60"])
            group.add(other.pid)
            for _ in range(200):
                if len(group.pids()) == 2:
                    break
            assert sorted(group.pids()) == sorted((child.pid, other.pid))
            assert not group.remove()
        finally:
            other.kill()
            other.wait()
            child.communicate(b"\n")
        assert child.returncode == 0
    finally:
        assert group.remove()
    assert not group.path.exists()


def test_what_a_killed_harness_left_is_removed_by_the_next(parent: Path) -> None:
    code = (
        "import os, signal; from perfmeasure.flows.cgroup import MeasurementCgroup\n"
        "print(MeasurementCgroup().path, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Path(ran.stdout.strip())
    assert left.is_dir()
    ours = MeasurementCgroup()
    try:
        assert not left.exists()
        assert remove_stale(parent) == []
        assert ours.path.exists()
    finally:
        ours.remove()


def test_a_number_that_was_given_again_is_another_process(parent: Path) -> None:
    stale = parent / f"perfmeasure-{os.getpid()}-1"
    stale.mkdir()
    foreign = parent / "perfmeasure-x-y"
    foreign.mkdir()
    try:
        assert remove_stale(parent) == [stale]
        assert foreign.exists()
    finally:
        foreign.rmdir()
