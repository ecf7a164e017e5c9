"""The packets of transfers as files of the docroot, for those who asked for that.

::

    packets/YYYY-MM-DD/NICKNAME.ID.pcapng   the packets of a transfer that ended on that day

A file is written once there are packets of its transfer, and again when the store has more of
them. What the store drops stays published, until all that is published is more than its bound:
then the oldest days go, and of a day that is too much by itself the oldest transfers.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmeasure.errors import InputError
from perfmeasure.web import figures
from perfmeasure.web.index import PACKETS_FOLDER
from perfmeasure.web.staging import explained

if TYPE_CHECKING:
    from perfmeasure.recorder.transfers import TransferPackets

_WORK_NAME = ".publisher-packets"
"""Where files are before they are published: on the disk where they will be."""
_UNSAFE = re.compile(rb"[^A-Za-z0-9-]")
_LONGEST_NAME = 100


@dataclass
class Prepared:
    """What to do with packets in a publication.

    Attributes:
        files: by name what to publish: packets, and the figures of days that lose theirs.
        removed: names of files to remove.
        problems: why packets of a transfer could not be published.
    """

    files: dict[str, bytes | Path] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def file_name(date: str, nickname: str, transfer: str) -> str:
    """Return the path of a transfer's packets from the docroot, which is a URL as it is.

    What is no letter, digit or dash is ``_`` and its byte in hexadecimal.
    """
    return f"{PACKETS_FOLDER}/{date}/{_safe(nickname)}.{_safe(transfer)}.pcapng"


def _safe(name: str) -> str:
    content = name.encode("utf-8", "surrogatepass")
    text = _UNSAFE.sub(lambda match: b"_%02x" % match[0][0], content).decode("ascii")
    if len(text) <= _LONGEST_NAME:
        return text
    return text[:_LONGEST_NAME] + "__" + hashlib.sha256(content).hexdigest()[:16]


@contextlib.contextmanager
def prepared(
    docroot: Path,
    store: Path,
    date: str,
    of_day: tuple[Mapping[str, Any], Sequence[dict[str, Any]]],
    budget_bytes: int | None,
) -> Iterator[Prepared]:
    """Write the packets of a day beside the docroot, until they have been published.

    Args:
        docroot: the folder that is served.
        store: of the packets.
        date: the UTC day.
        of_day: its database, and what the page is to show of each transfer of the day, in the
            order of their starts. Those whose packets are published get ``packets_file``: its
            ``name``, and the ``count`` of packets and captured ``bytes`` in it.
        budget_bytes: for all that is published of packets; with None there is nothing to do.

    Raises:
        MeasurementError: the disk is full or fails.
    """
    if budget_bytes is None:
        yield Prepared()
        return
    document, transfers = of_day
    work = docroot / _WORK_NAME
    shutil.rmtree(work, ignore_errors=True)
    try:
        with explained(docroot):
            work.mkdir(parents=True)
            published = _published(docroot)
            later = sum(sum(published[other].values()) for other in published if other > date)
            day = _Day(docroot, date, work, budget_bytes - later, published.get(date, {}))
            with _Sources(store, document) as sources:
                day.choose(transfers, sources)
            day.leave({other: published[other] for other in published if other < date})
        yield day.found
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass
class _Day:
    """A day whose packets are published.

    Args:
        docroot: the folder that is served.
        date: the UTC day.
        work: the folder for files that are to be published.
        room_bytes: what may be published of it and of earlier days.
        published: sizes of what is published of it, by name.
    """

    docroot: Path
    date: str
    work: Path
    room_bytes: int
    published: Mapping[str, int]
    found: Prepared = field(default_factory=Prepared)

    def choose(self, transfers: Sequence[dict[str, Any]], sources: _Sources) -> None:
        """Keep, write or remove the packets of each transfer, from the latest to the earliest."""
        before = _files_before(self.docroot, self.date)
        kept = set()
        for transfer in reversed(transfers):
            old = before.get((transfer["nickname"], transfer["id"], transfer["unix_ts_start"]))
            if old is not None and old["name"] not in self.published:
                old = None
            on_disk = transfer.get("packets", {}).get("count", 0)
            file, size = old, self.published[old["name"]] if old else 0
            if on_disk > (old["count"] if old else 0):
                try:
                    file, size = self._write(transfer, sources)
                except InputError as error:
                    problem = f"{PACKETS_FOLDER}/{Path(error.where).name}: {error.got}"
                    self.found.problems.append(f"packets of {transfer['id']}: {problem}")
            if file is None:
                continue
            self.room_bytes -= size
            if self.room_bytes < 0:
                self.found.files.pop(file["name"], None)
                break
            kept.add(file["name"])
            transfer["packets_file"] = file
        self.found.removed += sorted(self.published.keys() - kept)

    def _write(self, transfer: Mapping[str, Any], sources: _Sources) -> tuple[dict[str, Any], int]:
        name = file_name(self.date, transfer["nickname"], transfer["id"])
        path = self.work / f"{len(self.found.files)}.pcapng"
        counts = sources.of(transfer["nickname"]).write(transfer["id"], path)
        self.found.files[name] = path
        file = {"name": name, "count": counts.packets, "bytes": counts.bytes}
        return file, path.stat().st_size

    def leave(self, earlier: Mapping[str, Mapping[str, int]]) -> None:
        """Remove the earlier days for which there is no room any more."""
        for date in sorted(earlier, reverse=True):
            self.room_bytes -= sum(earlier[date].values())
            if self.room_bytes < 0:
                self.found.removed += sorted(earlier[date])
                self.found.files |= figures.without_packets(self.docroot, date)


def _published(docroot: Path) -> dict[str, dict[str, int]]:
    """Return the sizes of what is published, by day and name."""
    days: dict[str, dict[str, int]] = defaultdict(dict)
    for path in (docroot / PACKETS_FOLDER).glob("*/*.pcapng"):
        days[path.parent.name][path.relative_to(docroot).as_posix()] = path.stat().st_size
    return days


def _files_before(docroot: Path, date: str) -> dict[tuple[str, str, float], dict[str, Any]]:
    """Return what is said of the published packets of a day, by nickname, name and start."""
    return {
        (transfer["nickname"], transfer["id"], transfer["unix_ts_start"]): transfer["packets_file"]
        for transfers in figures.published_transfers(docroot, date).values()
        for transfer in transfers
        if "packets_file" in transfer
    }


class _Sources(contextlib.ExitStack):
    """The packets of each nickname, once they are asked for."""

    def __init__(self, store: Path, document: Mapping[str, Any]) -> None:
        super().__init__()
        self._store = store
        self._document = document
        self._known: dict[str, TransferPackets] = {}

    def of(self, nickname: str) -> TransferPackets:
        """Return those of a nickname.

        Raises:
            InputError: there is no store.
        """
        # Here, not above: most publications write none, and it brings in the recorder.
        from perfmeasure.recorder.transfers import TransferPackets  # noqa: PLC0415

        if nickname not in self._known:
            node = self._document["data"][nickname]
            self._known[nickname] = self.enter_context(TransferPackets(self._store, node))
        return self._known[nickname]
