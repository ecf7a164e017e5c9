"""What counting system calls costs: nanoseconds a call, for the process watched and for others.

A process makes the cheapest of calls, getppid, over and over: with no program attached, with
another process watched, and with itself watched (by its number, and by its control group where
there is cgroup v2). Rounds alternate; each figure is the median of its rounds. Needs root::

    python bench/processes.py [--calls 1000000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from perfmeasure.flows import bpfcall
from perfmeasure.flows.processes import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def main() -> None:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000, help="calls a round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each kind")
    arguments = parser.parse_args()
    own = os.getpid()
    with other_process() as other, own_cgroup() as cgroup:
        kinds: dict[str, Callable[[], SystemCalls] | None] = {
            "nothing attached": None,
            "another process watched": lambda: SystemCalls(pid=other),
            "watched by its number": lambda: SystemCalls(pid=own),
        }
        if cgroup is not None:
            kinds["watched by its control group"] = lambda: SystemCalls(cgroup=cgroup)
        rounds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(arguments.rounds):
            for kind, start in kinds.items():
                rounds[kind].append(ns_a_call(start, arguments.calls))
    base = statistics.median(rounds["nothing attached"])
    print(f"{'':32} ns a call   more by")
    for kind, values in rounds.items():
        median = statistics.median(values)
        print(f"{kind:32} {median:9.0f} {median - base:9.0f}")
    with bpf_statistics(), SystemCalls(pid=own) as system_calls:
        make_calls(arguments.calls)
        for function in ("on_enter", "on_exit"):
            runs, spent_ns = bpfcall.program_statistics(system_calls.program_fd(function))
            print(f"{function}: {spent_ns / runs:.0f} ns a run by the kernel's own count ({runs})")


def make_calls(count: int) -> None:
    """Make so many calls."""
    getppid = os.getppid
    for _ in range(count):
        getppid()


def ns_a_call(start: Callable[[], SystemCalls] | None, count: int) -> float:
    """Return this thread's processor time a call, the loop included."""
    with contextlib.ExitStack() as stack:
        system_calls = stack.enter_context(start()) if start is not None else None
        began = time.thread_time_ns()
        make_calls(count)
        spent = time.thread_time_ns() - began
        if system_calls is not None:
            accounting = system_calls.stop().accounting
            assert accounting.begun == 0 or accounting.begun >= count
    return spent / count


@contextlib.contextmanager
def other_process() -> Iterator[int]:
    """Have a process that waits."""
    gone, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(held)
        os.read(gone, 1)
        os._exit(0)
    os.close(gone)
    try:
        yield pid
    finally:
        os.close(held)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def own_cgroup() -> Iterator[Path | None]:
    """Put this process into a control group of its own, where there is cgroup v2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    if root is None:
        yield None
        return
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    before = root / next(line for line in lines if line.startswith("0::"))[3:].lstrip("/")
    folder = root / f"perfmeasure-bench-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        yield folder
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        folder.rmdir()


@contextlib.contextmanager
def bpf_statistics() -> Iterator[None]:
    """Have the kernel time its programs."""
    descriptor = bpfcall.enable_statistics()
    try:
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
