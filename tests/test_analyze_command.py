from __future__ import annotations

from pathlib import Path

import pytest

from perfmeasure import jsonio
from perfmeasure.cli import run
from perfmeasure.recorder import absence


def test_it_tells_of_the_packets_beside_the_logs(
    tmp_path: Path, fixtures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    log = root / "tgen-client" / "perfmeasure.tgen.log"
    log.parent.mkdir(parents=True)
    log.write_bytes((fixtures / "tgen" / "client-direct-success.tgen.log").read_bytes())
    absence.note(root / "packets", "turned off (--record off)")
    output = tmp_path / "db.json"
    for path in (root, log.parent):
        assert run(["analyze", str(path), "-o", str(output), "-n", "vm"]) == 0
        (source,) = jsonio.loads(output.read_bytes())["meta"]["sources"].values()
        reason = {"what": "packets", "reason": "turned off (--record off)"}
        assert reason in source["absent"]
        assert run(["validate", str(output)]) == 0
    capfd.readouterr()
