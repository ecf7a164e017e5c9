"""Packets between addresses and services, summed up out of the windows of flows.

The side that calls has another port each time, which would make a row of every connection. So the
caller's port is left out, as in `perfmeasure flows --key service`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from perfmeasure.flows import keys
from perfmeasure.flows.keys import Array
from perfmeasure.flows.windows import Window

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmpv6"}


class TrafficTable:
    """Sums up windows until `flush`.

    Args:
        names: what interfaces are called, by the low 16 bits of their index.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._tables: list[Array] = []
        self._begin_unix_ts = self._end_unix_ts = 0.0

    def add(self, window: Window) -> None:
        """Take one window."""
        if not self._tables:
            self._begin_unix_ts = window.begin_unix_ts
        self._end_unix_ts = window.begin_unix_ts + window.length_ns / 1e9
        self._tables.append(window.flows)

    def flush(self, listening: Iterable[int]) -> list[dict[str, Any]]:
        """Return the lines of all windows since the last call.

        Args:
            listening: ports that somebody of ours listens at. Of two ports, one of these is the
                service's; if that does not tell, the lower one is.
        """
        tables, self._tables = self._tables, []
        rows = np.concatenate([np.zeros(0, keys.TABLE), *tables])
        ports = np.fromiter(listening, "u2")
        is_from, is_to = np.isin(rows["src_port"], ports), np.isin(rows["dst_port"], ports)
        is_to_service = np.where(is_from == is_to, rows["dst_port"] <= rows["src_port"], is_to)
        rows["src_port"] = 0
        rows["dst_port"][~is_to_service] = 0
        return [self._line(row) for row in keys.merge([rows])]

    def _line(self, row: Any) -> dict[str, Any]:
        interface, protocol = int(row["interface"]), int(row["protocol"])
        return {
            "interface": self._names.get(interface, str(interface)),
            "direction": keys.DIRECTIONS[row["direction"]],
            "protocol": _PROTOCOLS.get(protocol, str(protocol)),
            "src_ip": keys.address_text(row["src_ip"].tobytes()),
            "dst_ip": keys.address_text(row["dst_ip"].tobytes()),
            "dst_port": int(row["dst_port"]),
            "packets": int(row["packets"]),
            "bytes": int(row["bytes"]),
            "window_start_unix_ts": round(self._begin_unix_ts, 6),
            "window_end_unix_ts": round(self._end_unix_ts, 6),
        }
