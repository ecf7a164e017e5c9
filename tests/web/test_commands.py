from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from perfmeasure.web.commands import serve_command

if TYPE_CHECKING:
    from pathlib import Path


def _serve(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "perfmeasure", "serve", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "latest.json").write_bytes(b"{}\n")
    with _serve(str(tmp_path), "--http-port", "0") as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        match = re.fullmatch(
            rf"serving {tmp_path} at (http://127\.0\.0\.1:\d+/) \(Ctrl-C stops\)\n", said
        )
        assert match
        url = match[1] + "latest.json"
        with urllib.request.urlopen(url, timeout=60) as response:
            assert response.read() == b"{}\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "", "")


def _failure(*arguments: str) -> tuple[int, str]:
    with _serve(*arguments) as process:
        output, errors = process.communicate(timeout=20)
    assert output == ""
    assert "Traceback" not in errors
    return process.returncode, errors


def test_a_docroot_that_is_none_is_unusable_input(tmp_path: Path) -> None:
    status, said = _failure(str(tmp_path / "none"))
    assert status == 4
    assert said.startswith(f"perfmeasure: {tmp_path}/none: no such folder")


def test_a_taken_port_is_a_failure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, said = _failure(str(tmp_path), "--http-port", str(taken.getsockname()[1]))
    assert status == 1
    assert "the port is taken" in said


def test_wrong_usage(tmp_path: Path) -> None:
    assert _failure(str(tmp_path), "--http-bind", "nowhere")[0] == 2
    assert _failure(str(tmp_path), "--http-port", "65536")[0] == 2
    assert _failure()[0] == 2


def test_help_names_the_defaults() -> None:
    said = CliRunner().invoke(serve_command, ["--help"]).output
    assert "8081" in said
    assert "127.0.0.1" in said
