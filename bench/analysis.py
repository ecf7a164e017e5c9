"""How fast the analysis reads: MB of log per CPU second and peak memory, for each kind of log.

Logs are made of the lines of the tests' fixtures, with distinct ids and rising times, and each is
read by a process of its own, from start-up to the written .xz database::

    python bench/analysis.py [--megabytes 200] [--quick]

MB are 10^6 bytes uncompressed, CPU seconds are user and system. Exit status 1 when a limit is
missed; with --quick (small logs, in which start-up weighs most) it is only printed.
"""

from __future__ import annotations

import argparse
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
RUN = FIXTURES / "onionperf-run"

# Required MB per CPU second in one process, and what OnionPerf reached.
LIMITS = {
    "tgen + torctl": (60.0, 6.4),
    "tgen stream-*": (0.0, 19.0),
    "tgen transfer-*": (0.0, 44.0),
    "torctl": (0.0, 4.1),
    "torctl conflux": (100.0, 3.9),
    "torctl .xz": (0.0, 3.7),
}
XZ_RATIO = 1.7  # of the CPU of `xz -dc` and of the plain case together
PEAK_MB = 150.0
_CHILD = (
    "import sys; from pathlib import Path; from perfmeasure.analysis import database, pipeline; "
    "document = pipeline.analyze([Path(p) for p in sys.argv[2:]]); "
    "rejected = [log['lines']['rejected'] for log in document['meta']['inputs']]; "
    "assert not any(rejected), rejected; "
    "database.save(document, Path(sys.argv[1]))"
)


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200, help="size of each log")
    parser.add_argument("--quick", action="store_true", help="10 MB, and no verdict")
    arguments = parser.parse_args()
    size = (10 if arguments.quick else arguments.megabytes) * 1_000_000
    with tempfile.TemporaryDirectory(prefix="perfmeasure-bench-") as folder:
        missed = run(Path(folder), size)
    for line in missed:
        print("MISSED:", line)
    return int(bool(missed) and not arguments.quick)


def run(folder: Path, size: int) -> list[str]:
    """Make the logs, read each, print the figures; return the limits that were missed."""
    tgen = make(folder / "a.tgen.log", size, tgen_rounds())
    torctl = make(folder / "a.torctl.log", size, torctl_rounds(is_flood=False))
    conflux = make(folder / "conflux.torctl.log", size // 2, torctl_rounds(is_flood=True))
    old = make(folder / "old.tgen.log", size, old_rounds())
    packed = folder / "packed.torctl.log.xz"
    with torctl.open("rb") as plain, lzma.open(packed, "wb", preset=1) as file:
        while block := plain.read(1 << 20):
            file.write(block)
    cases = {
        "tgen + torctl": [tgen, torctl],
        "tgen stream-*": [tgen],
        "tgen transfer-*": [old],
        "torctl": [torctl],
        "torctl conflux": [conflux],
        "torctl .xz": [packed],
    }
    missed: list[str] = []
    seconds: dict[str, float] = {}
    print(
        f"{'case':<16} {'MB':>6} {'CPU s':>7} {'MB/CPU s':>9} {'wanted':>7} {'OnionPerf':>10} peak"
    )
    for name, paths in cases.items():
        megabytes = sum((torctl if p is packed else p).stat().st_size for p in paths) / 1e6
        command = [sys.executable, "-c", _CHILD, str(folder / "db.json.xz"), *map(str, paths)]
        seconds[name], peak = cost(command)
        rate = megabytes / seconds[name]
        wanted, theirs = LIMITS[name]
        print(
            f"{name:<16} {megabytes:>6.0f} {seconds[name]:>7.2f} {rate:>9.1f} {wanted or '-':>7} "
            f"{theirs:>10} {peak:.0f} MB ({rate / theirs:.1f} times OnionPerf)",
            flush=True,
        )
        if rate < wanted:
            missed.append(f"{name}: {rate:.1f} of {wanted} MB per CPU second")
        if peak > PEAK_MB:
            missed.append(f"{name}: peak memory {peak:.0f} of {PEAK_MB} MB")
    unpack, _ = cost(["xz", "-dc", str(packed)])
    ratio = seconds["torctl .xz"] / (unpack + seconds["torctl"])
    print(f"xz -dc {unpack:.2f} CPU s; .xz costs {ratio:.2f} of it and plain (wanted {XZ_RATIO})")
    if ratio > XZ_RATIO:
        missed.append(f"torctl .xz: {ratio:.2f} of {XZ_RATIO} times xz -dc and plain")
    return missed


def cost(command: list[str]) -> tuple[float, float]:
    """Run a command; return its CPU seconds and its peak resident memory in MB."""
    # The peak of all children only ever rises, so each is measured by a parent of its own.
    program = (
        "import resource, subprocess, sys; "
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "u = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(u.ru_utime + u.ru_stime, u.ru_maxrss * 1024 / 1e6)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *command], check=True, capture_output=True, text=True
    )
    seconds, peak = ran.stdout.split()
    return float(seconds), float(peak)


# ---- logs ---------------------------------------------------------------------------------------


def make(path: Path, size: int, rounds: Iterator[bytes]) -> Path:
    """Write rounds of lines until the file has ``size`` bytes."""
    written = 0
    with path.open("wb") as file:
        for text in rounds:
            written += file.write(text)
            if written >= size:
                return path
    return path


def restamped(lines: list[bytes], shift: float) -> list[bytes]:
    """Return the lines ``shift`` seconds later; the column that no reader reads stays."""
    made = []
    for line in lines:
        parts = line.split(b" ", 3)
        if len(parts) == 4 and len(parts[2]) in {13, 17} and parts[2][:1] == b"1":
            parts[2] = b"%.*f" % (len(parts[2]) - 11, float(parts[2]) + shift)
        made.append(b" ".join(parts))
    return made


def spread(lines: list[bytes]) -> float:
    """Return the seconds from the first to the last stamp, and one more."""
    stamps = [
        float(p[2])
        for p in (line.split(b" ", 3) for line in lines)
        if len(p) == 4 and len(p[2]) in {13, 17}
    ]
    return stamps[-1] - stamps[0] + 1


def tgen_rounds() -> Iterator[bytes]:
    """Yield a real client's run again and again, each time with stream ids of its own."""
    text = lzma.decompress((RUN / "tgen-client.onionperf.tgen.log.xz").read_bytes())
    lines = [line for line in text.splitlines() if b"Initializing" not in line]
    length = spread(lines)
    for number in range(10**6):
        made = []
        for line in restamped(lines, number * length):
            head, mark, rest = line.partition(b" [id=")
            digits, comma, tail = rest.partition(b",")
            made.append(
                b"%b%b%d%b%b" % (head, mark, int(digits) + 100 * number, comma, tail)
                if mark
                else line
            )
        yield b"\n".join(made) + b"\n"


def old_rounds() -> Iterator[bytes]:
    """Yield an old program's transfer with 200 lines of progress, under a new count each time."""
    complete = (FIXTURES / "old-tgen/2019.tgen.log").read_bytes().splitlines()[2]
    head = complete[: complete.index(b" usecs-to-socket-create")]
    status = head.replace(b"[message]", b"[info]").replace(b"-complete]", b"-status]")
    for number in range(1, 10**6):
        lines = []
        for step in range(1, 201):
            size = 5242880 * step // 201
            line = status.replace(
                b"5242880/5242880 (100.00%)", b"%d/5242880 (%.2f%%)" % (size, size / 52428.8)
            )
            lines.append(line.replace(b"1548947181.000000", b"%.6f" % (1548947158.6 + step / 10)))
        lines.append(complete)
        made = restamped(lines, number * 60.0)
        yield b"\n".join(made).replace(b"transfer5m,1,", b"transfer5m,%d," % number) + b"\n"


def torctl_rounds(*, is_flood: bool) -> Iterator[bytes]:
    """Yield a real client's events again and again, with numbers of their own.

    A flood has the CIRC_BW events of conflux circuits, 40 for each other line, as the real one had.
    """
    text = lzma.decompress((RUN / "tor-client.onionperf.torctl.log.xz").read_bytes())
    lines = [line for line in text.splitlines() if b"Starting torctl" not in line]
    begins = next(
        i
        for i, line in enumerate(lines)
        if len(line.split(b" ", 3)[2:3] or [b""]) and b" 650" in line
    )
    lines = lines[begins:]
    floods = [line for line in lines if b" 650 CIRC_BW " in line]
    length = spread(lines)
    kinds: dict[bytes, Callable[[int, bytes], bytes]] = {
        b"STREAM": renumber,
        b"CIRC": renumber,
        b"CIRC_MINOR": renumber,
    }
    for number in range(10**6):
        made = []
        for index, line in enumerate(restamped(lines, number * length)):
            parts = line.split(b" ", 5)
            change = kinds.get(parts[4]) if len(parts) == 6 else None
            made.append(
                b" ".join((*parts[:5], change(1000 * number, parts[5]))) if change else line
            )
            if is_flood and parts[3:4] == [b"650"]:
                made += restamped(
                    [floods[(index + step) % len(floods)] for step in range(40)], number * length
                )
            if len(made) > 5000:
                yield b"\r\n".join(made) + b"\r\n"
                made.clear()
        yield b"\r\n".join(made) + b"\r\n"


def renumber(more: int, values: bytes) -> bytes:
    """Add to the number of a stream or circuit, and to the circuit that a stream names."""
    words = values.split(b" ")
    words[0] = b"%d" % (int(words[0]) + more)
    if len(words) > 2 and words[2].isdigit() and words[2] != b"0":
        words[2] = b"%d" % (int(words[2]) + more)
    return b" ".join(words)


if __name__ == "__main__":
    sys.exit(main())
