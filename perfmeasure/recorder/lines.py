"""Packets of an answer as lines, for people and as JSON.

    2026-01-31T12:00:00.000000001Z tcp 192.0.2.1:80 > 198.51.100.2:1024 flags S. bytes 1514

Of a fragment that is not the first, and of protocols without ports, there are no ports; of what has
no IP addresses, such as ARP, there are times and sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from perfmeasure import jsonio
from perfmeasure.recorder import core
from perfmeasure.recorder.answer import runs
from perfmeasure.recorder.keys import address_text, has_ports, protocol_name
from perfmeasure.recorder.records import PACKET, PARSED
from perfmeasure.recorder.store import Chunk

_FLAGS = "FSRP.UEW"
"""One letter for each bit of the flags of TCP, the lowest first, as tcpdump has them."""
_FIELDS = list(PACKET.names or ())


def text_lines(chunks: Iterable[Chunk]) -> Iterator[str]:
    """Yield a line for people for each packet, in the order in which they come."""
    return map(_text, packets(chunks))


def json_lines(chunks: Iterable[Chunk]) -> Iterator[str]:
    """Yield a JSON object for each packet: what `packets` yields."""
    return map(jsonio.compact, packets(chunks))


def packets(chunks: Iterable[Chunk]) -> Iterator[dict[str, Any]]:
    """Yield what is known of each packet.

    ``unix_ns``, ``bytes`` (on the wire), ``captured_bytes``, ``link`` (the link type's number) and
    ``class`` are always there; ``vlan`` if it has tags, the first two numbers; ``protocol``,
    ``src`` and ``dst`` if it has IP addresses; ``src_port`` and ``dst_port`` if it has ports;
    ``tcp_flags``, a number, with TCP.

    Raises:
        InputError: a segment does not hold what its index says.
    """
    for chunk in chunks:
        for segment, frames in runs(chunk):
            decoded = core.decode(segment.data, frames)
            for frame, packet in zip(frames, decoded, strict=True):
                found = {
                    "unix_ns": int(frame["ts_ns"]),
                    "bytes": int(frame["original"]),
                    "captured_bytes": int(frame["captured"]),
                    "link": int(frame["link"]),
                    "class": segment.summary.class_name,
                }
                _add_headers(found, dict(zip(_FIELDS, packet.item(), strict=True)))
                yield found


def _add_headers(found: dict[str, Any], packet: dict[str, Any]) -> None:
    tags = [int(number) - 1 for number in packet["vlan"] if number]
    if tags:
        found["vlan"] = tags
    if packet["kind"]:
        return
    ends = "ba" if packet["direction"] else "ab"
    found["protocol"] = protocol_name(packet["protocol"])
    for name, end in zip(("src", "dst"), ends, strict=True):
        found[name] = address_text(packet[f"{end}_ip"])
    if has_ports(packet["protocol"]) and (packet["a_port"] or packet["b_port"]):
        for name, end in zip(("src", "dst"), ends, strict=True):
            found[f"{name}_port"] = packet[f"{end}_port"]
    if found["protocol"] == "tcp" and packet["verdict"] == PARSED and "src_port" in found:
        found["tcp_flags"] = packet["tcp_flags"]


def _text(packet: dict[str, Any]) -> str:
    seconds, ns = divmod(packet["unix_ns"], 10**9)
    words = [f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09}Z"]
    if "src" in packet:
        words += [packet["protocol"], _end(packet, "src"), ">", _end(packet, "dst")]
    if "tcp_flags" in packet:
        flags = packet["tcp_flags"]
        letters = [letter for bit, letter in enumerate(_FLAGS) if flags >> bit & 1]
        words += ["flags", "".join(letters) or "none"]
    if "vlan" in packet:
        words += ["vlan", ",".join(map(str, packet["vlan"]))]
    words += ["bytes", str(packet["bytes"])]
    if packet["captured_bytes"] < packet["bytes"]:
        words += ["captured", str(packet["captured_bytes"])]
    return " ".join(words)


def _end(packet: dict[str, Any], name: str) -> str:
    address: str = packet[name]
    port = packet.get(f"{name}_port")
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
