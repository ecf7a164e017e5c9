"""Datagrams with known contents, fed to the counting program without a network."""

from __future__ import annotations

import ipaddress
import random
import struct
from typing import NamedTuple

import numpy as np

from perfmeasure.flows import bpfcall, keys
from perfmeasure.flows.keys import Array
from perfmeasure.flows.windows import Windows

INGRESS = "count_ingress"


class Datagram(NamedTuple):
    """One frame of a UDP flow."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    payload_bytes: int

    def frame(self) -> bytes:
        source = ipaddress.ip_address(self.source)
        destination = ipaddress.ip_address(self.destination)
        length = 8 + self.payload_bytes
        udp = struct.pack(">HHHH", self.source_port, self.destination_port, length, 0)
        if source.version == 4:
            ip_type = 0x0800
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0)
        else:
            ip_type = 0x86DD
            ip = struct.pack(">IHBB", 6 << 28, length, 17, 64)
        addresses = source.packed + destination.packed
        ethernet = bytes(12) + struct.pack(">H", ip_type)
        return ethernet + ip + addresses + udp + bytes(self.payload_bytes)


def random_datagrams(seed: int, count: int) -> list[Datagram]:
    """Return so many flows, of both kinds of addresses, in a few networks."""
    draw = random.Random(seed)
    flows: set[Datagram] = set()
    while len(flows) < count:
        # In few networks, which differ just before and just after where prefixes are cut.
        if draw.random() < 0.7:
            ends = [
                f"10.{draw.choice((0, 1, 127, 128))}.{draw.choice((0, 15, 16))}"
                f".{draw.randrange(256)}"
                for _ in "12"
            ]
        else:
            ends = [
                f"2001:db8:{draw.choice((0, 1, 0x8000)):x}:{draw.choice((0, 0x40, 0x80, 0xFFFF)):x}"
                f":{draw.randrange(65536):x}::{draw.randrange(65536):x}"
                for _ in "12"
            ]
        ports = draw.randrange(1024, 65536), draw.choice((53, 443, 9001))
        flows.add(Datagram(ends[0], ports[0], ends[1], ports[1], draw.randrange(64)))
    return sorted(flows, key=lambda flow: flow.source_port)


def feed(windows: Windows, flow: Datagram, repeat: int = 1) -> None:
    """Have the kernel count a datagram so many times."""
    bpfcall.test_run(windows.program.fd(INGRESS), flow.frame(), repeat)


def address(row: Array, end: str) -> str:
    """Return an address of a row of a table."""
    return keys.address_text(row[f"{end}_ip"].tobytes())


def made_up_table(seed: int, flows: int, of: int) -> Array:
    """Return a window's table without a kernel: ``flows`` different flows out of ``of``."""
    draw = np.random.default_rng(seed)
    table = np.zeros(flows, keys.TABLE)
    table["src_port"] = draw.permutation(of)[:flows]
    table["protocol"] = np.where(table["src_port"] % 3, 6, 17)
    table["direction"] = table["src_port"] % 2
    # A few large ones, many small ones, and always the same ones large.
    table["packets"] = 1 + draw.integers(0, 5, flows) + 2000 // (1 + table["src_port"])
    table["bytes"] = table["packets"] * draw.integers(60, 1500, flows, dtype=np.uint64)
    table["first_ns"], table["last_ns"] = 1, 2
    return table
