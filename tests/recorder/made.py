"""Packets and capture files made for tests, with a decoder that shares nothing with ours."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterable
from typing import NamedTuple

START_NS = 1_700_000_000 * 10**9
FIN, SYN, RST, ACK = 1, 2, 4, 16


class Timed(NamedTuple):
    """A frame and when it came (Unix ns)."""

    ts_ns: int
    frame: bytes


class Fields(NamedTuple):
    """What a frame is found by; ports are 0 where there are none, addresses empty."""

    src: str = ""
    dst: str = ""
    src_port: int = 0
    dst_port: int = 0
    protocol: int = -1
    vlans: tuple[int, ...] = ()


def ip(
    src: str, dst: str, protocol: int, payload: bytes, *, fragment: int = 0, options: bytes = b""
) -> bytes:
    """Return an IP packet; ``fragment`` is the field of that name (IPv4)."""
    a, b = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    if a.version == 6:
        head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
        return head + a.packed + b.packed + payload
    words = 5 + len(options) // 4
    size = words * 4 + len(payload)
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, size, 7, fragment, 64, protocol, 0)
    return head + a.packed + b.packed + options + payload


def tcp(  # noqa: PLR0917 - in the order in which one says it
    src: str, src_port: int, dst: str, dst_port: int, size: int = 0, flags: int = ACK
) -> bytes:
    """Return an IP packet with a TCP segment of ``size`` bytes of data."""
    segment = struct.pack(">HHIIBBHHH", src_port, dst_port, 1, 1, 0x50, flags, 1000, 0, 0)
    return ip(src, dst, 6, segment + bytes(i & 255 for i in range(size)))


def udp(src: str, src_port: int, dst: str, dst_port: int, size: int = 0) -> bytes:
    """Return an IP packet with a UDP datagram of ``size`` bytes of data."""
    return ip(src, dst, 17, struct.pack(">HHHH", src_port, dst_port, 8 + size, 0) + bytes(size))


def type_of(packet: bytes) -> int:
    """Return the EtherType of an IP packet."""
    return 0x86DD if packet[0] >> 4 == 6 else 0x0800


def ethernet(packet: bytes, *, vlans: Iterable[int] = (), ether_type: int | None = None) -> bytes:
    """Return an Ethernet frame with VLAN tags."""
    head = bytes.fromhex("020000000001020000000002")
    for vlan in vlans:
        head += struct.pack(">HH", 0x8100, vlan)
    return head + struct.pack(">H", ether_type or type_of(packet)) + packet


ARP = ethernet(bytes.fromhex("0001080006040001") + bytes(20), ether_type=0x0806)


def framed(packet: bytes, link: int) -> bytes:
    """Return an IP packet as a frame of a link type."""
    kind = struct.pack(">H", type_of(packet))
    is_6 = packet[0] >> 4 == 6
    heads = {
        0: struct.pack("<I", 30 if is_6 else 2),
        1: ethernet(packet)[:14],
        101: b"",
        108: struct.pack(">I", 24 if is_6 else 2),
        113: bytes.fromhex("0000000100060200000000010000") + kind,
        228: b"",
        229: b"",
        276: kind + bytes.fromhex("0000000000010001000602000000000100") + b"\0",
    }
    return heads[link] + packet


def pcap(
    packets: Iterable[Timed], *, order: str = "<", is_ns: bool = True, link: int = 1, snap: int = 0
) -> bytes:
    """Return a capture file of pcap; ``snap`` cuts frames to so many bytes."""
    magic = 0xA1B23C4D if is_ns else 0xA1B2C3D4
    out = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for ts_ns, frame in packets:
        kept = frame[:snap] if snap else frame
        fraction = ts_ns % 10**9 // (1 if is_ns else 1000)
        out.append(
            struct.pack(f"{order}IIII", ts_ns // 10**9, fraction, len(kept), len(frame)) + kept
        )
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """Return a block of pcapng."""
    length = len(body) + 12
    return struct.pack(f"{order}II", kind, length) + body + struct.pack(f"{order}I", length)


def section(order: str = "<") -> bytes:
    """Return a section header block."""
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int, order: str = "<", options: bytes = b"", snap: int = 0) -> bytes:
    """Return an interface description block."""
    return block(1, struct.pack(f"{order}HHI", link, 0, snap) + options, order)


def enhanced(number: int, ticks: int, frame: bytes, order: str = "<") -> bytes:
    """Return an enhanced packet block."""
    head = struct.pack(f"{order}5I", number, ticks >> 32, ticks & 2**32 - 1, len(frame), len(frame))
    return block(6, head + frame + bytes(-len(frame) % 4), order)


def trace(seed: int, count: int, connections: int = 400) -> list[Timed]:
    """Return packets of many connections: TCP, UDP, ICMP, IPv6, fragments, VLANs, ARP.

    Addresses and ports are few, so that keys have many packets; times grow by up to 2 ms, and now
    and then not at all or back by one.
    """
    rng = random.Random(seed)
    hosts = [f"10.0.{n >> 8}.{n & 255}" for n in range(1, 40)]
    hosts6 = [f"2001:db8::{n:x}" for n in range(1, 12)]
    ends = []
    for _ in range(connections):
        pool = hosts6 if rng.random() < 0.2 else hosts
        a, b = rng.sample(pool, 2)
        vlans = rng.choice([(), (), (), (7,), (7, 9)])
        ports = rng.choice([80, 443, 9001, 1024]), rng.randrange(1024, 1040)
        ends.append((a, b, rng.choice(["tcp", "tcp", "udp", "icmp"]), *ports, vlans))
    ends.append(("10.9.9.9", "10.9.9.9", "tcp", 80, 81, ()))
    packets = []
    now = START_NS
    for _ in range(count):
        now += rng.choice([rng.randrange(2_000_000), 0, -1])
        if rng.random() < 0.01:
            packets.append(Timed(now, ARP))
            continue
        a, b, kind, a_port, b_port, vlans = ends[int(connections * rng.random() ** 3)]
        if rng.random() < 0.5:
            a, b, a_port, b_port = b, a, b_port, a_port
        size = rng.randrange(200)
        if kind == "icmp":
            packet = ip(a, b, 58 if ":" in a else 1, bytes(8 + size))
        elif kind == "udp" and rng.random() < 0.05 and ":" not in a:
            packet = ip(a, b, 17, bytes(size), fragment=100)
        else:
            packet = (tcp if kind == "tcp" else udp)(a, a_port, b, b_port, size)
        packets.append(Timed(now, ethernet(packet, vlans=vlans)))
    return packets


def fields(frame: bytes) -> Fields:
    """Return what a frame of `trace` is found by."""
    at, vlans = 12, []
    while frame[at : at + 2] == b"\x81\x00":
        vlans.append(int.from_bytes(frame[at + 2 : at + 4], "big") & 4095)
        at += 4
    kind, at = int.from_bytes(frame[at : at + 2], "big"), at + 2
    if kind == 0x0800:
        src, dst = (str(ipaddress.IPv4Address(frame[at + o : at + o + 4])) for o in (12, 16))
        protocol, has_ports = (
            frame[at + 9],
            not int.from_bytes(frame[at + 6 : at + 8], "big") & 8191,
        )
        at += (frame[at] & 15) * 4
    elif kind == 0x86DD:
        src, dst = (str(ipaddress.IPv6Address(frame[at + o : at + o + 16])) for o in (8, 24))
        protocol, has_ports = frame[at + 6], True
        at += 40
    else:
        return Fields(vlans=tuple(vlans))
    src_port = dst_port = 0
    if has_ports and protocol in (6, 17):
        src_port, dst_port = struct.unpack_from(">HH", frame, at)
    return Fields(src, dst, src_port, dst_port, protocol, tuple(vlans))


def keys_of(frame: bytes) -> dict[str, list[str]]:
    """Return the keys of every index under which a frame is found, from the decoder above."""
    return keys_of_fields(fields(frame))


def keys_of_fields(found: Fields) -> dict[str, list[str]]:
    if not found.src:
        return {}
    name = {6: "tcp", 17: "udp"}.get(found.protocol, str(found.protocol))
    src, dst = (f"[{ip}]" if ":" in ip else ip for ip in (found.src, found.dst))
    keys = {
        "connection4": sorted(
            {f"{name} {src}:{found.src_port} {dst}:{found.dst_port}",
             f"{name} {dst}:{found.dst_port} {src}:{found.src_port}"}
        ),
        "connection3": [
            f"{name} {src} {dst}:{found.dst_port}", f"{name} {dst} {src}:{found.src_port}"
        ],
        "connection2": [f"{src} {dst}", f"{dst} {src}"],
        "ip": [found.src, found.dst],
        "srcip": [found.src],
        "dstip": [found.dst],
    }  # fmt: skip
    if found.src_port or found.dst_port:
        keys["port"] = [str(found.src_port), str(found.dst_port)]
        keys["srcport"], keys["dstport"] = [str(found.src_port)], [str(found.dst_port)]
    return keys
