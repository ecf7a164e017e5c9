"""Keys of the indexes as people write them, and as conditions on rows and directions of an index.

The names and the grammar are the original Time Machine's: ``connection4
"tcp 1.2.3.4:80 5.6.7.8:88"`` (the order of the ends does not matter, but each port stays with its
address), ``connection3 "tcp 1.2.3.4 5.6.7.8:80"`` (the port is the second address's),
``connection2 "1.2.3.4 5.6.7.8"``, ``ip "1.2.3.4"``. IPv6 stands in brackets: ``[2001:db8::1]:80``;
alone it may do without. Beside them ``srcip``, ``dstip``, ``port``, ``srcport`` and ``dstport``.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from dataclasses import dataclass

import numpy as np

from perfmeasure.errors import UsageError
from perfmeasure.recorder.index import IndexView
from perfmeasure.recorder.records import MAPPED, Array

INDEXES = (
    "connection4", "connection3", "connection2", "ip", "port", "srcip", "dstip", "srcport",
    "dstport",
)  # fmt: skip

_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51,
    "icmp6": 58, "ospf": 89, "pim": 103, "vrrp": 112, "sctp": 132,
}  # fmt: skip
_WITH_PORTS = (6, 17, 132)
_NAMES = {number: name for name, number in _PROTOCOLS.items()}

_END = re.compile(r"(?:\[(?P<v6>[^]]*:[^]]*)\]|(?P<v4>[0-9.]*)):(?P<port>[0-9]{1,5})\Z")


class Side(enum.Enum):
    """Which end of a packet a condition is about."""

    ANY = ""
    SOURCE = "src"
    TARGET = "dst"


@dataclass(frozen=True)
class Address:
    """Packets from or to an address, or a net: 16 bytes each, both inclusive."""

    low: bytes
    high: bytes
    side: Side = Side.ANY

    def groups(self, view: IndexView) -> Array:
        """Return which groups of the index match, bool (2, rows)."""
        a, b = view.ends_within(self.low, self.high)
        return _sided(a, b, self.side)


@dataclass(frozen=True)
class Port:
    """Packets from or to a port; of a protocol that has none the port is 0, and does not match."""

    number: int
    side: Side = Side.ANY

    def groups(self, view: IndexView) -> Array:
        """Return which groups of the index match, bool (2, rows)."""
        is_known = (view.a_port > 0) | (view.b_port > 0)  # it is not of a later fragment
        found = _sided(view.a_port == self.number, view.b_port == self.number, self.side)
        return found & is_known & np.isin(view.protocol, _WITH_PORTS)


@dataclass(frozen=True)
class Protocol:
    """Packets of an IP protocol, by its number."""

    number: int

    def groups(self, view: IndexView) -> Array:
        """Return which groups of the index match, bool (2, rows)."""
        return _both((view.protocol == self.number) & view.has_addresses)


@dataclass(frozen=True)
class Vlan:
    """Packets with this VLAN number in one of the first two tags; None for any tag."""

    number: int | None

    def groups(self, view: IndexView) -> Array:
        """Return which groups of the index match, bool (2, rows)."""
        if self.number is None:
            return _both(view.vlan[:, 0] > 0)
        return _both((view.vlan == self.number + 1).any(axis=1))


@dataclass(frozen=True)
class Connection:
    """Packets between two addresses, with what is known of protocol and ports."""

    ends: tuple[bytes, bytes]
    protocol: int | None = None
    ports: tuple[int | None, int | None] = (None, None)

    def groups(self, view: IndexView) -> Array:
        """Return which groups of the index match, bool (2, rows)."""
        (first_a, first_b), (second_a, second_b) = (view.ends_within(end, end) for end in self.ends)
        first, second = self.ports
        straight = first_a & second_b
        turned = first_b & second_a
        if first is not None:
            straight = straight & (view.a_port == first)
            turned = turned & (view.b_port == first)
        if second is not None:
            straight = straight & (view.b_port == second)
            turned = turned & (view.a_port == second)
        found = straight | turned
        if self.protocol is not None:
            found &= view.protocol == self.protocol
        return _both(found)


Key = Address | Port | Protocol | Vlan | Connection


def _both(rows: Array) -> Array:
    return np.stack((rows, rows))


def _sided(a: Array, b: Array, side: Side) -> Array:
    """Return groups from what holds of either end: direction 0 is from ``a`` to ``b``."""
    if side is Side.ANY:
        return _both(a | b)
    return np.stack((a, b) if side is Side.SOURCE else (b, a))


# ---- as text ------------------------------------------------------------------------------------


def address_bytes(text: str) -> bytes | None:
    """Return the 16 bytes of an address, IPv4 mapped into IPv6; None if it is none."""
    try:
        is_bracketed = text[:1] == "[" and text[-1:] == "]"
        address = ipaddress.ip_address(text[1:-1] if is_bracketed else text)
    except ValueError:
        return None
    return address.packed if address.version == 6 else MAPPED + address.packed


def address_text(address: bytes) -> str:
    """Return the usual text of 16 bytes: dotted where an IPv4 address is mapped."""
    if address[:12] == MAPPED:
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def protocol_number(text: str) -> int | None:
    """Return the number of an IP protocol from its name or number; None if it is neither."""
    if text.isascii() and text.isdigit():
        return int(text) if int(text) < 256 else None
    return _PROTOCOLS.get(text.lower())


def has_ports(protocol: int) -> bool:
    """Return whether an IP protocol has ports that are decoded: TCP, UDP and SCTP."""
    return protocol in _WITH_PORTS


def protocol_name(number: int) -> str:
    """Return the name of an IP protocol, or its number where it has none here."""
    return _NAMES.get(number, str(number))


def connection4_text(protocol: int, a: tuple[bytes, int], b: tuple[bytes, int]) -> str:
    """Return the key of a connection as `parse_key` reads it."""
    ends = [
        f"[{address_text(ip)}]:{port}" if ip[:12] != MAPPED else f"{address_text(ip)}:{port}"
        for ip, port in (a, b)
    ]
    return " ".join([protocol_name(protocol), *ends])


def _end(text: str) -> tuple[bytes, int | None] | None:
    if (address := address_bytes(text)) is not None:
        return address, None
    match = _END.match(text)
    address = address_bytes(match["v6"] or match["v4"]) if match else None
    if match is None or address is None or int(match["port"]) > 65535:
        return None
    return address, int(match["port"])


def parse_connection(words: list[str], where: str) -> Connection:
    """Return the key that two ends, or a protocol and two ends, stand for.

    Raises:
        UsageError: they stand for none.
    """
    *protocol_words, first_text, second_text = words if len(words) in (2, 3) else ["", "", "", ""]
    first, second = _end(first_text), _end(second_text)
    protocol = protocol_number(protocol_words[0]) if protocol_words else None
    has_good_ports = (
        first is not None
        and second is not None
        and (
            (first[1] is None and second[1] is None)
            if not protocol_words
            else protocol is not None and second[1] is not None
        )
    )
    if first is None or second is None or not has_good_ports:
        raise UsageError(
            where,
            f"{' '.join(words)!r} is no connection",
            "tcp 1.2.3.4:80 5.6.7.8:88, tcp 1.2.3.4 5.6.7.8:80 (the port is the second's), or "
            "1.2.3.4 5.6.7.8, with IPv6 in brackets",
        )
    return Connection((first[0], second[0]), protocol, (first[1], second[1]))


def parse_key(index: str, text: str) -> Key:
    """Return the key of an index from its text.

    Raises:
        UsageError: there is no such index, or the text is no key of it.
    """
    where = f"index {index}"
    if index.startswith("connection") and index in INDEXES:
        key = parse_connection(text.split(), where)
        known = 2 + (key.ports[0] is not None) + (key.ports[1] is not None)
        if f"connection{known}" == index:
            return key
        raise UsageError(where, f"{text!r} is a key of connection{known}", f"a key of {index}")
    side = Side(index[:3]) if index[:3] in ("src", "dst") else Side.ANY
    name = index.removeprefix(side.value)
    if index not in INDEXES:
        raise UsageError(where, "no such index", ", ".join(INDEXES))
    if name == "ip":
        address = address_bytes(text.strip())
        if address is None:
            raise UsageError(where, f"{text!r} is no address", "such as 1.2.3.4 or 2001:db8::1")
        return Address(address, address, side)
    number = text.strip()
    if not (number.isascii() and number.isdigit() and int(number) <= 65535):
        raise UsageError(where, f"{text!r} is no port", "a number up to 65535")
    return Port(int(number), side)
