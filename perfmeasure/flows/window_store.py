"""Windows on disk: Parquet files of one minute each, which are seen only when they are complete.

``FOLDER/perfmeasure_YYYY-MM-DD_HH:MM:SS.ffffff.windows.parquet`` has a row for each flow and
window, ``….accounting.parquet`` beside it one for each window; the name is the beginning of the
first window (UTC). The columns are in docs/formats.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmeasure.errors import MeasurementError
from perfmeasure.flows import keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from perfmeasure.flows.keys import Array
    from perfmeasure.flows.windows import Window

_PERIOD_SECONDS = 60
_MOST_ROWS = 2_000_000

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
    """Keeps windows until their minute is over, then writes them.

    Args:
        folder: where; it is made.
        interface_names: names by what `keys.KEY` has in ``interface``.

    Raises:
        MeasurementError: the folder cannot be made.
    """

    def __init__(self, folder: Path, interface_names: Mapping[int, str]) -> None:
        self._folder = folder
        self._interface_names = interface_names
        self._windows: list[Window] = []
        self._row_count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_written(folder, error) from error

    def add(self, window: Window) -> None:
        """Take a window in; those of an earlier minute are written now.

        Raises:
            MeasurementError: the disk is full, or fails.
        """
        minute = window.begin_unix_ts // _PERIOD_SECONDS
        if self._windows and (
            minute != self._windows[0].begin_unix_ts // _PERIOD_SECONDS
            or self._row_count + len(window.flows) > _MOST_ROWS
        ):
            self.flush()
        self._windows.append(window)
        self._row_count += len(window.flows)

    def flush(self) -> None:
        """Write what is kept.

        Raises:
            MeasurementError: the disk is full, or fails.
        """
        if not self._windows:
            return
        began = datetime.fromtimestamp(self._windows[0].begin_unix_ts, UTC)
        name = f"perfmeasure_{began:%Y-%m-%d_%H:%M:%S.%f}"
        self._write(f"{name}.windows.parquet", _WINDOWS, self._flow_columns())
        accounting = {"accounting": _accounting_columns(self._windows)}
        self._write(f"{name}.accounting.parquet", "SELECT * FROM accounting", accounting)
        self._windows.clear()
        self._row_count = 0

    def _write(self, name: str, query: str, tables: Mapping[str, Mapping[str, Array]]) -> None:
        import duckdb  # noqa: PLC0415 - it takes long to import

        making = self._folder / f".{name}"
        try:
            with duckdb.connect() as connection:
                connection.execute("SET threads = 1")  # the sweeps go on meanwhile
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
            "interfaces": _texts(self._interface_names),
            "directions": _texts(dict(enumerate(keys.DIRECTIONS))),
        }


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
