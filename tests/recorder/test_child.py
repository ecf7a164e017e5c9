"""The privileged child as its user runs it: what it keeps of its rights, and every way it ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfmeasure.recorder import door
from perfmeasure.recorder.catalogue import Catalogue
from tests.recorder import made
from tests.recorder.wire import HERE, Line

_SECONDS = 60.0
_ARGV = [sys.executable, "-m", "perfmeasure.recorder.child"]
_OPTIONS = ["--filter", "udp", "--cutoff", "15 KB", "--budget", "64 MiB"]
FRAME = made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2, 100))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder of another user, who can come to it."""
    folder = tmp_path / "packets"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    return folder


@contextlib.contextmanager
def child(line: Line, store: Path, *argv: str) -> Iterator[subprocess.Popen[str]]:
    command = ["ip", "netns", "exec", line.name, *(argv or _ARGV)]
    command += ["--interface", HERE, "--store", str(store), *_OPTIONS]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], _SECONDS)[0], "it says nothing"
    return process.stdout.readline()


def packets_in(store: Path) -> int:
    return sum(entry.summary.packets for entry in Catalogue(store).segments())


def test_it_gives_up_its_rights_and_records(line: Line, store: Path) -> None:
    with child(line, store) as process:
        assert next_line(process) == "READY\n"
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            status = (task / "status").read_text()
            assert status.split("Uid:")[1].split()[:3] == ["65534"] * 3
            assert int(status.split("CapEff:")[1].split()[0], 16) == 0
        assert door.announced(store) is not None
        line.send([FRAME] * 3)
        line.send([made.ethernet(made.tcp("10.0.0.1", 1, "10.0.0.2", 2))])
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("HEALTH 3 packets (")
    assert packets_in(store) == 3
    assert {path.stat().st_uid for path in store.rglob("*")} == {65534}
    assert door.announced(store) is None


def test_it_tells_how_it_goes(line: Line, store: Path) -> None:
    code = (
        "import sys; from perfmeasure import cli; from perfmeasure.recorder import child\n"
        "child._HEALTH_SECONDS = 0.1\n"
        "sys.exit(cli.run(sys.argv[1:], child.child_command))"
    )
    with child(line, store, sys.executable, "-c", code) as process:
        assert next_line(process) == "READY\n"
        assert next_line(process) == f"HEALTH 0 packets (0 B) read, 0 (0 B) kept in {store}\n"
        line.send([FRAME])
        until = time.monotonic() + _SECONDS
        while "HEALTH 1 packets" not in next_line(process):
            assert time.monotonic() < until


def test_after_sigkill_the_next_one_goes_on(line: Line, store: Path) -> None:
    with child(line, store) as process:
        assert next_line(process) == "READY\n"
        line.send([FRAME] * 5)
        part = store / "segments" / "all" / "00000001.pcap.part"
        until = time.monotonic() + _SECONDS
        while not part.exists() or part.stat().st_size < 24 + 5 * (16 + len(FRAME)):
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(_SECONDS)
    with child(line, store) as process:
        assert next_line(process) == "READY\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=_SECONDS)
    assert "5 packets were indexed anew" in err
    assert process.returncode == 0
    assert packets_in(store) == 5


def test_what_the_machine_lacks_is_one_line(
    line: Line, store: Path, require: Callable[..., None]
) -> None:
    require("setpriv")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *_ARGV)
    with child(line, store, *nobody) as process:
        out, err = process.communicate(timeout=_SECONDS)
    assert (process.returncode, out) == (3, "")
    assert err.count("\n") == 1
    assert "CAP_NET_RAW" in err
