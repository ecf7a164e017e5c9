"""What a process that counts in the kernel gives up once everything is loaded and attached."""

from __future__ import annotations

import ctypes
import enum
import os
import struct

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_libc = ctypes.CDLL(None, use_errno=True)


class Capability(enum.IntEnum):
    """Capabilities by their number (capabilities(7))."""

    DAC_OVERRIDE = 1
    """To write into a folder of another user, as root does."""
    BPF = 39
    """To read maps, which kernels before 5.19 want it for."""


KEPT_WHILE_COUNTING = (Capability.DAC_OVERRIDE, Capability.BPF)


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


def _call(function: ctypes._NamedFuncPointer, *buffers: ctypes.Array[ctypes.c_char]) -> None:
    if function(*buffers) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
