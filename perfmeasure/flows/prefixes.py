"""Aggregation by prefix: the lengths, and the table by prefix against the one by whole key.

The kernel cuts the key before it looks it up (``bpf/prefix.h``), so that the tables hold pairs of
prefixes and no flow. Asked to, it also counts each packet that the table took in a second one, by
the whole key: cut here, by another program, its rows must give the first table to the byte.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from perfmeasure.errors import UsageError
from perfmeasure.flows import bpfcall, keys
from perfmeasure.flows.bpfcall import BatchReader
from perfmeasure.flows.keys import Array, Total
from perfmeasure.flows.loader import Program

EXACT_FLOWS = 262144
"""Room of the table by the whole key, for all flows of a run."""

DEFAULT_IPV6 = 48

_BATCH_ENTRIES = 32768
_MAPPED = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)


class PrefixLengths(NamedTuple):
    """How many bits of an address are kept."""

    ipv4: int
    ipv6: int

    @classmethod
    def parse(cls, text: str) -> PrefixLengths:
        """Return the lengths in ``N`` or ``N,N6``, as ``24`` or ``24,48``.

        Raises:
            UsageError: not such lengths.
        """
        words = text.removeprefix("/").replace(",/", ",").split(",")
        lengths = [int(word) for word in words if word.isascii() and word.isdigit()]
        if len(lengths) == len(words) <= 2:
            found = cls(lengths[0], lengths[1] if len(lengths) > 1 else DEFAULT_IPV6)
            if found.ipv4 <= 32 and found.ipv6 <= 128:
                return found
        raise UsageError(
            "--prefix-length",
            f"{text!r}",
            "bits of IPv4 and of IPv6 addresses, such as 24 or 24,48",
        )

    def definitions(self) -> dict[str, int]:
        """Return what the program is to be compiled with."""
        return {"PREFIX_IPV4": self.ipv4, "PREFIX_IPV6": self.ipv6}

    def cut(self, flows: Array) -> Array:
        """Return a table of whole keys as one by prefix: rows of `keys.TABLE`, one a pair."""
        rows = flows.copy()
        for name in ("src_ip", "dst_ip"):
            addresses = np.ascontiguousarray(rows[name]).view(np.uint8).reshape(len(rows), 16)
            is_ipv4 = (addresses[:, :12] == _MAPPED).all(axis=1)[:, np.newaxis]
            mask = np.where(is_ipv4, _mask(96 + self.ipv4), _mask(self.ipv6))
            rows[name] = np.ascontiguousarray(addresses & mask).view("V16").ravel()
        rows["src_port"] = rows["dst_port"] = 0
        return keys.merge([rows])


def _mask(bits: int) -> Array:
    """Return 16 bytes of which the first ``bits`` bits are set."""
    return np.packbits(np.arange(128) < bits)


class Difference(NamedTuple):
    """The table by prefix against the one by whole key, cut: what their rows differ by in all."""

    exact_flows: int
    prefixes: int
    packets: int
    bytes: int
    unchecked: Total
    """What the table by whole key had no room for: it may differ by as much."""

    def fields(self) -> dict[str, Any]:
        """Return this as it stands in the JSON document."""
        return {
            "exact_flows": self.exact_flows,
            "prefixes": self.prefixes,
            "difference_packets": self.packets,
            "difference_bytes": self.bytes,
            "bound_packets": self.unchecked.packets,
            "bound_bytes": self.unchecked.bytes,
        }


def exact_flows(program: Program) -> tuple[Array, Total]:
    """Return the table by whole key (rows of `keys.TABLE`), and what it had no room for.

    Raises:
        OSError: the kernel refused.
    """
    processors = bpfcall.possible_processors()
    reader = BatchReader(keys.KEY, keys.TOTALS, processors, _BATCH_ENTRIES)
    found, values = reader.peek(program.map_fd("exact"))
    table = np.zeros(len(found), keys.TABLE)
    for name in keys.KEY.names or ():
        table[name] = found[name]
    for unit in ("packets", "bytes"):
        table[unit] = values[unit].sum(axis=1)
    raw = bpfcall.lookup(program.map_fd("exact_full"), bytes(4), keys.TOTALS.itemsize * processors)
    full = np.frombuffer(raw or b"", keys.TOTALS)
    return table, Total(int(full["packets"].sum()), int(full["bytes"].sum()))


def compare(lengths: PrefixLengths, by_prefix: Array, exact: Array, unchecked: Total) -> Difference:
    """Return how the kernel's table by prefix differs from the exact one, cut here."""
    ours, wanted = by_prefix, lengths.cut(exact)
    pairs = np.concatenate([ours, wanted])
    _, groups = keys.group(keys.key_of(pairs))
    count = int(groups.max(initial=-1)) + 1
    differences = []
    for unit in ("packets", "bytes"):
        balance = np.zeros(count, np.int64)
        np.add.at(balance, groups[: len(ours)], ours[unit].astype(np.int64))
        np.subtract.at(balance, groups[len(ours) :], wanted[unit].astype(np.int64))
        differences.append(int(np.abs(balance).sum()))
    return Difference(len(exact), len(by_prefix), differences[0], differences[1], unchecked)
