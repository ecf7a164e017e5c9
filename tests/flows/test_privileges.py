from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.flows import privileges

_CODE = """
import ctypes, sys
from pathlib import Path
from perfmeasure.flows import privileges
libc = ctypes.CDLL(None)
libc.prctl(1, 15, 0, 0, 0)
privileges.drop(Path(sys.argv[1]))
number = ctypes.c_int()
libc.prctl(2, ctypes.byref(number), 0, 0, 0)
print("DeathSignal:", number.value)
print(Path("/proc/self/status").read_text())
try:
    Path(sys.argv[1], "mine").touch()
    Path(sys.argv[2]).touch()
except OSError as error:
    print("Refused:", error.filename)
"""


@pytest.mark.usefixtures("open_folders")
@pytest.mark.parametrize("owner", [0, 65534])
def test_nothing_is_left_but_the_owner_of_the_folder(
    require: Callable[..., None], tmp_path: Path, owner: int
) -> None:
    require("root")
    mine, others = tmp_path / "mine", tmp_path / "others"
    mine.mkdir()
    others.mkdir(mode=0o755)
    os.chown(mine, owner, owner)
    # Without the capability, root may not write into another user's folder either.
    os.chown(others, 1234, 1234)
    ran = subprocess.run(
        [sys.executable, "-c", _CODE, mine, others / "x"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    status = dict(
        line.replace(":\t", ": ").split(": ", 1) for line in ran.stdout.splitlines() if ": " in
        line.replace(":\t", ": ")
    )  # fmt: skip
    for kind in ("Inh", "Prm", "Eff", "Amb"):
        assert int(status[f"Cap{kind}"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == [str(owner)] * 4
    assert status["Gid"].split() == [str(owner)] * 4
    assert status["DeathSignal"] == "15"
    assert status["Refused"] == str(others / "x")
    assert (mine / "mine").stat().st_uid == owner


def test_with_other_threads_it_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path\n"
        "from perfmeasure.flows import privileges\n"
        "go = threading.Event(); thread = threading.Thread(target=go.wait); thread.start()\n"
        "try: privileges.drop(Path(sys.argv[1]))\n"
        "finally: go.set()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert "other threads, which would keep theirs" in ran.stderr


_KEPT_CODE = """
import threading
from pathlib import Path
from perfmeasure.flows.privileges import Capability, keep_only
def masks():
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    rows = dict(line.split(":") for line in lines)
    return [int(rows[name], 16) for name in ("CapInh", "CapPrm", "CapEff")]
before = masks()
keep_only((Capability.DAC_OVERRIDE, Capability.BPF))
found = [masks()]
thread = threading.Thread(target=lambda: found.append(masks()))
thread.start()
thread.join()
wanted = 1 << 1 | 1 << 39
assert found == [[0, before[1] & wanted, before[2] & wanted]] * 2, found
assert before[2] & ~wanted
keep_only(())
assert masks() == [0, 0, 0]
"""


def test_all_but_what_is_kept_is_given_up(require: Callable[..., None]) -> None:
    require("root")
    subprocess.run([sys.executable, "-c", _KEPT_CODE], check=True)


def test_what_the_kernel_refuses_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        ctypes.set_errno(1)
        return -1

    monkeypatch.setattr(privileges._libc, "capset", refuse, raising=False)
    with pytest.raises(PermissionError):
        privileges.keep_only(privileges.KEPT_WHILE_COUNTING)
