"""The kernel's cutoff against user space's, on the same real traffic."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.errors import MissingError
from perfmeasure.recorder import capture
from perfmeasure.recorder.classes import PacketClass
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.connections import Rules
from perfmeasure.recorder.cutoff import CUT_FLOW
from perfmeasure.recorder.recording import Recording
from perfmeasure.recorder.records import IN_KERNEL, RST
from tests.recorder import made
from tests.recorder.test_recording import KEY, one, stored
from tests.recorder.wire import Line, Running

CUTOFF = 4000


@pytest.fixture(autouse=True)
def _needs(require: Callable[..., None]) -> None:
    require("root", "bpf")


def setup_of(timeout_seconds: float = 0.5, **options: bool) -> Setup:
    return Setup(
        classes=(
            PacketClass("web", "port 80", 2, cutoff_bytes=CUTOFF),
            PacketClass("rest", "not port 81", 1, cutoff_bytes=2 * CUTOFF),
        ),
        rules=Rules(timeout_seconds=timeout_seconds, **options),
        log_interval_seconds=0.5,
    )


def frame_of(rng: random.Random, number: int) -> bytes:
    """Return a packet of one of some connections, of both IP versions, some in a VLAN."""
    port = (80, 81, 82)[number % 3]
    a, b = ("2001:db8::1", "2001:db8::2") if number % 4 == 3 else ("10.0.0.1", "10.0.0.2")
    ends = (a, 1000 + number, b, port) if rng.random() < 0.5 else (b, port, a, 1000 + number)
    if number % 5 == 4:
        packet = made.udp(*ends, rng.randrange(1300))
    else:
        kinds = [made.ACK, made.SYN, made.FIN | made.ACK, made.RST, made.SYN | made.ACK]
        packet = made.tcp(*ends, rng.randrange(1300), rng.choices(kinds, [200, 1, 1, 0.3, 1])[0])
    vlans = [(), (), (7,), (7, 8)][number % 4]
    return made.ethernet(packet, vlans=vlans)


@pytest.mark.parametrize("ends_by_flags", [True, False])
def test_both_paths_keep_identical_packets(
    line: Line, tmp_path: Path, ends_by_flags: bool, is_long: bool
) -> None:
    """Two recorders on one interface; pauses, ends and 5-tuples that come again."""
    setup = setup_of(ends_by_flags=ends_by_flags)
    kernel = Running(tmp_path / "kernel", setup, line.name)
    user = Running(tmp_path / "user", setup, line.name, is_cut_in_kernel=False)
    assert not kernel.messages
    rng = random.Random(51)
    count = total = 0
    with line.sender() as send:
        for _ in range(30 if is_long else 4):
            for burst in range(25):
                for _ in range(100):
                    frame = frame_of(rng, rng.randrange(16))
                    send(frame)
                    count += 1
                    total += len(frame)
                time.sleep(0.01 if burst % 10 else 0.1)
            time.sleep(rng.choice([0.1, 0.8]))
    kernel.wait_for(count)
    user.wait_for(count)
    for running in (kernel, user):
        recording = running.recorder.recording
        assert recording is not None
        assert recording.seen() == (count, total)
        cut = np.sum([recording.cut(number) for number in range(3)], axis=0)
        kept = running.recorder.writer.stored
        assert int(cut[0]) + sum(int(each[0]) for each in kept.values()) == count
        assert int(cut[1]) + sum(int(each[1]) for each in kept.values()) == total
    program = kernel.call(lambda recording: recording.kernel)
    assert program.seen().tolist() == [count, total], "the filter sees every frame"
    assert program.all_cut()[0] > count // 10, "and cuts a part worth having"
    assert kernel.stop().losses.dropped == user.stop().losses.dropped == 0
    assert stored(tmp_path / "kernel") == stored(tmp_path / "user") != {}


def in_kernel(running: Running) -> int:
    """Return how many connections the kernel has, and check that the rows say the same."""

    def count(recording: Recording) -> int:
        assert recording.kernel is not None
        rows = recording.connections.table
        assert np.count_nonzero(rows["state"] & IN_KERNEL) == recording.kernel.count
        return int(recording.kernel.count)

    return int(running.call(count))


def wait_until_cut(line: Line, running: Running, frame: bytes) -> None:
    """Send packets until the kernel cuts them."""
    before = running.call(lambda recording: recording.kernel.all_cut()[0])
    for _ in range(200):
        line.send([frame])
        time.sleep(0.01)
        if running.call(lambda recording: recording.kernel.all_cut()[0]) > before:
            return
    pytest.fail("the kernel cut nothing")


def test_a_row_knows_what_the_kernel_cut(line: Line, tmp_path: Path) -> None:
    running = Running(tmp_path, setup_of(60), line.name)
    frame = one().frame
    line.send([frame] * 50)
    wait_until_cut(line, running, frame)
    line.send([frame] * 20)
    sent = running.call(lambda recording: recording.kernel.seen().tolist())[0]
    running.wait_for(sent)
    assert in_kernel(running) == 1

    def look(recording: Recording) -> tuple[int, int, int]:
        row = recording.connections.table[recording.find(KEY)]
        return int(row["packets"]), int(row["bytes"]), int(row["last_ns"])

    packets, size, last_ns = running.call(look)
    assert (packets, size) == (sent, sent * len(frame))
    assert abs(last_ns - time.time_ns()) < 5e9
    assert in_kernel(running) == 0, "who asks for a row has it taken out of the kernel's table"
    running.stop()


def test_suspending_lets_all_packets_through(line: Line, tmp_path: Path) -> None:
    running = Running(tmp_path, setup_of(60), line.name)
    frame = one().frame
    line.send([frame] * 50)
    wait_until_cut(line, running, frame)
    running.call(lambda recording: recording.suspend_cutoff(KEY))
    before = running.call(lambda _: int(running.recorder.writer.stored["web"][0]))
    cut = running.call(lambda recording: recording.kernel.all_cut()[0])
    line.send([frame] * 30)
    running.wait_for(running.call(lambda recording: recording.kernel.seen().tolist())[0])
    assert running.call(lambda _: int(running.recorder.writer.stored["web"][0])) == before + 30
    running.call(lambda recording: recording.suspend_cutoff(KEY, is_suspended=False))
    wait_until_cut(line, running, frame)
    assert running.call(lambda recording: recording.kernel.all_cut()[0]) > cut
    running.stop()


def test_what_ends_or_may_begin_anew_leaves_the_table(line: Line, tmp_path: Path) -> None:
    running = Running(tmp_path, setup_of(60), line.name)
    frame = one().frame
    line.send([frame] * 50)
    wait_until_cut(line, running, frame)
    # A SYN alone does not end a connection; it lifts the entry, which is then taken out.
    line.send([one(made.SYN).frame])
    time.sleep(0.3)
    running.call(lambda recording: recording.kernel.refresh(recording.connections.table))
    assert in_kernel(running) == 0
    wait_until_cut(line, running, frame)
    # After RST and SYN there is another connection, of which all is kept again.
    line.send([one(made.RST).frame, one(made.SYN).frame])
    kept = 1 + -(-(CUTOFF - len(frame)) // len(frame))
    before = running.call(lambda _: int(running.recorder.writer.stored["web"][0]))
    line.send([frame] * 100)
    running.wait_for(running.call(lambda recording: recording.kernel.seen().tolist())[0])
    after = running.call(lambda _: int(running.recorder.writer.stored["web"][0]))
    assert kept - 1 <= after - before <= kept, "the SYN may have been counted before"
    running.stop()


def test_connections_that_are_closing_are_not_entered(line: Line, tmp_path: Path) -> None:
    running = Running(tmp_path, setup_of(60), line.name)
    line.send([one(made.RST).frame] * 100)
    running.wait_for(100)
    assert in_kernel(running) == 0
    states = running.call(lambda recording: recording.connections.table["state"].tolist())
    assert all(state & RST for state in states)
    running.stop()


def test_a_full_table_leaves_the_rest_to_user_space(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfmeasure.recorder.cutoff._MAX_FLOWS", 4)
    running = Running(tmp_path, setup_of(60), line.name)
    frames = [one(port=2000 + number % 10).frame for number in range(600)]
    line.send(frames)
    running.wait_for(len(frames))
    kernel = running.call(lambda recording: recording.kernel)
    assert 1 <= in_kernel(running) <= 4
    assert kernel.refused > 0
    each = -(-CUTOFF // len(frames[0]))
    assert running.stop().writer.stored["web"][0] == 10 * each


def test_where_there_is_no_bpf_user_space_cuts(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise MissingError("bcc", "cannot be imported", next_step="apt-get install it")

    monkeypatch.setattr(capture, "KernelCutoff", none)
    running = Running(tmp_path, setup_of(60), line.name)
    line.send([one().frame] * 100)
    running.wait_for(100)
    stored_packets = running.stop().writer.stored["web"][0]
    assert stored_packets == -(-CUTOFF // len(one().frame))
    (message,) = running.messages
    assert message == (
        "bcc: cannot be imported. Apt-get install it. What is past its cutoff is copied, and then "
        "left out"
    )


def test_the_structure_is_the_kernels(line: Line, tmp_path: Path) -> None:
    running = Running(tmp_path, setup_of(60), line.name)
    program = running.call(lambda recording: recording.kernel._program)
    assert program.table["cut_flows"].Leaf.__sizeof__ is not None
    fields = program.table["cut_flows"].Leaf._fields_
    assert [name for name, _ in fields] == list(CUT_FLOW.names or ())
    running.stop()
