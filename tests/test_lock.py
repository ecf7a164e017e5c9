from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perfmeasure.errors import MeasurementError
from perfmeasure.lock import prefix_lock

HOLD = (
    "import sys, time; from pathlib import Path; from perfmeasure.lock import prefix_lock\n"
    "with prefix_lock(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_second_holder_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    with pytest.raises(MeasurementError, match=f"pid {first.pid};"), prefix_lock(tmp_path):
        pass
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    with prefix_lock(tmp_path):
        assert (tmp_path / "perfmeasure.lock").read_text() == f"{os.getpid()}\n"


def test_the_folder_is_made_and_one_that_cannot_be_is_explained(tmp_path: Path) -> None:
    with prefix_lock(tmp_path / "a" / "b"):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(MeasurementError, match=r"cannot be written .*--prefix"),
        prefix_lock(tmp_path / "file" / "b"),
    ):
        pass
