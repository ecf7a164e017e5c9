"""The recorder as a whole: on real lines, on a disk that is full, and however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.recorder.catalogue import Catalogue
from perfmeasure.recorder.classes import PacketClass
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.connections import Rules
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.recording import Recording
from perfmeasure.recorder.records import FRAME
from perfmeasure.recorder.writer import Limits, StoreWriter
from tests.recorder import made
from tests.recorder.test_recording import one, stored
from tests.recorder.test_statistics import rows_of
from tests.recorder.wire import HERE, Line, Running

ROOT = Path(__file__).resolve().parent.parent.parent
_SECONDS = 30.0
_MAIN = "from perfmeasure.cli import main; main()"


@pytest.fixture
def small(tmp_path: Path, require: Callable[..., None]) -> Iterator[Path]:
    """A file system of 24 MiB."""
    require("root", "mount")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)]
    subprocess.run(command, check=True, timeout=_SECONDS)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True, timeout=_SECONDS)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def test_a_full_disk_pauses_the_recording(line: Line, small: Path) -> None:
    setup = Setup(
        classes=(PacketClass("all", limits=Limits(segment_bytes=4 << 20)),),
        log_interval_seconds=0.2,
    )
    (small / "other").write_bytes(bytes(10 << 20))
    running = Running(small / "store", setup, line.name)
    frame = made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2, 8000))
    sent = 0
    while not running.messages and sent < 6000:
        line.send([frame] * 20)
        sent += 20
        time.sleep(0.005)
    wait_for(lambda: bool(running.messages), "no message")
    assert "cannot be written (No space left on device)" in running.messages[0]
    assert "Recording pauses until there is room" in running.messages[0]
    line.send([frame] * 100)
    sent += 100
    time.sleep(1.5)
    assert len(running.messages) == 1, "one message, not one a packet"
    (small / "other").unlink()
    wait_for(lambda: len(running.messages) > 1, "it does not go on")
    assert running.messages[1].endswith("there is room again, recording goes on")
    line.send([frame] * 50)
    sent += 50
    running.wait_for(sent)
    recorder = running.stop()
    assert recorder.recording is not None
    kept = int(recorder.writer.stored["all"][0])
    unstored = int(recorder.recording.totals.unstored[0, 0])
    assert kept + unstored == sent
    assert unstored >= 100
    assert f"{unstored} left out while the disk was full" in recorder.summary()
    assert stored(small / "store") == {"all": [frame] * kept}
    drops = [entry.summary.drops for entry in Catalogue(small / "store").segments()]
    assert sum(drops) == unstored, "the gap shows in answers"
    states = [row["state"] for row in rows_of(small / "store", "stats")]
    assert states[0] == states[-1] == "recording"
    assert "paused" in states
    assert rows_of(small / "store", "stats")[-1]["unstored_pkts"] == str(unstored)


def test_segments_close_in_time_on_a_quiet_line(line: Line, tmp_path: Path) -> None:
    setup = Setup(classes=(PacketClass("all", limits=Limits(segment_seconds=0.5)),))
    running = Running(tmp_path, setup, line.name)
    line.send([one().frame])
    wait_for(lambda: bool(list(tmp_path.glob("segments/all/*.pcap"))), "the segment stays open")
    running.stop()
    assert stored(tmp_path) == {"all": [one().frame]}


def test_drops_are_noted_with_the_segments(line: Line, tmp_path: Path) -> None:
    running = Running(tmp_path, Setup(), line.name)
    frame = made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2, 8000))
    line.send([frame])
    running.wait_for(1)
    held = threading.Event()
    released = running.recorder.submit(lambda _: held.wait(_SECONDS))
    line.send([frame] * 10_000)  # 80 MB, and the ring has 64 MiB
    held.set()
    assert released.result(_SECONDS)
    recorder = running.stop()
    assert recorder.recording is not None
    dropped = recorder.losses.dropped
    assert dropped > 0
    assert recorder.recording.totals.packets + dropped == 10_001
    assert f"{dropped} lost" in recorder.summary()
    assert [entry.summary.drops for entry in Catalogue(tmp_path).segments()] == [dropped]
    assert rows_of(tmp_path, "stats")[-1]["pcap_drop"] == str(dropped)


def test_drops_between_two_segments_are_noted_with_the_next(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    writer.add_drops(3)
    writer.add_drops(4)
    recording = Recording(writer, Setup())
    frames = np.zeros(1, FRAME)
    frames["captured"] = frames["original"] = len(one().frame)
    frames["link"] = 1
    recording.add(one().frame, frames)
    writer.add_drops(1)
    writer.close()
    (entry,) = Catalogue(tmp_path).segments()
    assert entry.summary.drops == 8


def test_errors_of_a_call_are_the_callers(line: Line, tmp_path: Path) -> None:
    running = Running(tmp_path, Setup(), line.name)
    with pytest.raises(ZeroDivisionError):
        running.call(lambda _: 1 // 0)
    assert running.call(lambda _: 7) == 7
    running.stop()
    assert running.recorder.submit(lambda _: 7).cancelled(), "nobody is there to answer"
    running.recorder.stop()


def test_a_filter_is_obeyed_on_a_line_and_in_files(line: Line, tmp_path: Path) -> None:
    # Of a frame whose tag the card took out, pcap's "udp" says in the kernel that it is one.
    packets = [p for p in made.trace(61, 500) if not made.fields(p.frame).vlans]
    frames = [p.frame for p in packets]
    setup = Setup(classes=(PacketClass("all", cutoff_bytes=10**9),), filter="udp")
    running = Running(tmp_path / "line", setup, line.name)
    line.send(frames)
    time.sleep(0.3)
    running.stop()
    (tmp_path / "in.pcap").write_bytes(made.pcap(packets))
    recorder = Recorder(tmp_path / "file", setup, pytest.fail)
    recorder.read([tmp_path / "in.pcap"])
    recorder.close()
    found = stored(tmp_path / "line")
    assert found == stored(tmp_path / "file")
    assert 0 < len(found["all"]) < len(frames)


def test_a_small_timeout_and_rules_reach_the_table(tmp_path: Path) -> None:
    packets = [one(), one(), one(seconds=2)]
    (tmp_path / "in.pcap").write_bytes(made.pcap(packets))
    for seconds, kept in ((1.0, 2), (3.0, 1)):
        rules = Rules(timeout_seconds=seconds)
        setup = Setup(classes=(PacketClass("all", cutoff_bytes=1),), rules=rules)
        recorder = Recorder(tmp_path / str(seconds), setup, pytest.fail)
        recorder.read([tmp_path / "in.pcap"])
        recorder.close()
        assert int(recorder.writer.stored["all"][0]) == kept


# ---- as a process -------------------------------------------------------------------------------


def spawn(
    line: Line, store: Path, *options: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the command on the line, and return when it takes packets."""
    command = [
        "ip", "netns", "exec", line.name, sys.executable, "-c", _MAIN, "record", "-i", HERE,
        "--store", str(store), *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )  # fmt: skip
    until = time.monotonic() + _SECONDS
    while not list(store.glob("segments/*/*.part")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no packet in 30 s"
        line.send([one().frame])
        time.sleep(0.05)
    return process


def test_sigterm_ends_it_in_order(line: Line, tmp_path: Path) -> None:
    process = spawn(line, tmp_path)
    try:
        line.send([one(port=7).frame] * 10)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert "lost" not in out
    assert stored(tmp_path)["all"][-10:] == [one(port=7).frame] * 10
    assert not list(tmp_path.glob("segments/*/*.part"))
    assert len(list(tmp_path.glob("segments/all/*.npz"))) == 1


def test_sigkill_loses_nothing_that_was_written(line: Line, tmp_path: Path) -> None:
    process = spawn(line, tmp_path)
    try:
        line.send([one(port=7).frame] * 10)
        (part,) = tmp_path.glob("segments/all/*.part")
        wait_for(lambda: part.read_bytes().count(one(port=7).frame) == 10, "not written through")
    finally:
        process.kill()
        process.communicate(timeout=_SECONDS)
    with part.open("ab") as file:
        file.write(b"half of a record")
    messages: list[str] = []
    Recorder(tmp_path, Setup(), messages.append).close()
    assert any("indexed anew" in message for message in messages)
    assert stored(tmp_path)["all"][-10:] == [one(port=7).frame] * 10


def test_it_goes_on_where_the_line_was_down(line: Line, tmp_path: Path) -> None:
    process = spawn(line, tmp_path)
    try:
        subprocess.run(["ip", "-n", line.name, "link", "set", HERE, "down"], check=True)
        time.sleep(0.2)
        subprocess.run(["ip", "-n", line.name, "link", "set", HERE, "up"], check=True)
        time.sleep(0.2)
        line.send([one(port=9).frame] * 3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert stored(tmp_path)["all"][-3:] == [one(port=9).frame] * 3


def test_numpy_records_the_same(line: Line, tmp_path: Path) -> None:
    """Where no extension could be built; with a cutoff, in user space or in the kernel."""
    frames = [p.frame for p in made.trace(62, 1500, connections=20)]
    found = []
    for name in ("", "1"):
        store = tmp_path / f"store{name}"
        options = {"PERFMEASURE_PLAIN": name}
        process = spawn(line, store, "--cutoff", "3 KB", environment=options)
        try:
            line.send(frames)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=_SECONDS)
        finally:
            process.kill()
        assert (process.returncode, err) == (0, "")
        found.append([frame for frame in stored(store)["all"] if frame != one().frame])
    native, numpy = found
    assert native == numpy
    assert 0 < len(native) < len(frames)
