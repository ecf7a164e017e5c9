"""Gives up what a privileged process needs no more once its programs are attached.

Reading the ring, counters and iterators of descriptors that are open takes no right at all (from
Linux 5.19 on). What stays is the user who owns the folder of the log, so that it can be rotated.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from perfmeasure.errors import MissingError

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

_TASKS = Path("/proc/self/task")

_libc = ctypes.CDLL(None, use_errno=True)


def drop(folder: Path) -> None:
    """Become the owner of ``folder``, without any capability, and unable to get one by exec.

    The signal that this process asked for at its parent's death stays asked for.

    Raises:
        MissingError: the kernel refused, or there are threads besides this one: what is given up
            here is given up by the calling thread alone.
    """
    if len(list(_TASKS.iterdir())) > 1:
        raise MissingError(
            "dropping privileges",
            "the process has other threads, which would keep theirs",
            next_step="set OPENBLAS_NUM_THREADS=1, or whatever keeps its libraries from making any",
        )
    owner = folder.stat()
    parent = os.getppid()
    signal_number = ctypes.c_int()
    _prctl(_PR_GET_PDEATHSIG, ctypes.addressof(signal_number))
    try:
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.setgroups([])
            os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
            os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
    except OSError as error:
        raise _refused(error.errno or 0) from error
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise _refused(ctypes.get_errno())
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # A change of user makes the kernel forget it.
    _prctl(_PR_SET_PDEATHSIG, signal_number.value)
    if signal_number.value and os.getppid() != parent:
        os.kill(os.getpid(), signal_number.value)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        raise _refused(ctypes.get_errno())


def _refused(code: int) -> MissingError:
    return MissingError(
        "dropping privileges",
        f"refused by the kernel ({os.strerror(code)})",
        next_step="allow prctl(2), capset(2) and setuid(2) in the sandbox",
    )
