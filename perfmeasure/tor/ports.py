"""Free TCP ports on loopback for programs that are started a moment later."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

from perfmeasure.errors import MeasurementError

LOOPBACK = "127.0.0.1"
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_TRIES = 2000


def free_ports(count: int, choose: random.Random | None = None) -> list[int]:
    """Return ``count`` different ports on 127.0.0.1 on which nothing listens.

    They lie below the kernel's range for outgoing connections, of which one could otherwise take
    a port between now and the program's start.

    Raises:
        MeasurementError: so many are not free.
    """
    if count == 0:
        return []
    choose = choose or random.SystemRandom()
    highest = _first_outgoing_port() - 1
    if highest - _LOWEST < 1000:  # an unusual setting leaves no room below; share the range
        highest = 65_000
    found: list[int] = []
    for _ in range(_TRIES):
        port = choose.randint(_LOWEST, highest)
        if port not in found and is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise MeasurementError(
        f"ports {_LOWEST} to {highest}",
        f"only {len(found)} of {_TRIES} tried are free",
        f"{count} ports on {LOOPBACK}",
        "stop programs that are not needed",
    )


def is_free(port: int) -> bool:
    """Return whether a program could listen on ``port`` of 127.0.0.1 now."""
    with socket.socket() as listener:
        # As tor does: a connection of the past (TIME_WAIT) is no obstacle, a listener is.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _first_outgoing_port() -> int:
    try:
        return int(_RANGE.read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
