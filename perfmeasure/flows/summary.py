"""What a run saw, for people and as JSON: top talkers, services, the reduction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmeasure.flows.keys import DIRECTIONS, KEY, VALUE, Array, address_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from perfmeasure.flows.times import KernelTimes

RAW_RECORD_BYTES = 64
"""What one event a packet would take: key, time, length and flags, padded."""

SUMMARY_BYTES = KEY.itemsize + VALUE.itemsize
"""What one flow in one window takes."""

TCP = 6
_PROTOCOLS = {1: "ICMP", TCP: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


def protocol_name(number: int) -> str:
    """Return the name of the commonest protocols, else the number."""
    return _PROTOCOLS.get(number, str(number))


def top(table: Array, count: int | None) -> Array:
    """Return the ``count`` rows with the most packets, then bytes, in that order; all if None."""
    order = np.lexsort((table["bytes"], table["packets"]))[::-1]
    return table[order[:count]]


def flow_fields(
    table: Array, interface_names: Mapping[int, str], times: KernelTimes
) -> list[dict[str, Any]]:
    """Return the rows as they stand in the JSON document (docs/formats.md)."""
    if not len(table):
        return []
    first, last = times.unix_ts(table["first_ns"]), times.unix_ts(table["last_ns"])
    texts: dict[bytes, str] = {}

    def text(address: bytes) -> str:
        if address not in texts:
            texts[address] = address_text(address)
        return texts[address]

    found = []
    for row, first_unix_ts, last_unix_ts in zip(table, first.tolist(), last.tolist(), strict=True):
        flow = {
            "interface": interface_names[int(row["interface"])],
            "direction": DIRECTIONS[row["direction"]],
            "src_ip": text(row["src_ip"].tobytes()),
            "src_port": int(row["src_port"]),
            "dst_ip": text(row["dst_ip"].tobytes()),
            "dst_port": int(row["dst_port"]),
            "protocol": int(row["protocol"]),
            "packets": int(row["packets"]),
            "bytes": int(row["bytes"]),
            "segments": int(row["segments"]),
            "first_seen_unix_ts": first_unix_ts,
            "last_seen_unix_ts": last_unix_ts,
        }
        if flow["protocol"] == TCP:
            flow |= {name: int(row[name]) for name in ("tcp_flags", "connects", "closes")}
        found.append(flow)
    return found


@dataclass
class Service:
    """What one client and one service exchanged, as one interface saw it."""

    interface: str
    client_ip: str
    service_ip: str
    service_port: int
    protocol: int
    packets: int = 0
    bytes: int = 0
    connects: int = 0
    """Segments with SYN and without ACK; one that was sent again counts again."""
    closes_by_client: int = 0
    """Segments with FIN or RST."""
    closes_by_service: int = 0

    def fields(self) -> dict[str, Any]:
        """Return this as it stands in the JSON document."""
        fields = dict(vars(self))
        if self.protocol != TCP:
            for name in ("connects", "closes_by_client", "closes_by_service"):
                del fields[name]
        return fields

    def line(self) -> str:
        """Return ``TCP connects: CLIENT → SERVICE:PORT (count: 1,000,000)`` and the rest."""
        host = f"[{self.service_ip}]" if ":" in self.service_ip else self.service_ip
        name = protocol_name(self.protocol)
        pair = f"{self.client_ip} → {host}:{self.service_port}"
        rest = f"packets {self.packets:,}, bytes {self.bytes:,}"
        if self.protocol != TCP:
            return f"{name}: {pair} ({rest})"
        closes = max(self.closes_by_client, self.closes_by_service)
        return f"{name} connects: {pair} (count: {self.connects:,}), closes {closes:,}, {rest}"


def services(table: Array, interface_names: Mapping[int, str]) -> list[Service]:
    """Return what a table keyed by service says, both ways together, the most connects first.

    Rows without ports (other protocols, fragments) belong to no service.
    """
    found: dict[tuple[Any, ...], Service] = {}
    for row, is_to_service in _service_rows(table):
        client, service = ("src", "dst") if is_to_service else ("dst", "src")
        identity = (
            interface_names[int(row["interface"])],
            address_text(row[f"{client}_ip"].tobytes()),
            address_text(row[f"{service}_ip"].tobytes()),
            int(row[f"{service}_port"]),
            int(row["protocol"]),
        )
        entry = found.setdefault(identity, Service(*identity))
        entry.packets += int(row["packets"])
        entry.bytes += int(row["bytes"])
        entry.connects += int(row["connects"])
        if is_to_service:
            entry.closes_by_client += int(row["closes"])
        else:
            entry.closes_by_service += int(row["closes"])
    return sorted(found.values(), key=lambda entry: (-entry.connects, -entry.packets))


def _service_rows(table: Array) -> Iterator[tuple[Any, bool]]:
    for row in table:
        if row["src_port"] or row["dst_port"]:
            yield row, not row["src_port"]


@dataclass(frozen=True)
class Reduction:
    """One event a packet against one summary for each flow and window."""

    packets: int
    summaries: int
    seconds: float

    @property
    def ratio(self) -> float:
        """Packets for each summary; 0 if there was none."""
        return self.packets / self.summaries if self.summaries else 0.0

    @property
    def raw_bytes_per_second(self) -> float:
        """What events would have taken."""
        return self.packets * RAW_RECORD_BYTES / self.seconds if self.seconds else 0.0

    @property
    def aggregated_bytes_per_second(self) -> float:
        """What the summaries take."""
        return self.summaries * SUMMARY_BYTES / self.seconds if self.seconds else 0.0

    def fields(self) -> dict[str, Any]:
        """Return this as it stands in the JSON document."""
        return {
            "packets": self.packets,
            "summaries": self.summaries,
            "ratio": round(self.ratio, 3),
            "raw_bytes_per_second": round(self.raw_bytes_per_second, 1),
            "aggregated_bytes_per_second": round(self.aggregated_bytes_per_second, 1),
        }
