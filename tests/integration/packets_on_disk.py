"""Holds the packets of each transfer, as `perfmeasure query` gives them, against the database."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from perfmeasure import jsonio
from perfmeasure.cli import run

_ROUNDING_SECONDS = 0.000_002
_NEAR_SECONDS = 0.050_002


class Packet(NamedTuple):
    """What tshark says of one."""

    unix_ts: float
    ports: frozenset[int]
    is_first: bool
    captured_bytes: int


def asked_for(prefix: Path, expression: str) -> list[Packet]:
    """Return the packets of a query, as tshark reads them."""
    path = prefix.parent / "answer.pcap"
    assert run(["query", "--prefix", str(prefix), expression, "-w", str(path)]) == 0
    return read(path)


def read(path: Path) -> list[Packet]:
    """Return the packets of a file, as tshark reads them."""
    fields = ["frame.time_epoch", "tcp.srcport", "tcp.dstport", "tcp.flags", "frame.cap_len"]
    argv = ["tshark", "-r", str(path), "-T", "fields", *(f"-e{name}" for name in fields)]
    ran = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    found = []
    for line in ran.stdout.splitlines():
        unix_ts, source, target, flags, size = line.split("\t")
        is_first = int(flags, 16) & 0x12 == 0x02
        ports = frozenset({int(source), int(target)})
        found.append(Packet(float(unix_ts), ports, is_first, int(size)))
    return found


def ports_of_guards(host: dict[str, Any], transfer: dict[str, Any]) -> Iterator[frozenset[int]]:
    """Yield the ports of tor's connections to the first relays of the transfer's circuits."""
    circuits, connections = host["tor"]["circuits"], host["kernel"]["connections"]
    own = circuits[transfer["links"]["circuit"]]
    for circuit in [own, *(circuits[name] for name in own.get("conflux_circuits", ()))]:
        if "guard_connection" in circuit:
            guard = connections[circuit["guard_connection"]]
            yield frozenset({guard["local_port"], guard["remote_port"]})


def check_packets_of_transfers(prefix: Path, host: dict[str, Any]) -> int:
    """Check each transfer that is linked; return how many packets there were on ways to guards."""
    to_guards = 0
    for name, transfer in host["tgen"]["transfers"].items():
        packets = asked_for(prefix, f"transfer {name}")
        on_disk = transfer["packets"]
        assert on_disk["count"] == len(packets), name
        assert on_disk["bytes"] == sum(packet.captured_bytes for packet in packets), name
        assert "lost" not in on_disk
        own = frozenset(
            int(transfer[end].rpartition(":")[2]) for end in ("endpoint_local", "endpoint_proxy")
        )
        guards = set(ports_of_guards(host, transfer)) if "circuit" in transfer["links"] else set()
        assert {packet.ports for packet in packets} <= {own, *guards}, name
        begin, end = transfer["unix_ts_start"], transfer["unix_ts_end"]
        closed = host["kernel"]["connections"][transfer["links"]["connection"]]["unix_ts_end"]
        for packet in packets:
            if packet.ports == own:
                assert begin - _NEAR_SECONDS <= packet.unix_ts, name
                assert packet.unix_ts <= max(end, closed) + _NEAR_SECONDS, name
            else:
                assert begin - _ROUNDING_SECONDS <= packet.unix_ts <= end + _ROUNDING_SECONDS, name
                to_guards += 1
        firsts = [packet for packet in packets if packet.is_first]
        assert [packet.ports for packet in firsts] == [own], name
        assert asked_for(prefix, f"transfer {name} and circuit {transfer['links']['circuit']}")
    return to_guards


def check_published_packets(prefix: Path) -> list[str]:
    """Check the packets in the docroot; return the names of their files."""
    docroot = prefix / "docroot"
    names = []
    for path in sorted(docroot.glob("figures/*/transfers-*.json")):
        for transfer in jsonio.loads(path.read_bytes())["transfers"]:
            file = transfer["packets_file"]
            published = read(docroot / file["name"])
            assert len(published) == file["count"], transfer["id"]
            assert set(asked_for(prefix, f"transfer {transfer['id']}")) <= set(published)
            names.append(file["name"])
    listed = {file["name"] for file in jsonio.loads((docroot / "index.json").read_bytes())["files"]}
    assert set(names) == {name for name in listed if name.startswith("packets/")}
    assert len(names) == len(set(names)) == 10
    return names
