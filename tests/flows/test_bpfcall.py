from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from perfmeasure.flows import bpfcall
from perfmeasure.flows.bpfcall import AttachType, BatchReader, Command

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

HASH, ARRAY, PERCPU_HASH = 1, 2, 5
XDP_PASS = 2
KEY, VALUE = np.dtype([("number", "u4")]), np.dtype([("count", "u8")])


def make_map(kind: int, value_bytes: int, entries: int = 1000) -> int:
    attributes = struct.pack("=IIII", kind, 4, value_bytes, entries)
    return bpfcall.bpf(Command.MAP_CREATE, attributes.ljust(128, b"\0"))


@pytest.fixture
def descriptors(require: Callable[..., None]) -> Iterator[list[int]]:
    require("root", "bpf")
    made: list[int] = []
    yield made
    for descriptor in made:
        os.close(descriptor)


@pytest.fixture
def xdp(descriptors: list[int], tmp_path: Path) -> int:
    """A program that lets everything pass."""
    from perfmeasure.flows.loader import Program

    source = tmp_path / "pass.bpf.c"
    source.write_text("int all(struct xdp_md *context) { return XDP_PASS; }")
    program = Program(str(source), {"all": "XDP"})
    descriptors.append(os.dup(program.fd("all")))
    return descriptors[-1]


def test_what_the_kernel_refuses_is_an_oserror() -> None:
    with pytest.raises(OSError, match=r"Invalid argument|not permitted"):
        bpfcall.bpf(Command.MAP_CREATE, bytes(128))


def test_values_are_set_and_looked_up(descriptors: list[int]) -> None:
    descriptors.append(made := make_map(HASH, 8))
    assert bpfcall.lookup(made, struct.pack("=I", 7), 8) is None
    bpfcall.update(made, struct.pack("=I", 7), struct.pack("=Q", 49))
    assert bpfcall.lookup(made, struct.pack("=I", 7), 8) == struct.pack("=Q", 49)
    no_exist = 1
    with pytest.raises(OSError, match="exists"):
        bpfcall.update(made, struct.pack("=I", 7), struct.pack("=Q", 50), no_exist)
    assert bpfcall.take(made, struct.pack("=I", 7), 8) == struct.pack("=Q", 49)
    assert bpfcall.take(made, struct.pack("=I", 7), 8) is None


@pytest.mark.parametrize("batch_entries", [64, 32768])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_whole_maps_are_read_and_emptied(
    batch_entries: int, count: int, descriptors: list[int]
) -> None:
    descriptors.append(made := make_map(HASH, 8))
    for number in range(count):
        bpfcall.update(made, struct.pack("=I", number), struct.pack("=Q", number**2))
    reader = BatchReader(KEY, VALUE, batch_entries=batch_entries)
    for read in (reader.peek, reader.drain):
        keys, values = read(made)
        assert values.shape == (count, 1)
        assert sorted(keys["number"].tolist()) == list(range(count))
        assert (values["count"][:, 0] == keys["number"].astype("u8") ** 2).all()
    assert len(reader.drain(made)[0]) == 0


def test_a_per_processor_map_has_a_value_for_each(descriptors: list[int]) -> None:
    processors = bpfcall.possible_processors()
    assert processors >= (os.cpu_count() or 1)
    descriptors.append(made := make_map(PERCPU_HASH, 8))
    numbers = np.arange(processors, dtype="u8")
    bpfcall.update(made, struct.pack("=I", 3), numbers.tobytes())
    _, values = BatchReader(KEY, VALUE, processors).drain(made)
    assert values["count"].tolist() == [numbers.tolist()]


def test_a_value_that_is_not_padded_is_refused() -> None:
    with pytest.raises(ValueError, match="padded"):
        BatchReader(KEY, np.dtype([("count", "u4")]), processors=2)


def test_a_program_runs_on_a_frame(xdp: int) -> None:
    ran = bpfcall.test_run(xdp, bytes(60), repeat=1000)
    assert ran.return_value == XDP_PASS
    assert 0 < ran.duration_ns < 100_000
    with pytest.raises(OSError, match="Invalid argument"):
        bpfcall.test_run(xdp, bytes(5))


def test_run_times_are_counted_while_they_are_enabled(xdp: int) -> None:
    statistics = bpfcall.enable_statistics()
    before = bpfcall.program_statistics(xdp)
    link = bpfcall.link_create(xdp, 1, AttachType.XDP, 2)  # loopback, generic
    try:
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(10):
                sock.sendto(b"x", ("127.0.0.1", 9))
        after = bpfcall.program_statistics(xdp)
    finally:
        os.close(link)
        os.close(statistics)
    assert after.run_count - before.run_count >= 10
    assert after.run_time_ns > before.run_time_ns


def test_a_hook_that_is_taken_is_busy_and_free_when_its_link_is_closed(xdp: int) -> None:
    link = bpfcall.link_create(xdp, 1, AttachType.XDP, 2)
    with pytest.raises(OSError, match="busy") as caught:
        bpfcall.link_create(xdp, 1, AttachType.XDP, 2)
    assert caught.value.errno == errno.EBUSY
    os.close(link)
    for _ in range(100):  # the kernel lets go of it a moment later
        try:
            os.close(bpfcall.link_create(xdp, 1, AttachType.XDP, 2))
        except OSError:
            time.sleep(0.01)
        else:
            return
    pytest.fail("the hook was not set free")


def test_the_barrier_returns() -> None:
    bpfcall.wait_for_programs()


def test_a_machine_of_another_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    for call in (bpfcall.enable_statistics, bpfcall.wait_for_programs):
        with pytest.raises(OSError, match="on vax"):
            call()
