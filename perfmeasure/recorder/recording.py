"""From batches of frames to a store: decode, follow connections, cut, write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perfmeasure.recorder import core
from perfmeasure.recorder.connections import Connections, Rules
from perfmeasure.recorder.records import Array
from perfmeasure.recorder.writer import StoreWriter

DEFAULT_CLASS = "all"


@dataclass
class Recorded:
    """What came and what was kept of it; bytes are those of the frames as captured."""

    packets: int = 0
    bytes: int = 0
    kept_packets: int = 0
    kept_bytes: int = 0


class Recording:
    """Packets of one class, all kept up to the cutoff of their connection.

    Args:
        writer: of the store.
        rules: of connections. Without a cutoff no connection is followed.
    """

    def __init__(self, writer: StoreWriter, rules: Rules) -> None:
        self._writer = writer
        self._connections = Connections(rules) if rules.cutoff_bytes is not None else None
        self.recorded = Recorded()

    def add(self, data: Any, frames: Array) -> None:
        """Record frames of a buffer.

        Raises:
            MeasurementError: the store cannot be written.
        """
        packets = core.decode(data, frames)
        self.recorded.packets += len(frames)
        self.recorded.bytes += int(frames["captured"].sum(dtype="u8"))
        if self._connections is not None:
            slots, _ = self._connections.follow(frames, packets)
            keep = self._connections.account(frames, slots)
            if not keep.all():
                frames, packets = frames[keep], packets[keep]
        if len(frames):
            self._writer.append(DEFAULT_CLASS, data, frames, packets)
        self.recorded.kept_packets += len(frames)
        self.recorded.kept_bytes += int(frames["captured"].sum(dtype="u8"))
