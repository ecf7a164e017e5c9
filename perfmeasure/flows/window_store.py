"""Windows on disk: Parquet files of an hour at most, which are written anew each minute.

``FOLDER/perfmeasure_YYYY-MM-DD_HH:MM:SS.ffffff.windows.parquet`` has a row for each flow and
window, ``….accounting.parquet`` beside it one for each window; the name is the beginning of the
first window (UTC). The columns are in docs/formats.md. A file is seen only when it is whole: each
time it is written under another name, which then takes the place of the last one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmeasure.errors import MeasurementError
from perfmeasure.flows import keys
from perfmeasure.units import utc_date

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from perfmeasure.flows.keys import Array
    from perfmeasure.flows.windows import Window

_MINUTE_SECONDS, _HOUR_SECONDS = 60, 3600
_MOST_ROWS = 2_000_000
_MOST_ROWS_WRITTEN_AGAIN = 50_000
_SUFFIX = ".parquet"

_WINDOWS = """
SELECT window_start_unix_ts, window_seconds, interfaces.text AS interface,
       directions.text AS direction, source.text AS src_ip, src_port,
       destination.text AS dst_ip, dst_port, protocol, packets, bytes, segments,
       first_seen_unix_ts, last_seen_unix_ts, tcp_flags, connects, closes
FROM flows
JOIN interfaces ON interfaces.number = flows.interface
JOIN directions ON directions.number = flows.direction
JOIN addresses AS source ON source.number = flows.source
JOIN addresses AS destination ON destination.number = flows.destination
ORDER BY window_start_unix_ts
"""


class WindowStore:
    """Keeps the windows of an hour, and writes them each minute.

    So a process that is killed loses a minute at most, and there are few files. With many flows a
    file is ended earlier, since it costs more to write anew each time.

    Args:
        folder: where; it is made.
        interface_names: names by what `keys.KEY` has in ``interface``; it may change meanwhile.
        archive: the ``log_archive`` folder, to which the files of days that are over are moved;
            without it they stay where they are.

    Raises:
        MeasurementError: the folder cannot be made, or a file not be moved.
    """

    def __init__(
        self, folder: Path, interface_names: Mapping[int, str], archive: Path | None = None
    ) -> None:
        self._folder = folder
        self._interface_names = interface_names
        self._archive = archive
        self._windows: list[Window] = []  # of the file
        self._row_count = 0
        self._written_count = 0  # how many of the windows are in the file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob(f".*{_SUFFIX}"):  # of a process that was killed
                part.unlink()
            self._move_days_before(utc_date(time.time()))
        except OSError as error:
            raise _not_written(folder, error) from error

    def add(self, window: Window) -> bool:
        """Take a window in; those of earlier minutes are written now.

        Returns:
            Whether any were written.

        Raises:
            MeasurementError: the disk is full, or fails; those that are not in a file yet are
                given up, so that they do not grow in memory. The window is taken in all the same.
        """
        try:
            return self._write_earlier(window)
        finally:
            self._windows.append(window)
            self._row_count += len(window.flows)

    def _write_earlier(self, window: Window) -> bool:
        """Write what is of an earlier minute than a window, if anything is; return whether."""
        if self._windows:
            last = self._windows[-1]
            is_full = self._row_count + len(window.flows) > _MOST_ROWS
            if is_full or _period(window, _MINUTE_SECONDS) != _period(last, _MINUTE_SECONDS):
                self.flush()
                is_costly = self._row_count > _MOST_ROWS_WRITTEN_AGAIN
                if is_costly or _period(window, _HOUR_SECONDS) != _period(last, _HOUR_SECONDS):
                    self._end_file(utc_date(window.begin_unix_ts))
                return True
        return False

    def flush(self) -> None:
        """Write what is kept.

        Raises:
            MeasurementError: the disk is full, or fails; the windows that are not in a file yet
                are given up.
        """
        if self._written_count == len(self._windows):
            return
        began = datetime.fromtimestamp(self._windows[0].begin_unix_ts, UTC)
        name = f"perfmeasure_{began:%Y-%m-%d_%H:%M:%S.%f}"
        accounting = {"accounting": _accounting_columns(self._windows)}
        try:
            self._write(f"{name}.windows{_SUFFIX}", _WINDOWS, self._flow_columns())
            self._write(f"{name}.accounting{_SUFFIX}", "SELECT * FROM accounting", accounting)
        except MeasurementError:
            self._forget_from(self._written_count)
            raise
        self._written_count = len(self._windows)

    def _forget_from(self, index: int) -> None:
        del self._windows[index:]
        self._row_count = sum(len(window.flows) for window in self._windows)

    def _end_file(self, next_date: str) -> None:
        """Begin another file with the next window, which is of that day."""
        self._forget_from(0)
        self._written_count = 0
        try:
            self._move_days_before(next_date)
        except OSError as error:
            raise _not_written(self._folder, error) from error

    def _move_days_before(self, date: str) -> None:
        if self._archive is None:
            return
        for path in sorted(self._folder.glob(f"perfmeasure_*{_SUFFIX}")):
            day = path.name.removeprefix("perfmeasure_")[: len(date)]
            if day < date:
                folder = self._archive / day / self._folder.parent.name / self._folder.name
                folder.mkdir(parents=True, exist_ok=True)
                path.rename(folder / path.name)

    def _write(self, name: str, query: str, tables: Mapping[str, Mapping[str, Array]]) -> None:
        import duckdb  # noqa: PLC0415 - it takes long to import

        making = self._folder / f".{name}"
        try:
            # One thread: the sweeps go on meanwhile.
            with duckdb.connect(config={"threads": 1}) as connection:
                for table, columns in tables.items():
                    connection.register(table, columns)
                place = str(making).replace("'", "''")
                connection.execute(
                    f"COPY ({query}) TO '{place}' (FORMAT parquet, COMPRESSION zstd)"
                )
            making.rename(self._folder / name)
        except (OSError, duckdb.Error) as error:
            making.unlink(missing_ok=True)
            raise _not_written(self._folder / name, error) from error

    def _flow_columns(self) -> dict[str, dict[str, Array]]:
        flows = np.concatenate([window.flows for window in self._windows])
        counts = [len(window.flows) for window in self._windows]
        distance_ns = np.repeat([window.clock.distance_ns for window in self._windows], counts)

        def unix_ts(monotonic_ns: Array) -> Array:
            result: Array = np.round((monotonic_ns.astype("i8") + distance_ns) / 1e9, 6)
            return result

        addresses = np.concatenate([flows["src_ip"], flows["dst_ip"]])
        first, numbers = keys.group(addresses)
        texts = [keys.address_text(address.tobytes()) for address in addresses[first]]
        columns = {
            "window_start_unix_ts": np.repeat(_begins(self._windows), counts),
            "window_seconds": np.repeat([w.length_ns / 1e9 for w in self._windows], counts),
            "source": numbers[: len(flows)],
            "destination": numbers[len(flows) :],
            "first_seen_unix_ts": unix_ts(flows["first_ns"]),
            "last_seen_unix_ts": unix_ts(flows["last_ns"]),
        }
        same = ("interface", "direction", "src_port", "dst_port", "protocol", "packets", "bytes")
        for name in (*same, "segments", "tcp_flags", "connects", "closes"):
            columns[name] = np.ascontiguousarray(flows[name])
        return {
            "flows": columns,
            "addresses": _texts(dict(enumerate(texts))),
            "interfaces": _texts(self._names_of(flows)),
            "directions": _texts(dict(enumerate(keys.DIRECTIONS))),
        }

    def _names_of(self, flows: Array) -> dict[int, str]:
        """Return the names of the interfaces in flows; one that is not known keeps its number."""
        numbers = np.unique(flows["interface"]).tolist()
        return {number: self._interface_names.get(number, f"#{number}") for number in numbers}


def _period(window: Window, seconds: int) -> int:
    return int(window.begin_unix_ts // seconds)


def _begins(windows: list[Window]) -> Array:
    return np.array([round(window.begin_unix_ts, 6) for window in windows], "f8")


def _texts(by_number: Mapping[int, str]) -> dict[str, Array]:
    return {
        "number": np.array(list(by_number), "i8"),
        "text": np.array(list(by_number.values()), object),
    }


def _accounting_columns(windows: list[Window]) -> dict[str, Array]:
    terms = [window.terms.fields() for window in windows]
    columns: dict[str, Any] = {
        "window_start_unix_ts": _begins(windows),
        "window_seconds": np.array([window.length_ns / 1e9 for window in windows]),
        "flows": np.array([len(window.flows) for window in windows], "u8"),
    }
    columns |= {name: np.array([term[name] for term in terms], "u8") for name in terms[0]}
    columns["utc_ns"] = np.array([window.clock.utc_ns for window in windows], "i8")
    columns["monotonic_ns"] = np.array([window.clock.monotonic_ns for window in windows], "i8")
    return columns


def _not_written(path: Path, error: Exception) -> MeasurementError:
    return MeasurementError(
        str(path), f"cannot be written ({error})", next_step="check the folder's owner and the disk"
    )
