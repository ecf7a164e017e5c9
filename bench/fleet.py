"""What the analysis of many hosts costs: CPU seconds, memory and bytes for each day of a host.

Makes the archives of some hosts over some days from the rounds of `bench.analysis`, 288 transfers a
day, compressed by xz, and analyses them into tables: with nothing known, then again with the cache:

    python -m bench.fleet [--hosts 25] [--days 2] [--workers 2]

CPU seconds are user and system of all processes, peak memory that of the largest. MB are 10^6.
"""

from __future__ import annotations

import argparse
import itertools
import lzma
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.analysis import cost, restamped, tgen_rounds, torctl_rounds

ROUNDS = 24  # of 12 transfers
HEADS = {
    "tgen": b"2026-11-22 00:00:00 %.6f [message] [tgen-main.c:43] [_tgenmain_run] "
    b"Initializing TGen v1.1.2 running GLib v2.74.6 on host %b with process id 1\n",
    "torctl": b"2026-11-22 00:00:00 %.6f Starting torctl program on host %b using Tor version "
    b"0.4.9.11 status=recommended\n",
}
FIRST_TS = 1795305600.0


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=25)
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    count = arguments.hosts * arguments.days
    with tempfile.TemporaryDirectory(prefix="perfmeasure-bench-") as name:
        top = Path(name)
        plain, stored = make(top / "logs", arguments.hosts, arguments.days)
        print(f"{count} days of hosts, each {plain / 1e6:.0f} MB of log, {stored / 1e6:.2f} MB .xz")
        command = [
            sys.executable, "-m", "perfmeasure", "analyze", str(top / "logs"),
            "--format", "tables", "-o", str(top / "tables"),
            "--cache", str(top / "cache"), "--workers", str(arguments.workers),
        ]  # fmt: skip
        for what in ("first run", "second run"):
            begin = time.monotonic()
            seconds, peak = cost(command)
            print(
                f"{what}: {seconds:.1f} CPU s, {time.monotonic() - begin:.1f} s, "
                f"{seconds / count:.3f} CPU s a day of a host, peak {peak:.0f} MB",
                flush=True,
            )
        for folder in ("cache", "tables"):
            size = sum(p.stat().st_size for p in (top / folder).rglob("*") if p.is_file())
            print(f"{folder}: {size / count / 1e3:.1f} kB a day of a host")
    return 0


def make(top: Path, hosts: int, days: int) -> tuple[float, float]:
    """Write the archives; return the bytes of one host's day, plain and as stored."""
    plain = stored = 0
    rounds = {"tgen": tgen_rounds(), "torctl": torctl_rounds(is_flood=False)}
    texts = {
        "tgen": b"".join(itertools.islice(rounds["tgen"], ROUNDS)),
        "torctl": b"".join(_of_size(rounds["torctl"], 7_100_000 * ROUNDS)),
    }
    for kind, head in HEADS.items():
        first = next(line for line in texts[kind].splitlines() if line[20:30].isdigit())
        for day in range(days):
            shift = FIRST_TS + day * 86400 - float(first.split(b" ", 3)[2]) + 60
            text = b"\n".join(restamped(texts[kind].split(b"\n"), shift))
            packed = lzma.compress(text, preset=1)
            plain += len(text)
            for host in range(hosts):
                name = f"host{host:04}"
                folder = (
                    top
                    / name
                    / f"log_archive/day-{day:03}"
                    / {"tgen": "tgen-client", "torctl": "tor-client"}[kind]
                )
                folder.mkdir(parents=True, exist_ok=True)
                begin = head % (FIRST_TS + day * 86400, name.encode())
                # One member of xz after the other: no two hosts' logs have the same hash.
                content = lzma.compress(begin, preset=1) + packed
                stored += len(content)
                (folder / f"perfmeasure_day-{day:03}.{kind}.log.xz").write_bytes(content)
    return plain / days, stored / days / hosts


def _of_size(rounds: Iterator[bytes], size: int) -> Iterator[bytes]:
    for text in rounds:
        yield text
        size -= len(text)
        if size <= 0:
            return


if __name__ == "__main__":
    sys.exit(main())
