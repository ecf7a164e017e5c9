"""What can be shown without a network; the whole is in tests/integration/test_measure.py."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from perfmeasure import measurement
from perfmeasure.config import MeasureConfig, Network
from perfmeasure.errors import MissingError
from perfmeasure.lock import prefix_lock


def measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perfmeasure", "measure", *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_without_tor_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no-such-tor"):
        measurement.run(MeasureConfig(prefix=tmp_path / "data", tor="no-such-tor"))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["perfmeasure.lock"]


def test_a_tor_that_cannot_run_is_explained_and_all_is_stopped(tmp_path: Path) -> None:
    tor = tmp_path / "tor"
    tor.write_text("#!/bin/sh\necho 'this is no tor' >&2\nexit 7\n")
    tor.chmod(0o755)
    done = measure(
        "--network", "testnet", "--tor", str(tor), "--prefix", str(tmp_path / "data"),
        "--http-port", "0", "--tgen-listen-port", "0",
    )  # fmt: skip
    assert done.returncode in (1, 3)
    assert "Traceback" not in done.stderr
    assert str(tor) in done.stderr


def test_extra_torrc_lines_that_tor_refuses_are_shown_with_tors_words(
    tmp_path: Path, require: object
) -> None:
    assert callable(require)
    require("tor")
    done = measure(
        "--prefix", str(tmp_path / "data"), "--http-port", "0", "--tgen-listen-port", "0",
        "--inet-only", "--tgen-connect-ip", "192.0.2.1",
        "--additional-client-conf", "NoSuchOption 1",
    )  # fmt: skip
    assert done.returncode == 2
    assert "NoSuchOption" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_prefix_in_use_is_refused(tmp_path: Path) -> None:
    with prefix_lock(tmp_path):
        done = measure("--network", "testnet", "--prefix", str(tmp_path))
    assert done.returncode == 1
    assert "another measurement runs here, pid" in done.stderr


def test_a_web_port_in_use_is_explained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = measure(
            "--network", Network.TESTNET, "--prefix", str(tmp_path), "--http-port", str(port),
            "--tgen-listen-port", "0",
        )  # fmt: skip
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr
