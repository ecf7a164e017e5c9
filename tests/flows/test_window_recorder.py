from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.errors import MeasurementError
from perfmeasure.flows import keys
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.window_recorder import WindowRecorder
from perfmeasure.flows.windows import Window


class Counter:
    """Stands for a counter, with what the test has it sweep."""

    def __init__(self) -> None:
        self.ready: list[Window] = []
        self.windows = SimpleNamespace(wait_ns=lambda: -1 if self.ready else 1)
        self.is_broken = False

    def sweep(self) -> list[Window]:
        if self.is_broken:
            raise MeasurementError("window", "packets are not accounted for")
        swept, self.ready = self.ready, []
        return swept

    stop = sweep


def window(second: int) -> Window:
    clock = ClockPair(1_800_000_000 * 10**9, 0)
    return Window(second, 10**9, np.zeros(1, keys.TABLE), Terms(), (), clock)


class Scene:
    """A recorder, what it counts, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.counter = Counter()
        counter: Any = self.counter
        self.recorder = WindowRecorder(counter, folder, None, self.said.append)

    def look(self, *seconds: int) -> None:
        self.counter.ready += [window(second) for second in seconds]
        self.recorder.look()


def test_each_window_is_shown_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    seen: list[Window] = []
    scene.recorder.tap = seen.append
    scene.look(0, 1)
    scene.look()
    assert [window.number for window in seen] == [0, 1]


def test_windows_are_taken_when_they_are_over(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.look()
    scene.look(0, 1)
    scene.look(61)
    scene.counter.ready = [window(62)]
    scene.recorder.stop()
    (path,) = tmp_path.glob("*.accounting.parquet")
    assert len(duckdb.read_parquet(str(path))) == 4
    assert scene.said == []


def test_packets_that_are_not_accounted_for_end_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.counter.is_broken = True
    with pytest.raises(MeasurementError, match="not accounted for"):
        scene.look(0)
    with pytest.raises(MeasurementError, match="not accounted for"):
        scene.recorder.stop()


def test_a_disk_that_fails_is_said_once_and_counting_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "windows"
    scene = Scene(folder)
    folder.rmdir()
    for minute in range(4):
        scene.look(60 * minute)
    (said,) = scene.said
    assert "cannot be written" in said
    assert said.endswith("; windows are being lost")
    folder.mkdir()
    scene.look(240)
    scene.recorder.stop()
    assert len(scene.said) == 1
    assert len(duckdb.read_parquet(f"{folder}/*.accounting.parquet")) == 2
