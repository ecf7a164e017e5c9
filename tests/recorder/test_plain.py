"""What the numpy path does alone; test_core.py compares all of it with the extension."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.recorder import made

ROOT = Path(__file__).resolve().parent.parent.parent


def test_recording_and_asking_without_the_extension_gives_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(made.pcap(made.trace(1, 2000, 100)))
    answers = []
    for plain in ("", "1"):
        store = tmp_path / f"store{plain}"
        environment = {**os.environ, "PERFMEASURE_PLAIN": plain}
        commands: list[list[str | Path]] = [
            ["record", "-r", tmp_path / "in.pcap", "--cutoff", "2000", "--segment-size", "50000"],
            ["query", "(host 10.0.0.1 or proto udp) and not vlan", "-w", tmp_path / "out.pcap"],
        ]
        for arguments in commands:
            subprocess.run(
                [sys.executable, "-m", "perfmeasure", *arguments, "--store", store],
                cwd=ROOT, env=environment, check=True, capture_output=True,
            )  # fmt: skip
        segments = sorted((store / "segments").rglob("*.pcap"))
        answers.append([path.read_bytes() for path in [*segments, tmp_path / "out.pcap"]])
    assert len(answers[0]) > 3
    assert len(answers[0][-1]) > 1000
    assert answers[0] == answers[1]
