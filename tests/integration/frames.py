"""Frames for the packet parser: a seeded corpus, captures, and tshark's reading of them."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

Flow = tuple[str, str, int, int, int]
"""Source, destination, their ports, protocol."""

UNREADABLE: Flow = ("", "", 0, 0, -1)

_PORTS = (53, 80, 443, 1024, 40000, 65535)
_V4 = tuple(socket.inet_aton(f"10.0.{n}.{n}") for n in range(1, 6))
_V6 = tuple(socket.inet_pton(socket.AF_INET6, f"2001:db8::{n:x}") for n in range(1, 6))
_TAGS = (b"\x81\x00", b"\x88\xa8")
_ETHERNET = bytes.fromhex("020000000001020000000002")
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AH, _DESTINATION = 0, 43, 44, 51, 60


@dataclass(frozen=True)
class Reading:
    """What somebody makes of many frames."""

    flows: dict[Flow, tuple[int, int]]
    """Packets and bytes."""
    unparsed: tuple[int, int]


def sum_up(frames: list[bytes], flows: list[Flow | None]) -> Reading:
    """Return the packets and bytes of each flow, given the flow of each frame."""
    packets: Counter[Flow | None] = Counter()
    sizes: Counter[Flow | None] = Counter()
    for frame, flow in zip(frames, flows, strict=True):
        packets[flow] += 1
        sizes[flow] += len(frame)
    summed = {flow: (packets[flow], sizes[flow]) for flow in packets if flow is not None}
    return Reading(summed, (packets[None], sizes[None]))


def _transport(draw: random.Random, protocol: int) -> bytes:
    ports = struct.pack("!HH", draw.choice(_PORTS), draw.choice(_PORTS))
    payload = draw.randbytes(draw.randrange(40))
    if protocol == 6:
        return ports + struct.pack("!IIBBHHH", 1, 1, 0x50, draw.randrange(256), 99, 0, 0) + payload
    if protocol == 17:
        return ports + struct.pack("!HH", 8 + len(payload), 0) + payload
    if protocol == 132:
        return ports + bytes(8) + struct.pack("!BBH", 0, 0, 4 + len(payload)) + payload
    return bytes((draw.randrange(256), 0, 0, 0)) + payload


def _protocol(draw: random.Random) -> int:
    return draw.choice((6, 6, 6, 17, 17, 17, 132, 1, 58, 47, 50, 89, 253))


def _ipv4(draw: random.Random) -> bytes:
    protocol = _protocol(draw)
    body = _transport(draw, protocol)
    options = bytes([1]) * (4 * draw.choice((0, 0, 0, 1, 3, 10)))
    fragment = draw.choice((0, 0, 0, 0, 0x4000, 0x2000, 0x2000 | 1, 185, 0x1FFF))
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(body),
        draw.randrange(65536), fragment, 64, protocol, 0, draw.choice(_V4), draw.choice(_V4),
    )  # fmt: skip
    return header + options + body


def _ipv6(draw: random.Random) -> bytes:
    protocol = _protocol(draw)
    body = _transport(draw, protocol)
    kinds = draw.choices(
        (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AH, _DESTINATION),
        k=draw.choice((0, 0, 0, 1, 1, 2, 3, 4, 8, 9)),
    )
    for kind in reversed(kinds):
        if kind == _FRAGMENT:
            # A later fragment begins anywhere, but there is no later header to be seen in it.
            offset = draw.choice((0, 0, 1, 1 << 3 | 1, 0xFFF8))
            header = struct.pack("!BBHI", protocol, draw.choice((0, 255)), offset, 7)
        elif kind == _AH:
            words = draw.choice((1, 4))
            header = struct.pack("!BBHI", protocol, words, 0, 5) + bytes(4 * words)
        else:
            units = draw.choice((0, 0, 1, 3))
            size = 8 * units + 8
            if kind == _ROUTING:
                header = struct.pack("!BBBB", protocol, units, 253, 0) + bytes(size - 4)
            else:
                header = struct.pack("!BBBB", protocol, units, 1, size - 4) + bytes(size - 4)
        body, protocol = header + body, kind
    return (
        struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
        + draw.choice(_V6) + draw.choice(_V6) + body
    )  # fmt: skip


def random_frames(count: int, seed: int = 1) -> list[bytes]:
    """Return frames of at least 14 bytes: 0 to 3 tags, options, headers, fragments, damage."""
    draw = random.Random(seed)
    frames = []
    for _ in range(count):
        is_v6 = draw.random() < 0.5
        body = _ipv6(draw) if is_v6 else _ipv4(draw)
        kind = b"\x86\xdd" if is_v6 else b"\x08\x00"
        for _ in range(draw.choice((0, 0, 0, 0, 1, 1, 2, 3))):
            body, kind = struct.pack("!H", draw.randrange(4096)) + kind + body, draw.choice(_TAGS)
        if draw.random() < 0.02:
            body, kind = draw.randbytes(46), draw.choice((b"\x08\x06", b"\x00\x2e", b"\x88\xcc"))
        frame = bytearray(_ETHERNET + kind + body)
        damage = draw.random()
        if damage < 0.1:
            del frame[draw.randrange(14, len(frame) + 1) :]
        elif damage < 0.2:
            for _ in range(draw.choice((1, 1, 2, 5))):
                bit = draw.randrange(8 * 12, 8 * len(frame))
                frame[bit // 8] ^= 1 << bit % 8
        elif damage < 0.3:
            frame += bytes(draw.randrange(1, 30))  # padding, which is no part of the packet
        frames.append(bytes(frame))
    return frames


def write_pcap(path: Path, frames: list[bytes]) -> None:
    """Write a capture with nothing cut."""
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for number, frame in enumerate(frames):
            file.write(struct.pack("=IIII", number, 0, len(frame), len(frame)) + frame)


def read_capture(path: Path, folder: Path) -> list[bytes]:
    """Return the Ethernet frames of any capture that tshark can read, as far as they were kept."""
    plain = folder / "plain.pcap"
    # A capture that ends in a damaged record gives what comes before it, and status 2.
    subprocess.run(
        ["tshark", "-r", path, "-F", "pcap", "-w", plain], capture_output=True, check=False
    )
    data = plain.read_bytes()
    assert data[:4] == struct.pack("=I", 0xA1B2C3D4)
    if struct.unpack_from("=I", data, 20)[0] & 0xFFFF != 1:
        return []  # no Ethernet
    frames, at = [], 24
    while at < len(data):
        kept = struct.unpack_from("=I", data, at + 8)[0]
        frames.append(data[at + 16 : at + 16 + kept])
        at += 16 + kept
    return frames


# ---- tshark -------------------------------------------------------------------------------------

_ALLOWED = (
    *("frame", "eth", "ethertype", "vlan", "ieee8021ad", "ip", "ipv6", "ipv6.hopopts", "ah"),
    *("ipv6.routing", "ipv6.fraghdr", "ipv6.dstopts", "tcp", "udp", "sctp", "data"),
)
_OPTIONS = ("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE")
_NEXT = {
    _HOP_BY_HOP: "ipv6.hopopts.nxt",
    _ROUTING: "ipv6.routing.nxt",
    _FRAGMENT: "ipv6.fraghdr.nxt",
    _AH: "ah.next_header",
    _DESTINATION: "ipv6.dstopts.nxt",
}
_NEXT_LAYERS = {name.rpartition(".")[0] for name in _NEXT.values()}
_FIELDS = (
    *("frame.len", "frame.protocols", "ieee8021ad.svid", "_ws.malformed", "_ws.unreassembled"),
    *("ip.src", "ip.dst", "ip.proto", "ip.frag_offset", "ipv6.src", "ipv6.dst", "ipv6.nxt"),
    *("tcp.srcport", "tcp.dstport", "tcp.hdr_len", "udp.srcport", "udp.dstport"),
    *("sctp.srcport", "sctp.dstport", "ipv6.fraghdr.offset", *_NEXT.values()),
)
_PORT_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}
_MOST_EXTENSIONS = 8


def read_by_tshark(frames: list[bytes], folder: Path) -> list[Flow | None]:
    """Return the flow of each frame as tshark sees it, by the rules at the head of bpf/packet.h.

    None is a frame without one. `UNREADABLE` stands where tshark breaks off at an option that it
    cannot read, and so does not tell what comes after the header.
    """
    capture = folder / "frames.pcap"
    write_pcap(capture, frames)
    config = folder / "wireshark"
    config.mkdir(exist_ok=True)
    environment = {**os.environ, "WIRESHARK_CONFIG_DIR": str(config), "HOME": str(folder)}
    listed = subprocess.run(
        ["tshark", "-G", "protocols"], capture_output=True, text=True, check=True, env=environment
    ).stdout
    # What is inside of the transport's payload is not asked about, and would cost time.
    names = {line.split("\t")[2] for line in listed.splitlines() if line.count("\t") >= 2}
    (config / "disabled_protos").write_text("\n".join(sorted(names - set(_ALLOWED))) + "\n")
    command = ["tshark", "-n", "-r", str(capture), "-T", "fields", "-E", "occurrence=a"]
    for option in _OPTIONS:
        command += ["-o", option]
    for name in _FIELDS:
        command += ["-e", name]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    rows = [dict(zip(_FIELDS, line.split("\t"), strict=True)) for line in output.splitlines()]
    assert len(rows) == len(frames)
    return [_flow(row) for row in rows]


def _flow(row: dict[str, str]) -> Flow | None:
    layers = row["frame.protocols"].split(":")
    if (row["_ws.malformed"] or row["_ws.unreassembled"]) and layers[-1] in _NEXT_LAYERS:
        # Cut within an extension header, unless it is an option that is wrong.
        return UNREADABLE if layers[-1] in ("ipv6.hopopts", "ipv6.dstopts") else None
    outer = next((layer for layer in layers if layer in ("ip", "ipv6")), None)
    before = layers[: layers.index(outer)] if outer else layers
    # Of two 802.1ad tags in a row tshark makes one layer, which then has a second number.
    tags = sum(layer in ("vlan", "ieee8021ad") for layer in before)
    tags += len(row["ieee8021ad.svid"].split(",")) if row["ieee8021ad.svid"] else 0
    if outer is None or tags > 2:
        return None
    if row["_ws.malformed"] and outer == layers[-1] == "ip" and layers.count("ip") == 1:
        return None  # cut within the options
    addresses = _first(row[f"{outer}.src"]), _first(row[f"{outer}.dst"])
    last = _last_header(row) if outer == "ipv6" else _ipv4_header(row)
    if not addresses[1] or last is None:
        return None
    return _with_ports(row, addresses, *last)


def _with_ports(
    row: dict[str, str], addresses: tuple[str, str], protocol: int, is_later: bool
) -> Flow | None:
    if is_later or protocol not in _PORT_NAMES:
        return *addresses, 0, 0, protocol
    name = _PORT_NAMES[protocol]
    if not row[f"{name}.dstport"] or (name == "tcp" and not row["tcp.hdr_len"]):
        return None  # cut
    source_port = int(_first(row[f"{name}.srcport"]))
    destination_port = int(_first(row[f"{name}.dstport"]))
    return *addresses, source_port, destination_port, protocol


def _ipv4_header(row: dict[str, str]) -> tuple[int, bool] | None:
    """Return the protocol and whether the packet is a later fragment."""
    if not row["ip.proto"]:
        return None
    return int(_first(row["ip.proto"])), int(_first(row["ip.frag_offset"])) != 0


def _last_header(row: dict[str, str]) -> tuple[int, bool] | None:
    """Return the protocol at the end of the chain and whether it is in a later fragment."""
    if not row["ipv6.nxt"]:
        return None
    left = {kind: row[name].split(",") if row[name] else [] for kind, name in _NEXT.items()}
    offsets = row["ipv6.fraghdr.offset"].split(",")
    protocol = int(_first(row["ipv6.nxt"]))
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in left:
            return protocol, False
        if not left[protocol]:
            return None  # cut
        kind, protocol = protocol, int(left[protocol].pop(0))
        if kind == _FRAGMENT and int(offsets.pop(0)):
            return protocol, True
    return None if protocol in left else (protocol, False)


def _first(values: str) -> str:
    return values.partition(",")[0]
