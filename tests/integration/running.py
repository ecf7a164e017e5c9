"""One ``perfmeasure measure`` on the private network, seen and treated as its user would."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perfmeasure import jsonio
from perfmeasure.units import utc_date

START_LIMIT_SECONDS = 150


class Running:
    """A harness and all its children, which are known by the data directory they run in."""

    def __init__(self, prefix: Path, *options: str) -> None:
        self.prefix = prefix
        number = len(list(prefix.parent.glob(f"{prefix.name}-*.stderr")))
        self.errors = prefix.parent / f"{prefix.name}-{number}.stderr"
        self.output = prefix.parent / f"{prefix.name}-{number}.stdout"
        arguments = ["measure", "--network", "testnet", "--prefix", str(prefix), "--http-port", "0"]
        arguments += ["--tgen-listen-port", "0", "--nickname", "testhost", *options]
        with self.errors.open("ab") as errors, self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "perfmeasure", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )

    def said(self) -> str:
        return self.errors.read_text(errors="replace")

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            assert time.monotonic() < end, f"no {what} in {seconds} s:\n{self.said()}"
            assert self.process.poll() is None, f"ended before {what}:\n{self.said()}"
            time.sleep(0.05)

    def pids(self, part: str = "") -> list[int]:
        """The live processes of this run: those with the data directory in their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"{self.prefix}/{part}" in command and state != "Z":
                found.append(int(entry.name))
        return found

    def url(self) -> str:
        match = self.until(
            lambda: re.search(r"at (http://[0-9.:]+)/?", self.said()), 60, "web server"
        )
        return str(match[1])

    def client_log(self) -> bytes:
        path = self.prefix / "tgen-client" / "perfmeasure.tgen.log"
        return path.read_bytes() if path.exists() else b""

    def wait_mid_transfer(self) -> None:
        """Wait until a transfer has had some payload and not all."""

        def is_mid() -> bool:
            lines = [line for line in self.client_log().splitlines() if b"[stream-" in line]
            return (
                bool(lines) and b"[stream-status]" in lines[-1] and b"recv=100.00%" not in lines[-1]
            )

        self.until(is_mid, START_LIMIT_SECONDS, "transfer under way")

    def successes(self) -> int:
        return self.client_log().count(b"[stream-success]")

    def wait_success_after(self, count: int) -> None:
        self.until(lambda: self.successes() > count, 90, "further successful transfer")

    def stop(self, number: int = signal.SIGINT, seconds: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def database(self, *paths: Path) -> dict[str, Any]:
        return analyzed(*(paths or (self.prefix,)))


def analyzed(*paths: Path) -> dict[str, Any]:
    """What ``perfmeasure analyze`` makes of the logs, which is valid."""
    target = paths[0].parent / "analyzed.json"
    arguments = ["analyze", *map(str, paths), "-o", str(target), "--nickname", "testhost"]
    for command in (arguments, ["validate", str(target)]):
        done = subprocess.run(
            [sys.executable, "-m", "perfmeasure", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    document: dict[str, Any] = jsonio.loads(target.read_bytes())
    return document


def transfers_of(database: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (host,) = database["data"].values()
    transfers: dict[str, dict[str, Any]] = host["tgen"]["transfers"]
    return transfers


def check_logs_are_whole(prefix: Path) -> None:
    """Every line is whole: stamped, JSON, or the continuation of a multi-line control event."""
    stamp = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \d+\.\d{6} \S")
    logs = [p for p in prefix.rglob("perfmeasure*.log*") if "testnet" not in p.parts]
    assert logs
    for path in logs:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert not data or data.endswith(b"\n"), f"{path} ends in the middle of a line"
        is_torctl = "torctl" in path.name
        if "connections" in path.name or "services" in path.name:
            assert all("unix_ts" in jsonio.loads(line, path.name) for line in data.splitlines())
            continue
        for line in data.splitlines():
            assert stamp.match(line) or is_torctl, f"{path}: {line[:200]!r}"
            assert line.count(b"[stream-") <= 1, f"{path}: two lines in one: {line[:200]!r}"


@contextmanager
def running(prefix: Path, *options: str) -> Iterator[Running]:
    """Run a measurement; whatever happens, nothing of it is left afterwards."""
    run = Running(prefix, *options)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
        run.process.wait()
        end = time.monotonic() + 30
        while run.pids() and time.monotonic() < end:
            time.sleep(0.05)
        left = run.pids()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"outlived the harness: {left}"


def today() -> str:
    return utc_date(time.time())
