"""Options of ``measure`` that change what runs, on the real tor."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
from running import check_logs_are_whole, running, transfers_of

pytestmark = pytest.mark.together("measure", "each has six relays and three programs run")


def test_an_external_tgen_a_single_onion_more_events_dropped_guards_and_stop_at(
    tmp_path: Path,
) -> None:
    prefix = tmp_path / "data"
    tgen = tmp_path / "tgen"  # what is driven as a program of another make
    python = shlex.quote(sys.executable)
    tgen.write_text(f'#!/bin/sh\necho started >&2\nexec {python} -m perfmeasure.tgen "$@"\n')
    tgen.chmod(0o755)
    file = tmp_path / "perfmeasure.toml"
    file.write_text('tgen_transfer_size = "1 MiB"\ndrop_guards = 0.0003\nevents = ["CIRC_BW"]\n')
    options = ["--config", str(file), "--single-onion", "--onion-only", "--tgen", str(tgen)]
    with running(prefix, *options, "--stop-at", r"\[stream-success\].*\bid=3,") as run:
        assert run.process.wait(170) == 0, run.said()
        assert "--stop-at: " in run.said()
    transfers = transfers_of(run.database())
    assert 4 <= len(transfers) <= 5
    assert sum(t["is_success"] for t in transfers.values()) == 4
    assert all(".onion:" in t["endpoint_remote"] for t in transfers.values())
    assert (prefix / "private" / "single-onion" / "hostname").exists()
    assert "HiddenServiceNonAnonymousMode 1" in (prefix / "tor-server" / "torrc").read_text()
    events = (prefix / "tor-client" / "perfmeasure.torctl.log").read_text()
    assert " 650 CIRC_BW " in events
    assert re.search(r" 650 GUARD ENTRY \S+ DROPPED", events)
    assert "started" in (prefix / "tgen-client" / "perfmeasure.tgen.log").read_text()


def test_a_port_that_nobody_serves_gives_failures_and_status_1(tmp_path: Path) -> None:
    prefix = tmp_path / "data"
    options = ["--inet-only", "--num-transfers", "2", "--tgen-connect-port", "9"]
    with running(prefix, *options) as run:
        assert run.process.wait(170) == 1, run.said()
    summary = run.output.read_text()
    assert "by exit: 2 transfers, 0 succeeded" in summary
    assert re.search(r"failed: 2 [A-Z]+", summary)
    transfers = transfers_of(run.database())
    assert all(t["is_error"] and t["links"]["status"] == "linked" for t in transfers.values())
    check_logs_are_whole(prefix)


def test_results_are_served_until_interrupted(tmp_path: Path) -> None:
    prefix = tmp_path / "data"
    with running(prefix, "--inet-only", "--num-transfers", "1", "--keep-serving") as run:
        url = run.url()
        run.until(lambda: "still serving" in run.said(), 170, "end of the transfers")
        assert "by exit: 1 transfers, 1 succeeded" in run.output.read_text()
        assert run.pids() == [], "all children have ended"
        with urllib.request.urlopen(f"{url}/latest.json", timeout=60) as answer:
            assert answer.read() == (prefix / "docroot" / "latest.json").read_bytes()
        assert run.stop(signal.SIGINT) == 0
