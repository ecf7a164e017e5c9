"""The comments of packets in pcapng: which transfers and circuits each belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from perfmeasure.errors import InputError
from perfmeasure.recorder import core
from perfmeasure.recorder.catalogue import Catalogue, Transfer
from perfmeasure.recorder.keys import connection4_text
from perfmeasure.recorder.records import Array
from perfmeasure.recorder.segment import Segment

_KEPT_CONNECTIONS = 10_000


class Comments:
    """Comments for `perfmeasure.recorder.answer.write_answer`, from the catalogue of a store.

    Without a catalogue there are none.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._catalogue: Catalogue | None = None
        try:
            self._catalogue = Catalogue(folder)
        except InputError:
            return  # which the store has said
        self._known: dict[str, list[Transfer]] = {}

    def __call__(self, segment: Segment, frame: Array) -> str:
        """Return ``transfer ID circuit ID``, one a line, or nothing."""
        if self._catalogue is None:
            return ""
        (packet,) = core.decode(segment.data, frame.reshape(1))
        ends = (
            (packet["a_ip"].tobytes(), int(packet["a_port"])),
            (packet["b_ip"].tobytes(), int(packet["b_port"])),
        )
        key = connection4_text(int(packet["protocol"]), *ends)
        if key not in self._known:
            while len(self._known) >= _KEPT_CONNECTIONS:
                del self._known[next(iter(self._known))]
            self._known[key] = self._catalogue.transfers("connection4", key)
        ts_ns = int(frame["ts_ns"])
        users = [use for use in self._known[key] if use.first_ns <= ts_ns <= use.last_ns]
        carried = {use.circuit for use in users if use.id}
        lines = [_line(use) for use in users if use.id or use.circuit not in carried]
        return "\n".join(dict.fromkeys(lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._catalogue is not None:
            self._catalogue.close()


def _line(use: Transfer) -> str:
    parts = [("transfer", use.id), ("circuit", use.circuit)]
    return " ".join(f"{what} {name}" for what, name in parts if name)
