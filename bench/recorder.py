"""What recording and asking cost, on a trace of its own: run `python bench/recorder.py`.

The trace has a fixed seed: packets of 630 bytes in the mean over 100,000 connections whose sizes
follow Zipf's law with exponent 0.9, TCP over IPv4, interleaved at random. Recording is timed
against `cp` of the same file in the same run, alternating. `--folder` keeps what was made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from perfmeasure.recorder import core
from perfmeasure.recorder.answer import write_pcap
from perfmeasure.recorder.catalogue import Catalogue
from perfmeasure.recorder.keys import parse_key
from perfmeasure.recorder.predicate import Match
from perfmeasure.recorder.segment import header
from perfmeasure.recorder.store import Counts, Store

Array = np.ndarray[Any, Any]

CONNECTIONS = 100_000
HEADERS = 54
FIRST_SECOND = 1_700_000_000


def connections(rng: np.random.Generator) -> dict[str, Array]:
    """Return the ends of the connections."""
    return {
        "a": rng.integers(0x0A000000, 0x0A00FFFF, CONNECTIONS, dtype="u4"),
        "b": rng.integers(0xC0000200, 0xDF000000, CONNECTIONS, dtype="u4"),
        "a_port": rng.integers(1024, 65535, CONNECTIONS, dtype="u4"),
        "b_port": rng.choice([80, 443, 9001, 22, 53], CONNECTIONS).astype("u4"),
    }


def big(values: Array, size: int) -> Array:
    """Return numbers as bytes in network order, (n, size)."""
    return np.stack([(values >> 8 * (size - 1 - i)) & 0xFF for i in range(size)], 1).astype("u1")


def make_trace(path: Path, packets: int) -> Array:
    """Write the trace; return the number of the connection of each packet."""
    rng = np.random.default_rng(20061117)
    ends = connections(rng)
    weights = 1 / np.arange(1, CONNECTIONS + 1) ** 0.9
    which = rng.choice(CONNECTIONS, packets, p=weights / weights.sum()).astype("u4")
    with path.open("wb") as out:
        out.write(bytes.fromhex("d4c3b2a1") + header(1)[4:])
        for begin in range(0, packets, 50_000):
            part = which[begin : begin + 50_000]
            out.write(records(rng, ends, part, begin).tobytes())
    return which


def records(rng: np.random.Generator, ends: dict[str, Array], which: Array, begin: int) -> Array:
    """Return the records of some packets, 5 µs apart."""
    count = len(which)
    small = rng.random(count) < 0.5
    lengths = np.where(small, 66, rng.integers(874, 1515, count)).astype("i8")
    is_back = rng.random(count) < 0.5
    a, b = ends["a"][which], ends["b"][which]
    a_port, b_port = ends["a_port"][which], ends["b_port"][which]
    time_us = (begin + np.arange(count)) * 5
    head = np.zeros((count, 16 + HEADERS), "u1")
    record = np.stack([FIRST_SECOND + time_us // 10**6, time_us % 10**6, lengths, lengths], 1)
    head[:, :16] = record.astype("<u4").view("u1").reshape(count, 16)
    head[:, 16 + 12 : 16 + 14] = (8, 0)
    head[:, 30:32] = (0x45, 0)
    head[:, 32:34] = big(lengths - 14, 2)
    head[:, 38:40] = (64, 6)
    head[:, 42:46] = big(np.where(is_back, b, a), 4)
    head[:, 46:50] = big(np.where(is_back, a, b), 4)
    head[:, 50:52] = big(np.where(is_back, b_port, a_port), 2)
    head[:, 52:54] = big(np.where(is_back, a_port, b_port), 2)
    head[:, 62:64] = (0x50, 0x10)
    starts = np.cumsum(lengths + 16) - lengths - 16
    out = np.zeros(int((lengths + 16).sum()), "u1")
    out[starts[:, None] + np.arange(16 + HEADERS)] = head
    return out


def run(*arguments: object) -> tuple[float, float, float]:
    """Run a program; return its wall time, its CPU time and its peak memory in MB."""
    begun = time.perf_counter()
    process = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def bench_recording(trace: Path, folder: Path, packets: int, rounds: int, *options: str) -> Path:
    """Record the trace, and copy it, in turns."""
    store, copy = folder / "store", folder / "copy.pcap"
    record = [
        sys.executable,
        "-m",
        "perfmeasure",
        "record",
        "-r",
        trace,
        "--store",
        store,
        *options,
    ]
    rows = []
    for _ in range(rounds):
        copy.unlink(missing_ok=True)
        copied = run("cp", trace, copy)
        copy.unlink()
        shutil.rmtree(store, ignore_errors=True)
        recorded = run(*record)
        rows.append((copied, recorded))
        print(
            f"  cp {copied[0]:.2f} s ({copied[1]:.2f} CPU s), recorded {recorded[0]:.2f} s "
            f"({recorded[1]:.2f} CPU s): {recorded[1] / packets * 1e6:.2f} CPU us/packet, "
            f"{packets / recorded[0] / 1000:.0f} k packets/s, "
            f"{copied[0] / recorded[0]:.2f} x the speed of cp, peak {recorded[2]:.0f} MB"
        )
    cpu = min(recorded[1] for _, recorded in rows) / packets * 1e6
    ratio = statistics.median(copied[0] / recorded[0] for copied, recorded in rows)
    print(f"  best {cpu:.2f} CPU us/packet, median ratio to cp {ratio:.2f}")
    return store


def bench_index(store: Path) -> None:
    """Print what the index takes."""
    catalogue = Catalogue(store)
    entries = catalogue.segments()
    catalogue.close()
    packets = sum(entry.summary.packets for entry in entries)
    size = sum(entry.index_bytes for entry in entries)
    levels = sum(path.stat().st_size for path in store.glob("levels/*.npz"))
    print(
        f"index: {size / packets:.2f} bytes/packet in {len(entries)} segments, "
        f"{levels / packets:.2f} more in levels"
    )


def connection_text(ends: dict[str, Array], pick: int) -> str:
    """Return the key of a connection of the trace."""
    a, b = (
        f"{'.'.join(str(ends[end][pick] >> s & 255) for s in (24, 16, 8, 0))}"
        f":{ends[f'{end}_port'][pick]}"
        for end in ("a", "b")
    )
    return f"tcp {a} {b}"


def bench_queries(store: Path, which: Array, rounds: int) -> None:
    """Ask for random packets' connections, each time opening the store anew."""
    rng = np.random.default_rng(7)
    ends = connections(np.random.default_rng(20061117))
    sizes = np.bincount(which, minlength=CONNECTIONS)
    picks = rng.choice(which, rounds)
    nowhere = Path(os.devnull).open("wb")  # noqa: SIM115 - for as long as the process lives
    for what in ("count", "packets"):
        times = []
        for pick in [*picks[:20], *picks]:  # the first ones warm the caches
            node = Match(parse_key("connection4", connection_text(ends, pick)))
            begun = time.perf_counter()
            reader = Store(store)
            if what == "count":
                found = reader.count(node).packets
            else:
                counts = Counts()
                write_pcap(reader.packets(node, counts), nowhere)
                found = counts.packets
            reader.close()
            times.append(time.perf_counter() - begun)
            assert found == sizes[pick], (pick, found, sizes[pick])
        ms = sorted(seconds * 1000 for seconds in times[20:])
        print(
            f"query ({what}) of one connection, {rounds} times: median {statistics.median(ms):.1f} "
            f"ms, 99 % {ms[int(len(ms) * 0.99)]:.1f} ms, longest {ms[-1]:.1f} ms"
        )


def bench_cold(store: Path) -> None:
    """Write the packets of large, middling and small connections that are on disk only."""
    ends = connections(np.random.default_rng(20061117))
    with Path(os.devnull).open("wb") as nowhere:
        for pick in (0, 50, 1000):
            node = Match(parse_key("connection4", connection_text(ends, pick)))
            times = []
            for _ in range(3):
                for path in store.rglob("segments/*/*.pcap"):
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                begun = time.perf_counter()
                reader = Store(store)
                counts = Counts()
                write_pcap(reader.packets(node, counts), nowhere)
                reader.close()
                times.append(time.perf_counter() - begun)
            print(
                f"query from disk: {counts.packets} packets, {counts.bytes / 1e6:.1f} MB: "
                f"{', '.join(f'{seconds:.3f}' for seconds in sorted(times))} s"
            )


def main() -> None:
    """Make the trace, record it, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        trace = folder / "trace.pcap"
        which = make_trace(trace, options.packets)
        size = trace.stat().st_size
        print(f"trace: {options.packets} packets, {size / 1e6:.0f} MB, native: {core.IS_NATIVE}")
        print("recording with a cutoff of 15 KB, against cp:")
        bench_recording(trace, folder, options.packets, options.rounds, "--cutoff", "15 KB")
        print("recording without cutoff, against cp:")
        store = bench_recording(trace, folder, options.packets, options.rounds)
        bench_index(store)
        bench_queries(store, which, 200)
        bench_cold(store)


if __name__ == "__main__":
    main()
