"""Gives up what a privileged process needs no more once its programs are attached.

Reading the ring, counters and iterators of descriptors that are open takes no right at all (from
Linux 5.19 on). What stays is the user who owns the folder of the log, so that it can be rotated.
"""

from __future__ import annotations

import ctypes
import enum
import os
import struct
from pathlib import Path

from perfmeasure.errors import MissingError

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

_TASKS = Path("/proc/self/task")

_libc = ctypes.CDLL(None, use_errno=True)


class Capability(enum.IntEnum):
    """Capabilities by their number (capabilities(7))."""

    DAC_OVERRIDE = 1
    """To write into a folder of another user, as root does."""
    DAC_READ_SEARCH = 2
    """To look into any folder: that of another's descriptors."""
    SYS_PTRACE = 19
    """To read what those descriptors are."""
    BPF = 39
    """To read maps, which kernels before 5.19 want it for."""


KEPT_WHILE_COUNTING = (Capability.DAC_OVERRIDE, Capability.BPF)
KEPT_WHILE_LISTING = (
    *KEPT_WHILE_COUNTING,
    Capability.DAC_READ_SEARCH,
    Capability.SYS_PTRACE,
)


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
    try:
        keep_only(())
    except OSError as error:
        raise _refused(error.errno or 0) from error
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # A change of user makes the kernel forget it.
    _prctl(_PR_SET_PDEATHSIG, signal_number.value)
    if signal_number.value and os.getppid() != parent:
        os.kill(os.getpid(), signal_number.value)


def keep_only(kept: tuple[Capability, ...]) -> None:
    """Give up all other capabilities, for good, in this thread and those that it starts.

    What the process does not have is not gained.

    Raises:
        OSError: the kernel refused.
    """
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION, 0))
    data = ctypes.create_string_buffer(24)
    _call(_libc.capget, header, data)
    words = struct.unpack("=6I", data)  # effective, permitted, inheritable; then their high halves
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    less = (words[0] & low, words[1] & low, 0, words[3] & high, words[4] & high, 0)
    _call(_libc.capset, header, ctypes.create_string_buffer(struct.pack("=6I", *less), 24))


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        raise _refused(ctypes.get_errno())


def _refused(code: int) -> MissingError:
    return MissingError(
        "dropping privileges",
        f"refused by the kernel ({os.strerror(code)})",
        next_step="allow prctl(2), capset(2) and setuid(2) in the sandbox",
    )


def _call(function: ctypes._NamedFuncPointer, *buffers: ctypes.Array[ctypes.c_char]) -> None:
    if function(*buffers) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
