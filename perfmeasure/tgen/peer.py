"""A peer: the host and port of an end of a stream or of a SOCKS proxy."""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import NamedTuple

from perfmeasure.errors import UsageError

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_.])?\Z")
_PORT = re.compile(r"\d{1,5}\Z", re.ASCII)


@functools.lru_cache(maxsize=256)
def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


class Peer(NamedTuple):
    """A host, by name or IPv4 address, and a TCP port."""

    host: str
    port: int

    @property
    def is_address(self) -> bool:
        """Whether the host is an IPv4 address."""
        return _is_address(self.host)

    def __str__(self) -> str:
        """Return ``name:address:port`` as TGen's log has it.

        We ask no name server for the name of an address: a log must not cause traffic. So only
        this machine's own address has its name, others ``NULL``.
        """
        if self.host == "localhost":
            return f"localhost:127.0.0.1:{self.port}"
        if not self.is_address:
            return f"{self.host}:0.0.0.0:{self.port}"
        name = "localhost" if self.host.startswith("127.") else "NULL"
        return f"{name}:{self.host}:{self.port}"


NO_PEER = "NULL:0.0.0.0:0"
"""How the log shows the proxy of a stream that has none."""


def parse_peer(text: str) -> Peer:
    """Return the peer in ``HOST:PORT``.

    Raises:
        UsageError: not a name or IPv4 address with a port of 1 to 65535.
    """
    host, _, port = text.rpartition(":")
    if not _HOST.match(host) or not _PORT.match(port) or not 0 < int(port) < 65536:
        raise UsageError("peer", f"{text!r} is not a peer", "HOST:PORT, such as 127.0.0.1:9050")
    if re.fullmatch(r"[\d.]+", host) and not Peer(host, 1).is_address:
        raise UsageError("peer", f"{host!r} is not an IPv4 address", "such as 127.0.0.1")
    return Peer(host, int(port))
