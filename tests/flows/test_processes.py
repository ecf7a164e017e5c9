"""System calls counted in the kernel, against programs that make a known number of them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.flows import bpfcall
from perfmeasure.flows.processes import CallAccounting, CallRow, Calls, SystemCalls

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

# Reads one line of Python after the other and runs it; says when it is done.
CHILD = """
import os, sys, threading, time
for line in iter(sys.stdin.readline, ""):
    exec(line)
    print(flush=True)
"""
DEADLINE_SECONDS = 20


class Child:
    """A Python program that does what it is told, line by line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.do("pass")

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def do(self, line: str) -> str:
        self.tell(line)
        return self.answer()

    def wait_in_call(self, call: str) -> None:
        """Wait until the program's first thread is in the call of that number."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while Path(f"/proc/{self.pid}/syscall").read_text().split()[0] != call:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=DEADLINE_SECONDS)


@pytest.fixture
def child(require: Callable[..., None]) -> Iterator[Child]:
    require("root", "bpf")
    process = Child()
    yield process
    process.end()


def count_of(calls: Calls, name: str) -> int:
    return sum(row.returned_count for row in calls.rows if row.call == name)


def law(accounting: CallAccounting) -> None:
    assert accounting.missing == 0
    assert accounting.begun == (
        accounting.returned + accounting.unreturned + accounting.in_flight + accounting.full
    )


def test_known_calls_are_counted_to_the_last_and_timed(child: Child) -> None:
    # The child waits for its next line: a call that began before the start.
    child.wait_in_call({"x86_64": "0", "aarch64": "63"}[platform.machine()])
    with SystemCalls(pid=child.pid) as system_calls:
        child.do("[os.getppid() for _ in range(1000)]")
        child.do("fd = os.open('/dev/zero', os.O_RDONLY); [os.pread(fd, 9, 0) for _ in range(200)]")
        child.do(
            "threads = [threading.Thread(target=lambda: [os.getpgid(0) for _ in range(500)])"
            " for _ in range(4)]; [t.start() for t in threads]; [t.join() for t in threads]"
        )
        own = child.do(
            "began = time.monotonic_ns(); [time.sleep(0.02) for _ in range(5)];"
            " print(time.monotonic_ns() - began)"
        )
        child.answer()
        child.do("os.setgid(65534), os.setuid(65534), [os.getppid() for _ in range(30)]")
        moving = system_calls.read()
        child.tell("time.sleep(60)")
        child.wait_in_call({"x86_64": "230", "aarch64": "115"}[platform.machine()])
        calls = system_calls.stop()

    assert count_of(moving, "pread64") == 200
    assert count_of(calls, "pread64") == 200
    assert count_of(calls, "getpgid") == 2000
    parents = {
        (row.uid, row.gid): row.returned_count for row in calls.rows if row.call == "getppid"
    }
    assert parents == {(os.getuid(), os.getgid()): 1000, (65534, 65534): 30}
    assert {row.pid for row in calls.rows} == {child.pid}

    # The sleep still under way at the end has no duration; each of the others took what it was
    # asked for, and not longer than it took by the child's own clock.
    sleep = next(row for row in calls.rows if row.call == "clock_nanosleep")
    assert sleep.returned_count == 5
    assert sleep.total_ns is not None
    assert sleep.min_ns is not None
    assert sleep.max_ns is not None
    assert 20_000_000 <= sleep.min_ns <= sleep.max_ns
    assert 100_000_000 <= sleep.total_ns <= int(own)
    assert sleep.min_ns * 5 <= sleep.total_ns <= sleep.max_ns * 5
    law(calls.accounting)
    assert (
        calls.accounting.unpaired == 5
    )  # that first read, and the first return of each new thread
    assert calls.accounting.in_flight == 1
    assert calls.accounting.unreturned == 4  # the threads' own ends
    assert calls.accounting.full == 0

    document = calls.document()
    assert document["accounting"]["begun_calls"] == calls.accounting.begun
    exits = [row for row in document["calls"] if row["call"] == "exit"]
    assert [row["unreturned_count"] for row in exits] == [4]
    assert "total_ns" not in exits[0]  # unknown is absent


def test_what_has_no_room_is_counted(child: Child) -> None:
    with SystemCalls(pid=child.pid, most_rows=2, most_threads=1) as system_calls:
        child.do("[os.getppid() for _ in range(100)]")
        child.do(
            "threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(8)];"
            " [t.start() for t in threads]; [t.join() for t in threads]"
        )
        calls = system_calls.stop()
    law(calls.accounting)
    assert len(calls.rows) == 2
    assert calls.accounting.full > 8


def test_a_killed_process_and_a_second_thread_that_executes_leave_nothing_open(
    child: Child,
) -> None:
    with SystemCalls(pid=child.pid) as system_calls:
        program = "import os; [os.getppid() for _ in range(40)]; input()"
        child.tell(
            f"threading.Thread(target=os.execv, args=({sys.executable!r},"
            f" [{sys.executable!r}, '-c', {program!r}])).start(); time.sleep(60)"
        )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while count_of(system_calls.read(), "getppid") < 40:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.end()
        calls = system_calls.stop()
    law(calls.accounting)
    assert count_of(calls, "getppid") == 40
    # execve was begun under one number and returned under another, which the end cannot know.
    assert calls.accounting.in_flight == 1


@pytest.fixture
def cgroup(require: Callable[..., None]) -> Iterator[Path]:
    """A control group of version 2 with one below it."""
    require("root", "bpf")
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    if not roots:
        pytest.skip("no cgroup v2")
    folder = roots[0] / f"perfmeasure-test-{os.getpid()}"
    (folder / "below").mkdir(parents=True)
    yield folder
    (folder / "below").rmdir()
    folder.rmdir()


def test_a_cgroup_is_counted_with_those_below_it_and_nothing_else(cgroup: Path) -> None:
    children = [Child() for _ in range(3)]
    inside, below, outside = children
    try:
        (cgroup / "cgroup.procs").write_text(str(inside.pid))
        (cgroup / "below/cgroup.procs").write_text(str(below.pid))
        with SystemCalls(cgroup=cgroup) as system_calls:
            for count, process in zip((100, 200, 300), children, strict=True):
                process.do(f"[os.getppid() for _ in range({count})]")
            # It leaves in the midst of a call, which is counted, and no other after it.
            inside.do(
                f"file = open({str(cgroup.parent / 'cgroup.procs')!r}, 'w');"
                " file.write('0'); file.close(); [os.getppid() for _ in range(50)]"
            )
            calls = system_calls.stop()
    finally:
        for process in children:
            process.end()
    law(calls.accounting)
    assert {row.pid: row.returned_count for row in calls.rows if row.call == "getppid"} == {
        inside.pid: 100,
        below.pid: 200,
    }
    assert outside.pid not in {row.pid for row in calls.rows}
    assert {row.pid: row.returned_count for row in calls.rows if row.call == "write"}[
        inside.pid
    ] >= 1
    assert calls.accounting.in_flight == 1  # `below` waits for its next line


def test_calls_of_32_bit_programs_are_not_mistaken_for_others(child: Child, tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the program is one for x86")
    # getpid (20) ten times, exit (1) with status 0.
    code = bytes.fromhex("be0a000000b814000000cd804e75f631dbb801000000cd80")
    base = 0x08048000
    header = b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    size = 84 + len(code)
    header += struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000)
    program = tmp_path / "thirty-two"
    program.write_bytes(header + code)
    program.chmod(0o755)
    try:
        subprocess.run([program], check=True)
    except OSError:
        pytest.skip("the kernel runs no 32-bit programs")
    with SystemCalls(pid=child.pid) as system_calls:
        child.tell(f"os.execv({str(program)!r}, ['thirty-two'])")
        assert child.answer() == ""  # its end
        calls = system_calls.stop()
    law(calls.accounting)
    assert count_of(calls, "32-bit:20") == 10
    assert [r.unreturned_count for r in calls.rows if r.call == "32-bit:1"] == [1]
    assert count_of(calls, "writev") == 0  # which has the number 20


def loaded_programs(name: str) -> set[int]:
    """Return the numbers of the kernel's programs of a name."""
    found: set[int] = set()
    number = 0
    while True:
        query = ctypes.create_string_buffer(struct.pack("=II", number, 0), 128)
        try:
            bpfcall.bpf(11, query)  # BPF_PROG_GET_NEXT_ID
        except FileNotFoundError:
            return found
        number = struct.unpack_from("=I", query, 4)[0]
        try:
            descriptor = bpfcall.bpf(13, struct.pack("=I", number).ljust(128, b"\0"))
        except FileNotFoundError:
            continue  # it went meanwhile
        info = ctypes.create_string_buffer(232)
        attributes = struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info))
        bpfcall.bpf(bpfcall.Command.OBJ_GET_INFO_BY_FD, attributes.ljust(128, b"\0"))
        os.close(descriptor)
        if info.raw[64:80].rstrip(b"\0").decode() == name:
            found.add(number)


def test_nothing_stays_in_the_kernel_of_a_killed_counter(child: Child) -> None:
    before = loaded_programs("on_enter")
    code = (
        "import sys; from perfmeasure.flows.processes import SystemCalls;"
        f"calls = SystemCalls(pid={child.pid}); print(flush=True); sys.stdin.read()"
    )
    counter = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert counter.stdout is not None
        assert counter.stdout.readline() == b"\n"
        ours = loaded_programs("on_enter") - before
        assert ours
    finally:
        counter.kill()
        counter.communicate(timeout=DEADLINE_SECONDS)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while loaded_programs("on_enter") & ours:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rows_and_accounting_are_said() -> None:
    rows = [
        CallRow(0, 7, 12, "read", 1500, 0, 2_500_000, 900, 70_000),
        CallRow(0, 7, 12, "exit_group", 0, 1, None, None, None),
    ]
    calls = Calls(rows, CallAccounting(1502, 1500, 1, 1, 0, 3))
    head, read, end, accounting = calls.lines(10)
    assert head.split()[:5] == ["UID", "GID", "PID", "CALL", "COUNT"]
    assert read.split() == ["0", "7", "12", "read", "1,500", "2.500", "0.900", "70.000"]
    assert end.split()[3:] == ["exit_group", "1", "never", "returned"]
    assert accounting == (
        "calls: begun 1,502, returned 1,500, unreturned 1, in flight 1, full 0, unpaired 3"
    )
    assert len(calls.lines(1)) == 3


def test_a_broken_law_fails_the_run(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    with SystemCalls.of(str(child.pid)) as system_calls:
        child.do("[os.getppid() for _ in range(10)]")
        read = system_calls.read

        def lose_one() -> Calls:
            calls = read()
            fewer = calls.accounting.returned - 1
            return calls._replace(accounting=calls.accounting._replace(returned=fewer))

        monkeypatch.setattr(system_calls, "read", lose_one)
        with pytest.raises(MeasurementError, match=r"1 of \d+ are unaccounted for"):
            system_calls.stop()


def test_never_unfiltered(require: Callable[..., None], tmp_path: Path) -> None:
    require("root", "bpf")
    with pytest.raises(UsageError, match="not exactly one filter"):
        SystemCalls()
    with pytest.raises(UsageError, match="not exactly one filter"):
        SystemCalls(pid=1, cgroup=tmp_path)
    with pytest.raises(UsageError, match="there is no process"):
        SystemCalls(pid=2**22 + 1)
    with pytest.raises(UsageError, match="cannot be opened"):
        SystemCalls.of(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="is no cgroup"):
        SystemCalls(cgroup=tmp_path)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2" and not Path(line.split()[1], "cgroup.type").exists():
            with pytest.raises(UsageError, match="the whole machine"):
                SystemCalls(cgroup=Path(line.split()[1]))
