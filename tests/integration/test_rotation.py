"""Rotation while transfers run: no line lost, none split, every archive of use by itself."""

from __future__ import annotations

import gzip
import itertools
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import check_logs_are_whole, running, transfers_of

pytestmark = pytest.mark.together("measure", "each has six relays and three programs run")


def lines_of(folder: Path, name: str, archive: Path) -> list[bytes]:
    """The lines of one log: its archives in their order, then the live file."""
    found: list[bytes] = []
    for path in sorted(archive.glob(f"*/{folder.name}/perfmeasure_*.{name}*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += data.splitlines(keepends=True)
    return found + (folder / f"perfmeasure.{name}").read_bytes().splitlines(keepends=True)


def test_no_line_is_lost_or_split_by_rotation(tmp_path: Path, is_long: bool) -> None:
    prefix = tmp_path / "data"
    every, seconds = (20, 120) if is_long else (5, 22)
    with running(
        prefix, "--rotate-every", f"{every} s", "--tgen-transfer-size", "1 MiB",
        "--tgen-pause-between", "0.2 s",
    ) as run:  # fmt: skip
        run.until(lambda: run.successes() >= 1, 170, "first transfer")
        time.sleep(seconds)
        assert run.stop() == 0, run.said()
    check_logs_are_whole(prefix)
    archive = prefix / "log_archive"
    archives = sorted(archive.glob("*/tgen-client/*"))
    assert len(archives) >= seconds // every - 1
    assert all(path.suffix == ".gz" for path in archives)

    lines = lines_of(prefix / "tgen-client", "tgen.log", archive)
    # The generator numbers its streams; none is missing, each has begun and ended once.
    outcomes = [line for line in lines if re.search(rb"\[stream-(success|error)\]", line)]
    numbers = [int(re.findall(rb"\bid=(\d+),", line)[0]) for line in outcomes]
    assert numbers == list(range(len(numbers)))
    # Its own count in its last lines is what is in all archives and the live log together.
    (last,) = [line for line in lines if b"lines written before: " in line]
    assert lines.index(last) == int(last.rpartition(b" ")[2])
    assert len(lines) == lines.index(last) + 2
    stamps = [float(line.split()[2]) for line in lines]
    assert stamps == sorted(stamps)

    # tor tells its bandwidth each second: a missing line would be a gap of two.
    events = lines_of(prefix / "tor-client", "torctl.log", archive)
    ticks = [float(line.split()[2]) for line in events if b" 650 BW " in line]
    assert all(0 < after - before < 1.9 for before, after in itertools.pairwise(ticks))
    for path in archives:
        done = subprocess.run(
            [sys.executable, "-m", "perfmeasure", "analyze", str(path), "-o",
             str(tmp_path / "one.json")],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{path}: {done.stderr}"
    assert len(transfers_of(run.database())) >= len(outcomes)
