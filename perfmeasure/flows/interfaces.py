"""Network interfaces: found by name, counted on by links, and what they count themselves.

A link ends with the process that holds it, whatever ends that: nothing is left attached.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perfmeasure.errors import MissingError, UsageError
from perfmeasure.flows import bpfcall
from perfmeasure.flows.bpfcall import AttachType
from perfmeasure.flows.keys import EGRESS, HOOK_INTERFACES, INGRESS, Total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_BEFORE_OTHERS = 1 << 3  # BPF_F_BEFORE
_XDP_GENERIC = 1 << 1  # XDP_FLAGS_SKB_MODE
# Of the calling thread's network namespace, unlike /sys/class/net of a mount made in another one.
_STATISTICS = Path("/proc/thread-self/net/dev")

FUNCTIONS = {"count_ingress": "SCHED_CLS", "count_egress": "SCHED_CLS", "count_xdp": "XDP"}
"""The functions of ``flows.bpf.c``, and their kinds."""


@dataclass(frozen=True)
class Hook:
    """One place where packets are counted."""

    interface: str
    index: int
    direction: int
    """`INGRESS` or `EGRESS`."""
    is_xdp: bool = False

    @property
    def function(self) -> str:
        """The function of ``flows.bpf.c`` that counts here."""
        if self.is_xdp:
            return "count_xdp"
        return "count_egress" if self.direction == EGRESS else "count_ingress"


def _flags(name: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", name.encode(), 0)
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
    return int(struct.unpack_from("16sH", answer)[1])


def up_interfaces() -> tuple[str, ...]:
    """Return the names of all interfaces of this network namespace that are up."""
    return tuple(name for _, name in socket.if_nameindex() if _flags(name) & _IFF_UP)


def choose_hooks(names: Iterable[str], directions: str, *, is_xdp: bool) -> tuple[Hook, ...]:
    """Return where to count.

    Args:
        names: interfaces of this network namespace.
        directions: ``ingress``, ``egress`` or ``both``; with ``auto`` it is both, but on loopback,
            where each packet that goes out comes in again, only ingress.
        is_xdp: count what comes in with XDP instead of tc.

    Raises:
        UsageError: there is no such interface, or two that the counters cannot tell apart.
    """
    hooks: list[Hook] = []
    for name in dict.fromkeys(names):
        try:
            index = socket.if_nametoindex(name)
            is_loopback = bool(_flags(name) & _IFF_LOOPBACK)
        except OSError as error:
            raise UsageError(
                "--interface", f"there is no interface {name!r}",
                f"one of {', '.join(there for _, there in socket.if_nameindex())}",
            ) from error  # fmt: skip
        chosen = directions
        if directions == "auto":
            chosen = "ingress" if is_loopback else "both"
        if chosen in ("ingress", "both"):
            hooks.append(Hook(name, index, INGRESS, is_xdp))
        if chosen in ("egress", "both"):
            hooks.append(Hook(name, index, EGRESS))
    by_number = {hook.index % HOOK_INTERFACES: hook.interface for hook in hooks}
    for hook in hooks:
        other = by_number[hook.index % HOOK_INTERFACES]
        if other != hook.interface:
            raise UsageError(
                "--interface",
                f"{hook.interface} and {other} cannot be counted together: their indexes are "
                f"the same modulo {HOOK_INTERFACES}",
                next_step="count them by two commands",
            )
    return tuple(hooks)


def names_by_number(hooks: Iterable[Hook]) -> dict[int, str]:
    """Return the names by what `keys.KEY` has in ``interface``."""
    return {hook.index & 0xFFFF: hook.interface for hook in hooks}


def attach(hook: Hook, program_fds: Mapping[str, int]) -> int:
    """Attach the hook's function and return the link, which holds as long as it is open.

    XDP is the driver's own where it has it, else the generic one.

    Raises:
        MissingError: the kernel or the driver has no such hook, or it is taken.
    """
    program_fd = program_fds[hook.function]
    try:
        if not hook.is_xdp:
            if hook.direction == INGRESS:
                # First, to see what others drop; on the way out last, to see what leaves.
                return bpfcall.link_create(
                    program_fd, hook.index, AttachType.TCX_INGRESS, _BEFORE_OTHERS
                )
            return bpfcall.link_create(program_fd, hook.index, AttachType.TCX_EGRESS)
        try:
            return bpfcall.link_create(program_fd, hook.index, AttachType.XDP)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            return bpfcall.link_create(program_fd, hook.index, AttachType.XDP, _XDP_GENERIC)
    except OSError as error:
        raise _not_attached(hook, error) from error


def _not_attached(hook: Hook, error: OSError) -> MissingError:
    where = f"interface {hook.interface}"
    if error.errno == errno.EBUSY:
        return MissingError(
            where, "another program has its XDP hook", next_step="count with --hook tc"
        )
    if error.errno == errno.EPERM:
        return MissingError(
            where, "this process may not attach to it",
            next_step="run as root, or grant CAP_BPF and CAP_NET_ADMIN",
        )  # fmt: skip
    if error.errno == errno.EINVAL and not hook.is_xdp:
        return MissingError(
            where,
            f"the kernel {platform.release()} has no tcx hook",
            "Linux 6.6 or later",
            "count what comes in with --hook xdp --direction ingress",
        )
    return MissingError(where, f"cannot be attached to ({os.strerror(error.errno or 0)})")


def read_statistics(hook: Hook) -> Total:
    """Return what the interface itself counted in the hook's direction since it was made.

    Raises:
        MissingError: the interface is gone.
    """
    for line in _STATISTICS.read_text("ascii").splitlines():
        name, colon, numbers = line.partition(":")
        if colon and name.strip() == hook.interface:
            words = numbers.split()
            at = 8 if hook.direction == EGRESS else 0
            return Total(packets=int(words[at + 1]), bytes=int(words[at]))
    raise MissingError(f"interface {hook.interface}", "is gone")
