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
from perfmeasure.tether import tethered


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
    require("root", "cgroup2")
    found = mount_point()
    assert found is not None
    return found


def test_children_are_started_inside(parent: Path) -> None:
    group = MeasurementCgroup()
    try:
        assert group.path.parent == parent
        child = subprocess.Popen(
            tethered(["sh", "-c", "echo in; read word"], cgroup=group.path),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"in\n"
        assert (group.path / "cgroup.procs").read_text() == f"{child.pid}\n"
        assert not group.remove()
        child.communicate(b"\n")
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


def test_a_group_is_found_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "system.slice" / "nginx.service").mkdir(parents=True)
    number = (tmp_path / "system.slice" / "nginx.service").stat().st_ino
    paths = cgroup.GroupPaths(tmp_path)
    assert paths(number) == "/system.slice/nginx.service"
    (tmp_path / "system.slice" / "nginx.service").rmdir()
    assert paths(number) == "/system.slice/nginx.service"  # of one that has gone, too
    assert paths(tmp_path.stat().st_ino) == "/"
    assert paths(1) is None
    assert cgroup.GroupPaths(None)(number) is None
