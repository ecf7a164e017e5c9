"""Filters in pcap's language, compiled and run by libpcap (pcap-filter(7))."""

from __future__ import annotations

import ctypes
import functools
import weakref
from typing import Any

import numpy as np

from perfmeasure.errors import MissingError, UsageError
from perfmeasure.recorder.records import LINK_ETHERNET, LINKS_RAW, MAX_CAPTURED_BYTES, Array

_LIBRARY = "libpcap.so.0.8"
_ANY_NETMASK = 0xFFFFFFFF
_ERROR_BYTES = 256
_DLT_RAW = 12


class _Program(ctypes.Structure):
    """``struct bpf_program``; with its padding also ``struct sock_fprog``."""

    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.c_void_p)]


@functools.cache
def _libpcap() -> Any:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise MissingError(
            "libpcap",
            f"{_LIBRARY} cannot be loaded ({error})",
            next_step="install it (apt-get install --no-install-recommends libpcap0.8), or do "
            "without filters",
        ) from error
    handle, program = ctypes.c_void_p, ctypes.POINTER(_Program)
    library.pcap_lib_version.restype = ctypes.c_char_p
    library.pcap_open_dead.restype = handle
    library.pcap_create.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.pcap_create.restype = handle
    library.pcap_activate.argtypes = [handle]
    library.pcap_close.argtypes = [handle]
    library.pcap_geterr.argtypes = [handle]
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_compile.argtypes = [
        handle, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32,
    ]  # fmt: skip
    library.pcap_freecode.argtypes = [program]
    library.bpf_filter.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint,
    ]  # fmt: skip
    library.bpf_filter.restype = ctypes.c_uint
    return library


def version() -> str:
    """Return what libpcap says that it is.

    Raises:
        MissingError: it is not there.
    """
    said: bytes = _libpcap().pcap_lib_version()
    return said.decode(errors="replace")


class Filter:
    """A compiled filter.

    Args:
        expression: in pcap's language; not empty.
        link: the link type of the frames.
        where: what the expression belongs to, for messages.
        interface: compile for this interface's socket in the kernel, where a VLAN tag may be beside
            the frame, instead of for frames as they are stored.

    Raises:
        UsageError: the expression is none, or has no meaning for the link type.
        MissingError: there is no libpcap.
    """

    def __init__(self, expression: str, link: int, where: str, interface: str = "") -> None:
        self._library = _libpcap()
        self._program = _Program()
        handle = self._handle(link, where, interface)
        try:
            failed = self._library.pcap_compile(
                handle, ctypes.byref(self._program), expression.encode(), 1, _ANY_NETMASK
            )
            if failed:
                said = self._library.pcap_geterr(handle).decode(errors="replace")
                raise UsageError(
                    where, f"filter {expression!r}: {said}", "an expression of pcap-filter(7)"
                )
        finally:
            self._library.pcap_close(handle)
        weakref.finalize(self, self._library.pcap_freecode, ctypes.byref(self._program))

    def _handle(self, link: int, where: str, interface: str) -> int:
        if interface:
            said = ctypes.create_string_buffer(_ERROR_BYTES)
            handle: int = self._library.pcap_create(interface.encode(), said)
            if self._library.pcap_activate(handle) < 0:
                message = self._library.pcap_geterr(handle).decode(errors="replace")
                self._library.pcap_close(handle)
                raise UsageError(where, f"interface {interface}: {message}")
        else:
            # libpcap's own numbers differ for raw IP only.
            kind = _DLT_RAW if link in LINKS_RAW else link
            handle = self._library.pcap_open_dead(kind, MAX_CAPTURED_BYTES)
        return handle

    @property
    def socket_program(self) -> bytes:
        """``struct sock_fprog``, for SO_ATTACH_FILTER; good as long as the filter is."""
        return bytes(self._program)

    @property
    def instructions(self) -> bytes:
        """Its instructions, ``struct sock_filter``."""
        return ctypes.string_at(self._program.instructions or 0, 8 * self._program.length)

    def matches(self, data: Any, frames: Array) -> Array:
        """Return which frames of the buffer match, bool. Costs some 0.5 µs a frame."""
        base = np.frombuffer(data, "u1").ctypes.data
        run, program = self._library.bpf_filter, self._program.instructions
        fields = frames[["at", "original", "captured"]].tolist()
        found = [run(program, base + at, original, captured) for at, original, captured in fields]
        return np.array(found, bool)


class Filters:
    """One expression for frames of any link type; for Ethernet it is compiled at once.

    Raises:
        UsageError: the expression is none.
        MissingError: there is no libpcap.
    """

    def __init__(self, expression: str, where: str) -> None:
        self._expression = expression
        self._where = where
        self._compiled = {LINK_ETHERNET: Filter(expression, LINK_ETHERNET, where)}

    def matches(self, data: Any, frames: Array) -> Array:
        """Return which frames of the buffer match, bool.

        Raises:
            UsageError: the expression has no meaning for a link type of theirs.
        """
        found = np.zeros(len(frames), bool)
        for link in np.unique(frames["link"]).tolist():
            if link not in self._compiled:
                self._compiled[link] = Filter(self._expression, link, self._where)
            of_it = frames["link"] == link
            found[of_it] = self._compiled[link].matches(data, frames[of_it])
        return found
