"""What is in a store's folder, whatever its catalogue says, and putting the two in order again.

A recorder that was killed leaves a segment whose name ends in ``.part``, perhaps with half a record
at its end. Segments without an index get one, indexes without a segment go, the catalogue follows
the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from perfmeasure.errors import InputError
from perfmeasure.recorder.arrays import Arrays
from perfmeasure.recorder.catalogue import NAME, Catalogue, Entry, NewerError
from perfmeasure.recorder.segment import (
    INDEX_SUFFIX,
    OPEN_SUFFIX,
    PACKETS_SUFFIX,
    Summary,
    scan,
    segment_path,
    summary_of_index,
    write_index,
)


def files(folder: Path) -> Iterator[tuple[Path, Summary]]:
    """Yield the files of all segments, with number and class, by number."""
    found = []
    for path in folder.glob("segments/*/*"):
        number, _, suffix = path.name.partition(".")
        if f".{suffix}" in (PACKETS_SUFFIX, OPEN_SUFFIX) and number.isdigit():
            found.append((path, Summary(int(number), path.parent.name, 0)))
    return iter(sorted(found, key=lambda item: item[1].number))


def entries_of_files(folder: Path) -> list[Entry]:
    """Return what the catalogue of the store should say, from its files alone."""
    entries = []
    for path, nothing in files(folder):
        is_open = path.name.endswith(OPEN_SUFFIX)
        index = segment_path(folder, nothing, INDEX_SUFFIX)
        try:
            summary = summary_of_index(index) if not is_open else scan(path, nothing)[0].summary
        except InputError:
            try:
                summary = scan(path, nothing)[0].summary
            except (InputError, FileNotFoundError):
                continue
        size = index.stat().st_size if index.exists() else 0
        entries.append(Entry(summary, is_open, path.stat().st_size, size))
    return entries


def recover(folder: Path) -> tuple[Catalogue, list[str]]:
    """Put the store in order after whatever happened to it; call it with the store's lock held.

    Returns:
        The catalogue, open for writing, and a message for each thing that was not in order.

    Raises:
        OSError: files cannot be written.
        NewerError: a newer version has written it.
    """
    catalogue, messages = _catalogue(folder)
    known = {entry.summary.number: entry for entry in catalogue.segments()}
    present = set()
    for path, nothing in files(folder):
        entry = known.get(nothing.number)
        nothing.drops = entry.summary.drops if entry else 0
        restored = _restore(folder, path, nothing, entry, messages)
        if restored is not None:
            present.add(nothing.number)
            if restored != entry:
                catalogue.put(
                    restored.summary,
                    is_open=False,
                    file_bytes=restored.file_bytes,
                    index_bytes=restored.index_bytes,
                )
    for number in set(known) - present:
        catalogue.remove(number)
        if known[number].summary.packets:
            messages.append(f"{folder}: segment {number} is gone; it is no longer in the catalogue")
    _remove_orphans(folder, messages)
    return catalogue, messages


def _catalogue(folder: Path) -> tuple[Catalogue, list[str]]:
    """Return the catalogue, made anew if it cannot be used, and what is to be said of that."""
    try:
        catalogue = Catalogue(folder, is_writer=True)
        catalogue.segments()
    except NewerError:
        raise
    except InputError as error:
        for suffix in ("", "-wal", "-shm"):
            path = folder / f"{NAME}{suffix}"
            if path.exists():
                path.rename(path.with_name(f"{path.name}.damaged"))
        message = f"{error}. It was put aside and made anew from the segments"
        return Catalogue(folder, is_writer=True), [message]
    return catalogue, []


def _remove_orphans(folder: Path, messages: list[str]) -> None:
    for path in folder.glob(f"segments/*/*{INDEX_SUFFIX}*"):
        has_segment = path.with_name(path.name.partition(".")[0] + PACKETS_SUFFIX).exists()
        if path.suffix == ".part" or not has_segment:
            path.unlink()
            messages.append(f"{path}: an index without its segment, removed")
    for path in folder.glob("levels/*.part"):
        path.unlink()


def _restore(
    folder: Path, path: Path, nothing: Summary, entry: Entry | None, messages: list[str]
) -> Entry | None:
    """Return the entry of a segment that is in order, making it so; None if it had no packets."""
    index_path = segment_path(folder, nothing, INDEX_SUFFIX)
    final = segment_path(folder, nothing, PACKETS_SUFFIX)
    size = path.stat().st_size
    if path == final and (summary := _summary_in_order(index_path, size, entry)) is not None:
        return Entry(summary, False, size, index_path.stat().st_size)
    try:
        segment, index, end = scan(path, nothing)
    except InputError as error:
        path.rename(path.with_name(f"{path.name}.damaged"))
        messages.append(f"{error}. It was put aside")
        return None
    summary = segment.summary
    if not summary.packets:
        path.unlink()
        return None
    if end < size:
        messages.append(f"{path}: {size - end} bytes after the last whole record were cut off")
        os.truncate(path, end)
    index_bytes = write_index(folder, summary, index)
    path.rename(final)
    messages.append(f"{final}: {summary.packets} packets were indexed anew")
    return Entry(summary, False, end, index_bytes)


def _summary_in_order(index: Path, size: int, entry: Entry | None) -> Summary | None:
    """Return what the index says, if it is whole and belongs to a file of this size."""
    # What the catalogue vouches for is not read again: a store may hold terabytes.
    is_vouched = entry is not None and not entry.is_open and entry.file_bytes == size
    try:
        summary = summary_of_index(index)
    except InputError:
        return None
    is_right = summary.file_bytes == size and (is_vouched or Arrays.is_whole(index))
    return summary if is_right else None
