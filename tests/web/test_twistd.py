from __future__ import annotations

import configparser
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from twisted.python import usage

from perfmeasure.web.twistd import Options, makeService

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "perfmeasure/web/twistd_path"
RUN = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"


def _twistd(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "-n", "--pidfile=", "-l", "-", *arguments],
        env={**os.environ, "PYTHONPATH": str(PLUGINS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def test_twistd_serves_the_docroot(tmp_path: Path) -> None:
    (tmp_path / "latest.json").write_bytes(b"{}\n")
    port = _free_port()
    with _twistd("perfmeasure", "--http-port", str(port), str(tmp_path)) as process:
        try:
            content = b""
            for _ in range(200):
                with contextlib.suppress(OSError):
                    url = f"http://127.0.0.1:{port}/latest.json"
                    content = urllib.request.urlopen(url, timeout=60).read()
                    break
                time.sleep(0.05)
            assert content == b"{}\n"
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=20)
    # Since 22.10 twistd ends by the signal that it was sent, after an orderly stop.
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in output


def test_twistd_lists_the_command() -> None:
    with _twistd("--help") as process:
        output, _ = process.communicate(timeout=20)
    assert "perfmeasure      Serve the docroot of a measurement over HTTP." in output


def test_a_taken_port_is_one_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _twistd("perfmeasure", "--http-port", str(port), str(tmp_path)) as process:
            output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"perfmeasure: 127.0.0.1:{port}: the port is taken" in output
    assert "Traceback" not in output


def test_what_cannot_be_served_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for arguments, message in (
        ([str(tmp_path / "none")], "no such folder"),
        (["--http-bind", "nowhere", str(tmp_path)], "wanted an IPv4 or IPv6 address"),
        (["--http-port", "70000", str(tmp_path)], "0 to 65535"),
        (["--http-port", "x", str(tmp_path)], "x"),
        ([], "number of arguments"),
    ):
        with pytest.raises(usage.UsageError, match=message):
            Options().parseOptions(arguments)


def test_the_options_reach_the_service(tmp_path: Path) -> None:
    options = Options()
    options.parseOptions(["-p", "0", "-b", "127.0.0.1", str(tmp_path)])
    assert makeService(options)._docroot == tmp_path


def test_the_plugin_is_no_package_and_is_installed_with_the_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    (pattern,) = [
        line
        for line in settings["options.package_data"]["perfmeasure"].split()
        if line.endswith(".py")
    ]
    assert [path.name for path in (ROOT / "perfmeasure").glob(pattern)] == ["perfmeasure_plugin.py"]
    # With an __init__.py Twisted would pass it over.
    assert not list(PLUGINS.rglob("__init__.py"))
