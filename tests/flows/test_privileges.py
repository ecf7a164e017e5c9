from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable

import pytest

from perfmeasure.flows import privileges

CODE = """
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
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_what_the_kernel_refuses_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        ctypes.set_errno(1)
        return -1

    monkeypatch.setattr(privileges._libc, "capset", refuse, raising=False)
    with pytest.raises(PermissionError):
        privileges.keep_only(privileges.KEPT_WHILE_COUNTING)
