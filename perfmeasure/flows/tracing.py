"""Programs on typed tracepoints and iterators: loaded, attached and run by bpf(2).

bcc compiles such a program, but cannot load it: it names no type of the kernel to run at. Both
kinds are attached by links, so they go with the process.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall

if TYPE_CHECKING:
    from perfmeasure.flows.btf import Types
    from perfmeasure.flows.loader import Program

_TRACING = 26
_TRACE_RAW_TP, _TRACE_ITER = 23, 28
_PROG_LOAD, _RAW_TRACEPOINT_OPEN, _LINK_CREATE, _ITER_CREATE = 5, 17, 28, 33
_ATTR_BYTES = 144
_LOG_BYTES = 1 << 20


def load_tracepoint(program: Program, function: str, name: str, types: Types) -> int:
    """Load a function for a tracepoint whose arguments have the kernel's types; return it.

    Raises:
        MissingError: this kernel has no such tracepoint, or does not load the function.
    """
    return _load(program, function, f"tracepoint {name}", types.tracepoint_id(name), _TRACE_RAW_TP)


def load_iterator(program: Program, function: str, name: str, types: Types) -> int:
    """Load a function that an iterator over objects of the kernel calls; return its descriptor.

    Raises:
        MissingError: this kernel has no such iterator, or does not load the function.
    """
    return _load(program, function, f"iterator {name}", types.iterator_id(name), _TRACE_ITER)


def attach_tracepoint(program_fd: int) -> int:
    """Have a tracepoint program run from now on; return the link.

    Raises:
        OSError: the kernel refused.
    """
    attributes = struct.pack("=QI", 0, program_fd)
    return bpfcall.bpf(_RAW_TRACEPOINT_OPEN, attributes.ljust(_ATTR_BYTES, b"\0"))


def attach_iterator(program_fd: int, map_fd: int) -> int:
    """Prepare an iterator over the elements of a map; return the link.

    Raises:
        OSError: the kernel refused.
    """
    which = ctypes.create_string_buffer(struct.pack("=I", map_fd), 16)
    attributes = struct.pack(
        "=IIIIQI", program_fd, 0, _TRACE_ITER, 0, ctypes.addressof(which), len(which)
    )
    return bpfcall.bpf(_LINK_CREATE, attributes.ljust(_ATTR_BYTES, b"\0"))


def iterate(link_fd: int) -> None:
    """Have the iterator's program see every object once.

    Raises:
        OSError: the kernel refused.
    """
    attributes = struct.pack("=II", link_fd, 0)
    iterator = bpfcall.bpf(_ITER_CREATE, attributes.ljust(_ATTR_BYTES, b"\0"))
    try:
        while os.read(iterator, 4096):
            pass
    finally:
        os.close(iterator)


def _load(program: Program, function: str, hook: str, type_id: int | None, attach_type: int) -> int:
    if type_id is None:
        raise MissingError(function, f"this kernel has no {hook}", next_step="use a newer kernel")
    code = program.table.dump_func(function.encode())
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = bytearray(_ATTR_BYTES)
    struct.pack_into(
        "=IIQQIIQII16sII", attributes, 0,
        _TRACING, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(license_text),
        1, len(log), ctypes.addressof(log), 0, 0, function[:15].encode(), 0, attach_type,
    )  # fmt: skip
    struct.pack_into("=I", attributes, 108, type_id)
    try:
        return bpfcall.bpf(_PROG_LOAD, bytes(attributes))
    except OSError as error:
        said = log.value.decode("utf-8", "replace").strip().splitlines()[-3:]
        raise MissingError(
            f"{function} on {hook}",
            f"the kernel does not load it ({'; '.join([str(error.strerror), *said])})",
            next_step="run perfmeasure doctor flows",
        ) from error
