"""The commands of bpf(2) that bcc does not offer: links, batches into numpy, test runs, run times.

Attribute layouts are those of ``union bpf_attr`` in the kernel's ``include/uapi/linux/bpf.h``.
A link, unlike an old-style attachment, ends with the last descriptor of it: whatever kills the
process that holds it, the program is detached.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_MEMBARRIER_GLOBAL = 1
_STATS_RUN_TIME = 0
_ATTR_BYTES = 128  # the kernel wants what it does not know to be zero
_PROG_INFO_BYTES = 232
_MAP_INFO_BYTES = 80

_libc = ctypes.CDLL(None, use_errno=True)


class Command(enum.IntEnum):
    """``enum bpf_cmd``."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    MAP_LOOKUP_AND_DELETE_BATCH = 25
    LINK_CREATE = 28
    ENABLE_STATS = 32
    ITER_CREATE = 33


class AttachType(enum.IntEnum):
    """``enum bpf_attach_type``, those that links are made with here."""

    CGROUP_INET_INGRESS = 0
    CGROUP_INET_EGRESS = 1
    CGROUP_SOCK_CREATE = 2
    CGROUP_SOCK_OPS = 3
    CGROUP_INET4_POST_BIND = 12
    CGROUP_INET6_POST_BIND = 13
    CGROUP_SOCK_RELEASE = 34
    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class ProgramStatistics(NamedTuple):
    """What the kernel counted of one program while run-time statistics were on."""

    run_count: int
    run_time_ns: int


def bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Make one system call and return its result, which is not negative.

    Args:
        command: which; see `Command`.
        attributes: ``union bpf_attr`` as far as it is filled. A ``ctypes`` buffer gets back what
            the kernel writes into it.

    Raises:
        OSError: the kernel refused, with its error number.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {platform.machine()}")
    result: int = _libc.syscall(number, command, attributes, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def link_create(program_fd: int, target: int, attach_type: AttachType, flags: int = 0) -> int:
    """Attach a program to a control group (descriptor) or interface (index); return the link.

    Raises:
        OSError: the kernel refused.
    """
    attributes = struct.pack("=IIII", program_fd, target, attach_type, flags)
    return bpf(Command.LINK_CREATE, attributes.ljust(_ATTR_BYTES, b"\0"))


def raw_tracepoint_open(program_fd: int, name: str) -> int:
    """Attach a program to a raw tracepoint, such as ``sys_enter``; return the link.

    Raises:
        OSError: the kernel refused, or has no tracepoint of that name.
    """
    name_buffer = ctypes.create_string_buffer(name.encode())
    attributes = struct.pack("=QI", ctypes.addressof(name_buffer), program_fd)
    return bpf(Command.RAW_TRACEPOINT_OPEN, attributes.ljust(_ATTR_BYTES, b"\0"))


def enable_statistics() -> int:
    """Have the kernel time every program (some 20 ns a run) while the descriptor is open.

    Raises:
        OSError: not allowed, or older than Linux 5.8.
    """
    return bpf(Command.ENABLE_STATS, struct.pack("=I", _STATS_RUN_TIME).ljust(_ATTR_BYTES, b"\0"))


def program_statistics(program_fd: int) -> ProgramStatistics:
    """Return how often a program ran, and how long in all, since statistics were enabled.

    Raises:
        OSError: the descriptor is no program's.
    """
    info = ctypes.create_string_buffer(_PROG_INFO_BYTES)
    attributes = struct.pack("=IIQ", program_fd, len(info), ctypes.addressof(info))
    bpf(Command.OBJ_GET_INFO_BY_FD, attributes.ljust(_ATTR_BYTES, b"\0"))
    # struct bpf_prog_info: run_time_ns at 192, run_cnt at 200.
    run_time_ns, run_count = struct.unpack_from("=QQ", info, 192)
    return ProgramStatistics(run_count, run_time_ns)


def program_name(program_fd: int) -> str:
    """Return what a program was called when it was loaded, at most 15 characters of it.

    Raises:
        OSError: the descriptor is no program's.
    """
    info = ctypes.create_string_buffer(_PROG_INFO_BYTES)
    attributes = struct.pack("=IIQ", program_fd, len(info), ctypes.addressof(info))
    bpf(Command.OBJ_GET_INFO_BY_FD, attributes.ljust(_ATTR_BYTES, b"\0"))
    return info.raw[64:80].partition(b"\0")[0].decode("ascii", "replace")  # struct bpf_prog_info


def ids(command: Command) -> set[int]:
    """Return the ids of all programs (``PROG_GET_NEXT_ID``) or maps (``MAP_GET_NEXT_ID``).

    Raises:
        OSError: not allowed.
    """
    found: set[int] = set()
    last = 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("=I", last), _ATTR_BYTES)
        try:
            bpf(command, attributes)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        last = struct.unpack_from("=I", attributes, 4)[0]
        found.add(last)


def program_by_id(number: int) -> int:
    """Return a descriptor of a loaded program.

    Raises:
        OSError: not allowed, or no such program.
    """
    return bpf(Command.PROG_GET_FD_BY_ID, struct.pack("=I", number).ljust(_ATTR_BYTES, b"\0"))


class TestRun(NamedTuple):
    """Result of one test run: the program's return value, and its mean time."""

    return_value: int
    duration_ns: int


def test_run(  # the kernel's name for it; no test of pytest's
    program_fd: int,
    frame: bytes,
    repeat: int = 1,  # noqa: PT028
    context: bytes = b"",  # noqa: PT028
) -> TestRun:
    """Run a packet program on a frame without a network (``BPF_PROG_TEST_RUN``).

    Args:
        program_fd: an XDP or tc program.
        frame: at least 14 bytes, from the Ethernet header on.
        repeat: how many times; the duration is the mean over them.
        context: ``struct xdp_md`` or ``__sk_buff``, where fields other than the data matter.

    Raises:
        OSError: the kernel refused the frame or the program.
    """
    data_in = ctypes.create_string_buffer(frame, len(frame))
    data_out = ctypes.create_string_buffer(len(frame) + 256)
    context_in = ctypes.create_string_buffer(context, len(context)) if context else None
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "=IIIIQQIIIIQQ",
            program_fd, 0, len(frame), len(data_out),
            ctypes.addressof(data_in), ctypes.addressof(data_out),
            repeat, 0, len(context), 0,
            ctypes.addressof(context_in) if context_in is not None else 0, 0,
        ),
        _ATTR_BYTES,
    )  # fmt: skip
    bpf(Command.PROG_TEST_RUN, attributes)
    return_value = struct.unpack_from("=I", attributes, 4)[0]
    duration_ns = struct.unpack_from("=I", attributes, 36)[0]
    return TestRun(return_value, duration_ns)


class BatchReader:
    """Reads whole hash maps of one shape into numpy arrays, and empties them, in few calls.

    Args:
        key: the dtype of a key; its size must be the map's.
        value: the dtype of a value.
        processors: how many values a key has: 1, or the possible processors for per-CPU maps,
            whose values are padded to 8 bytes each.
        batch_entries: how many entries a call may return.
    """

    def __init__(
        self,
        key: np.dtype[Any],
        value: np.dtype[Any],
        processors: int = 1,
        batch_entries: int = 32768,
    ) -> None:
        if processors > 1 and value.itemsize % 8:
            raise ValueError("a per-CPU value is padded to 8 bytes: its dtype must show that")
        self._keys = np.zeros(batch_entries, key)
        self._values = np.zeros((batch_entries, processors), value)
        # A hash map's position is one word, another kind's is a key.
        position_bytes = max(8, key.itemsize)
        self._in = ctypes.create_string_buffer(position_bytes)
        self._out = ctypes.create_string_buffer(position_bytes)

    def drain(self, map_fd: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return and delete all entries: keys (n,) and values (n, processors).

        Raises:
            OSError: the kernel refused.
        """
        return self._together(self.drained_batches(map_fd))

    def peek(self, map_fd: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return all entries and leave them where they are.

        Raises:
            OSError: the kernel refused.
        """
        return self._together(self._batches(map_fd, Command.MAP_LOOKUP_BATCH))

    def drained_batches(
        self, map_fd: int
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Yield and delete all entries, some at a time; each pair holds until the next.

        Raises:
            OSError: the kernel refused.
        """
        return self._batches(map_fd, Command.MAP_LOOKUP_AND_DELETE_BATCH)

    def _together(
        self, batches: Iterable[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        keys, values = [self._keys[:0]], [self._values[:0]]
        for some_keys, some_values in batches:
            keys.append(some_keys.copy())
            values.append(some_values.copy())
        return np.concatenate(keys), np.concatenate(values)

    def _batches(
        self, map_fd: int, command: Command
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        position = 0
        is_last = False
        while not is_last:
            attributes = ctypes.create_string_buffer(
                struct.pack(
                    "=QQQQIIQQ",
                    position, ctypes.addressof(self._out),
                    self._keys.ctypes.data, self._values.ctypes.data,
                    len(self._keys), map_fd, 0, 0,
                ),
                _ATTR_BYTES,
            )  # fmt: skip
            try:
                bpf(command, attributes)
            except OSError as error:
                if error.errno != errno.ENOENT:  # which says: these were the last
                    raise
                is_last = True
            count = struct.unpack_from("=I", attributes, 32)[0]
            ctypes.memmove(self._in, self._out, len(self._in))
            position = ctypes.addressof(self._in)
            yield self._keys[:count], self._values[:count]


def lookup(map_fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """Return the value of a key, or None. ``value_bytes`` counts all processors' of a per-CPU map.

    Raises:
        OSError: the kernel refused.
    """
    return _value(Command.MAP_LOOKUP_ELEM, map_fd, key, value_bytes)


def take(map_fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """Return the value of a key, or None, and delete it from its hash map (Linux 5.14).

    Raises:
        OSError: the kernel refused.
    """
    return _value(Command.MAP_LOOKUP_AND_DELETE_ELEM, map_fd, key, value_bytes)


def _value(command: Command, map_fd: int, key: bytes, value_bytes: int) -> bytes | None:
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_bytes)
    attributes = struct.pack(
        "=IIQQQ", map_fd, 0, ctypes.addressof(key_buffer), ctypes.addressof(value), 0
    )
    try:
        bpf(command, attributes.ljust(_ATTR_BYTES, b"\0"))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def update(map_fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Set the value of a key; of a map of maps, the value is the inner map's descriptor.

    Raises:
        OSError: the kernel refused.
    """
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    attributes = struct.pack(
        "=IIQQQ", map_fd, 0, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), flags
    )
    bpf(Command.MAP_UPDATE_ELEM, attributes.ljust(_ATTR_BYTES, b"\0"))


def map_value_bytes(map_fd: int) -> int:
    """Return the size of a map's values.

    Raises:
        OSError: the descriptor is no map's.
    """
    info = ctypes.create_string_buffer(_MAP_INFO_BYTES)
    attributes = struct.pack("=IIQ", map_fd, len(info), ctypes.addressof(info))
    bpf(Command.OBJ_GET_INFO_BY_FD, attributes.ljust(_ATTR_BYTES, b"\0"))
    # struct bpf_map_info: type, id, key_size, value_size.
    return int(struct.unpack_from("=I", info, 12)[0])


def wait_for_programs() -> None:
    """Return when every program that was running at the call has ended.

    membarrier(2) with MEMBARRIER_CMD_GLOBAL waits for a grace period of RCU, under which
    programs run.

    Raises:
        OSError: the kernel has no such barrier (EINVAL where nohz_full is used).
    """
    number = _MEMBARRIER.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"membarrier(2) has no known number on {platform.machine()}")
    if _libc.syscall(number, _MEMBARRIER_GLOBAL, 0, 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def possible_processors() -> int:
    """Return the number of values a per-CPU map has for each key."""
    text = Path("/sys/devices/system/cpu/possible").read_text("ascii")
    ranges = [part.split("-") for part in text.strip().split(",")]
    return max(int(ends[-1]) for ends in ranges) + 1
