"""What a measurement is doing, as a small file of the docroot that is written while it runs.

The page asks for it again and again; by its entity tag an answer without news costs nothing. It
says what the docroot may say to everybody: no addresses, no paths of the machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall

from perfmeasure import __version__, jsonio
from perfmeasure.config import MeasureConfig
from perfmeasure.errors import InputError
from perfmeasure.process import ChildProcess
from perfmeasure.progress import Progress
from perfmeasure.supervisor import Supervisor
from perfmeasure.tally import Tally
from perfmeasure.web.index import STATUS_NAME

WRITE_SECONDS = 2.0
"""So often the file is written, also without news: one that is older tells of a harness that was
killed."""
_WARNINGS_SHOWN = 10
_TAIL_BYTES = 4096
_ADDRESS = re.compile(
    r"\[?\b(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*)\]?"
)
_PATH = re.compile(r"(?<![\w.])/(?:[^\s/:;,]+/)+")


class Status:
    """Writes ``status.json`` while a measurement runs.

    Args:
        config: of the measurement.
        supervisor: keeps the children of which the state is told.
        tally: counts the transfers.
        progress: knows what is going on, and the last warnings.
    """

    def __init__(
        self, config: MeasureConfig, supervisor: Supervisor, tally: Tally, progress: Progress
    ) -> None:
        self._config = config
        self._supervisor = supervisor
        self._tally = tally
        self._progress = progress
        self._began_unix_ts = time.time()
        self._last_transfer: tuple[int, float | None] = (0, None)
        self._loop = LoopingCall(self._write, "running")
        self._loop.clock = supervisor.reactor

    def start(self) -> None:
        """Write now and from now on."""
        self._loop.start(WRITE_SECONDS)

    def stop(self) -> None:
        """Write for the last time, that it has ended; a second time does nothing."""
        if self._loop.running:
            self._loop.stop()
            self._write("ended")

    def document(self, state: str) -> dict[str, Any]:
        """Return what the file holds (docs/formats.md, "status.json")."""
        now = time.time()
        config, tally = self._config, self._tally
        ended, since = self._last_transfer
        if tally.ended != ended:
            since = now
            self._last_transfer = (tally.ended, now)
        document: dict[str, Any] = {
            "type": "perfmeasure-status",
            "version": "1.0",
            "program": f"perfmeasure {__version__}",
            "state": state,
            "unix_ts": round(now, 3),
            "started_unix_ts": round(self._began_unix_ts, 3),
            "nickname": config.host,
            "network": str(config.network),
            "transfer_size_bytes": config.transfer_size_bytes,
            "phases": [self._public(line) for line in self._progress.open_lines],
            "transfers": {
                kind: {
                    "succeeded": tally.succeeded[kind],
                    "failed": tally.failed[kind],
                    "wanted": config.num_transfers,
                }
                for kind in tally.succeeded
            },
            "children": [self._child(child) for child in self._supervisor.children],
            "sources": list(self._sources()),
            "warnings": [
                {"unix_ts": round(unix_ts, 3), "text": self._public(text)}
                for unix_ts, text in list(self._progress.warnings)[-_WARNINGS_SHOWN:]
            ],
        }
        if since is not None:
            document["last_transfer_unix_ts"] = round(since, 3)
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(config.prefix)
            document["disk"] = {"free_bytes": usage.free, "total_bytes": usage.total}
        return document

    def _write(self, state: str) -> None:
        path = self._config.docroot / STATUS_NAME
        new = path.with_name(f".{STATUS_NAME}.tmp")
        # A full disk or a folder that went away must not end the measurement; the old file's age
        # then says that there is no news.
        with contextlib.suppress(OSError):
            new.write_bytes(jsonio.canonical(self.document(state)))
            new.replace(path)

    def _child(self, child: ChildProcess) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": child.name,
            "is_running": child.pid is not None,
            "restarts": child.restarts,
        }
        if child.started_unix_ts is not None:
            found["started_unix_ts"] = round(child.started_unix_ts, 3)
        if child.idle_limit_seconds is not None:
            found["idle_seconds"] = round(child.idle_seconds, 1)
            found["idle_limit_seconds"] = child.idle_limit_seconds
        return found

    def _sources(self) -> Iterator[dict[str, Any]]:
        """Yield each log that is being written, with its size and when it last grew."""
        for path in sorted(self._config.prefix.glob("*/*.log")):
            try:
                found = path.stat()
                source: dict[str, Any] = {
                    "name": f"{path.parent.name}/{path.name}",
                    "size_bytes": found.st_size,
                    "written_unix_ts": round(found.st_mtime, 3),
                }
                reason = _absent_reason(path)
            except OSError:
                continue
            if reason:
                source["absent"] = self._public(reason)
            yield source

    def _public(self, text: str) -> str:
        """Return ``text`` without addresses of others and without the folders of this machine."""
        text = text.replace(f"{self._config.prefix.absolute()}{os.sep}", "")
        return _ADDRESS.sub(_address, _PATH.sub("…/", text))


def _address(match: re.Match[str]) -> str:
    try:
        is_ours = ipaddress.ip_address(match[0].strip("[]")).is_loopback
    except ValueError:
        return match[0]
    return match[0] if is_ours else "[address]"


def _absent_reason(path: Path) -> str:
    """Return why nothing is recorded, if that is what a log of JSON lines says last."""
    if path.name not in ("connections.log", "services.log"):
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().splitlines()
    try:
        last = jsonio.loads(lines[-1]) if lines else {}
    except InputError:
        return ""
    is_absent = isinstance(last, dict) and last.get("record") == "absent"
    return str(last.get("reason", "")) if is_absent else ""
