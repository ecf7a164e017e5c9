"""System calls counted in the kernel by user, group, process and call, with their durations.

The rows are cumulative and never deleted, so that reading them can lose nothing. What is read while
calls are made is a look at moving counters; what `SystemCalls.stop` returns, after the programs
are detached and the last of them has ended, is exact.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from perfmeasure.errors import MeasurementError, MissingError, UsageError
from perfmeasure.flows import bpfcall
from perfmeasure.flows.call_names import call_name, call_names
from perfmeasure.flows.loader import Program

MOST_ROWS = 16384
MOST_THREADS = 16384

_KEY = np.dtype([("uid", "u4"), ("gid", "u4"), ("pid", "u4"), ("call", "u4")])
_ROW = np.dtype(
    [
        ("returned_count", "u8"),
        ("total_ns", "u8"),
        ("min_ns", "u8"),
        ("max_ns", "u8"),
        ("unreturned_count", "u8"),
    ]
)
_THREAD = np.dtype([("begun_monotonic_ns", "u8"), ("key", _KEY)])
_TOTALS = np.dtype([(name, "u8") for name in ("begun", "rows_full", "threads_full", "unpaired")])
_FUNCTIONS = ("on_thread_end", "on_exit", "on_enter")
_TRACEPOINTS = {
    "on_thread_end": "sched_process_exit",
    "on_exit": "sys_exit",
    "on_enter": "sys_enter",
}


class CallRow(NamedTuple):
    """The calls of one kind that one process made under one user and group.

    The durations are of the calls that returned, and None where none did.
    """

    uid: int
    gid: int
    pid: int
    call: str
    returned_count: int
    unreturned_count: int
    total_ns: int | None
    min_ns: int | None
    max_ns: int | None


class CallAccounting(NamedTuple):
    """Where the calls are that began; each number has its own counter or its own entries.

    ``unreturned`` calls ended their thread; ``full`` ones had no room in the tables, ``unpaired``
    ones returned without a begin on record: it was before the start, or had no room.
    """

    begun: int
    returned: int
    unreturned: int
    in_flight: int
    full: int
    unpaired: int

    @property
    def missing(self) -> int:
        """Return the calls that are in none of the terms: 0, when the programs are detached."""
        return self.begun - self.returned - self.unreturned - self.in_flight - self.full


class Calls(NamedTuple):
    """What was counted from the start on; rows in the order of their total time, longest first."""

    rows: list[CallRow]
    accounting: CallAccounting

    def lines(self, count: int) -> list[str]:
        """Return the ``count`` rows with the longest total time, and the accounting, for people."""
        head = f"{'UID':>6} {'GID':>6} {'PID':>8} {'CALL':20} {'COUNT':>10} "
        found = [head + f"{'TOTAL ms':>12} {'MIN us':>10} {'MAX us':>12}"]
        for row in self.rows[:count]:
            line = f"{row.uid:>6} {row.gid:>6} {row.pid:>8} {row.call:20} "
            if row.total_ns is None or row.min_ns is None or row.max_ns is None:
                line += f"{row.unreturned_count:>10,} never returned"
            else:
                line += (
                    f"{row.returned_count:>10,} {row.total_ns / 1e6:>12,.3f} "
                    f"{row.min_ns / 1e3:>10,.3f} {row.max_ns / 1e3:>12,.3f}"
                )
            found.append(line)
        counts = (
            f"{name.replace('_', ' ')} {number:,}"
            for name, number in self.accounting._asdict().items()
        )
        return [*found, "calls: " + ", ".join(counts)]

    def document(self) -> dict[str, Any]:
        """Return it for JSON: ``{"accounting": {"begun_calls", …}, "calls": [{"uid", …}]}``."""
        return {
            "accounting": {
                f"{name}_calls": count for name, count in self.accounting._asdict().items()
            },
            "calls": [
                {name: value for name, value in row._asdict().items() if value is not None}
                for row in self.rows
            ],
        }


class SystemCalls:
    """Counts the system calls of one process, or of a control group and those below it.

    Args:
        pid: the process, as the first PID namespace numbers it.
        cgroup: the control group's folder, of cgroup v2. The root is the whole machine, and is
            refused.
        most_rows: how many (user, group, process, call) there is room for; what exceeds it is
            counted.
        most_threads: how many threads there is room for; calls of others are counted as full.

    Raises:
        UsageError: not exactly one of ``pid`` and ``cgroup``, or such a one does not exist.
        MissingError: the programs cannot be compiled, loaded or attached here.
    """

    def __init__(
        self,
        *,
        pid: int | None = None,
        cgroup: Path | None = None,
        most_rows: int = MOST_ROWS,
        most_threads: int = MOST_THREADS,
    ) -> None:
        if (pid is None) == (cgroup is None):
            raise UsageError("system calls", "not exactly one filter", "a process or a cgroup")
        if pid is not None and not Path(f"/proc/{pid}").is_dir():
            raise UsageError("system calls", f"there is no process {pid}")
        wanted = {"WANTED_CGROUP": 1} if pid is None else {"WANTED_PID": pid}
        with contextlib.ExitStack() as stack:
            cgroup_fd = None if cgroup is None else _open_cgroup(cgroup)
            if cgroup_fd is not None:
                stack.callback(os.close, cgroup_fd)
            self._program = Program(
                "processes.bpf.c",
                dict.fromkeys(_FUNCTIONS, "RAW_TRACEPOINT"),
                {**wanted, "MOST_ROWS": most_rows, "MOST_THREADS": most_threads},
            )
            if cgroup_fd is not None:
                _want(self._program.map_fd("wanted"), cgroup_fd, str(cgroup))
        processors = bpfcall.possible_processors()
        self._rows = bpfcall.BatchReader(_KEY, _ROW, processors, most_rows)
        self._threads = bpfcall.BatchReader(np.dtype("u8"), _THREAD, 1, most_threads)
        self._totals_bytes = _TOTALS.itemsize * processors
        self._links: list[int] = []
        try:
            # A begin must never be seen without the end, so the ends are attached first.
            for function in _FUNCTIONS:
                name = _TRACEPOINTS[function]
                self._links.append(bpfcall.raw_tracepoint_open(self._program.fd(function), name))
        except OSError as error:
            self._detach()
            raise MissingError(
                f"raw tracepoint {name}", f"cannot be attached to ({error.strerror})",
                next_step="run perfmeasure doctor flows",
            ) from error  # fmt: skip

    @classmethod
    def of(cls, text: str) -> Self:
        """Count for the process of a number, or for the control group of a folder.

        Raises:
            UsageError, MissingError: see above.
        """
        return cls(pid=int(text)) if text.isascii() and text.isdigit() else cls(cgroup=Path(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._detach()

    def read(self) -> Calls:
        """Return the counts so far. Calls that are under way meanwhile may be in it or not.

        Raises:
            OSError: the kernel refused.
        """
        names = call_names()
        keys, values = self._rows.peek(self._program.map_fd("rows"))
        _, threads = self._threads.peek(self._program.map_fd("threads"))
        raw = bpfcall.lookup(self._program.map_fd("totals"), bytes(4), self._totals_bytes)
        totals = np.frombuffer(raw or b"", _TOTALS)
        returned, unreturned = values["returned_count"], values["unreturned_count"]
        # A processor on which no such call returned has no shortest one.
        shortest = np.where(returned > 0, values["min_ns"], np.iinfo(np.uint64).max).min(axis=1)
        rows = []
        for index in np.argsort(values["total_ns"].sum(axis=1))[::-1]:
            uid, gid, pid, call = (int(field) for field in keys[index].tolist())
            count = int(returned[index].sum())
            durations = (
                (
                    int(values["total_ns"][index].sum()),
                    int(shortest[index]),
                    int(values["max_ns"][index].max()),
                )
                if count
                else (None, None, None)
            )
            rows.append(
                CallRow(
                    uid, gid, pid, call_name(call, names),
                    count, int(unreturned[index].sum()), *durations,
                )
            )  # fmt: skip
        sums = {name: int(totals[name].sum()) for name in _TOTALS.names or ()}
        accounting = CallAccounting(
            begun=sums["begun"],
            returned=int(returned.sum()),
            unreturned=int(unreturned.sum()),
            in_flight=int(np.count_nonzero(threads["begun_monotonic_ns"])),
            full=sums["rows_full"] + sums["threads_full"],
            unpaired=sums["unpaired"],
        )
        return Calls(rows, accounting)

    def stop(self) -> Calls:
        """Detach the programs and return the exact counts.

        Raises:
            MeasurementError: a call that began is in none of the terms.
            OSError: the kernel refused.
        """
        self._detach()
        bpfcall.wait_for_programs()
        calls = self.read()
        if calls.accounting.missing:
            raise MeasurementError(
                "system calls",
                f"{calls.accounting.missing} of {calls.accounting.begun} are unaccounted for",
                "begun = returned + unreturned + in flight + full",
                "report it: the counts of this run cannot be relied on",
            )
        return calls

    def program_fd(self, function: str) -> int:
        """Return the descriptor of a program, ``on_enter`` or ``on_exit``, for its run times."""
        return self._program.fd(function)

    def _detach(self) -> None:
        while self._links:
            os.close(self._links.pop())  # the begins first


def _open_cgroup(folder: Path) -> int:
    try:
        # The root of the hierarchy is the one group without a type.
        if not (folder / "cgroup.type").exists() and (folder / "cgroup.procs").exists():
            raise UsageError(
                str(folder), "the whole machine, or a cgroup of version 1",
                "a cgroup v2 below the root: system calls are never counted unfiltered",
            )  # fmt: skip
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            str(folder), f"cannot be opened ({error.strerror})", "the folder of a cgroup"
        ) from error


def _want(map_fd: int, cgroup_fd: int, where: str) -> None:
    try:
        bpfcall.update(map_fd, bytes(4), cgroup_fd.to_bytes(4, sys.byteorder))
    except OSError as error:
        raise UsageError(where, f"is no cgroup ({error.strerror})", "a cgroup v2") from error
