"""perfmeasure.tor.relay: keys, torrc and last words, with the real tor."""

from __future__ import annotations

import re
import stat
import time
from typing import TYPE_CHECKING

import pytest

from perfmeasure.errors import MeasurementError, MissingError
from perfmeasure.tor.onion import make_private
from perfmeasure.tor.relay import (
    FIRST_INTERVAL_SECONDS,
    INTERVAL_SECONDS,
    NextVote,
    Relay,
    log_lines,
    utc_unix_ts,
)
from perfmeasure.tor.torrc import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _relay(tmp_path: Path, *, is_authority: bool) -> Relay:
    relay = Relay(
        "authority0" if is_authority else "exit0",
        tmp_path / "a folder # of it",
        is_authority=is_authority,
        is_exit=not is_authority,
        or_port=15001,
        dir_port=17001 if is_authority else 0,
        control_port=19001,
    )
    make_private(relay.folder)
    return relay


@pytest.mark.parametrize("is_authority", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
def test_tor_accepts_keys_and_torrc(
    *, is_authority: bool, is_first: bool, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("tor", "tor-gencert")
    relay = _relay(tmp_path, is_authority=is_authority).with_keys("tor", "tor-gencert")
    assert re.fullmatch(r"[0-9A-F]{40}", relay.fingerprint)
    assert bool(relay.v3_identity) is is_authority
    assert stat.S_IMODE(relay.data.stat().st_mode) == 0o700
    assert (relay.data / "keys" / "ed25519_master_id_secret_key").exists()
    line = (
        relay.authority_line()
        if is_authority
        else f"DirAuthority a orport=1 no-v2 v3ident={'A' * 40} 127.0.0.1:2 {'B' * 40}"
    )
    vote = NextVote(time.time() + 8, is_first=is_first)
    relay.torrc_path.write_text(relay.torrc_text([line], vote, owner_pid=1))
    assert verify("tor", relay.torrc_path) == []
    assert relay.argv("tor")[:3] == ["tor", "-f", str(relay.torrc_path)]


def test_offset_leads_to_the_moment() -> None:
    due = 1_795_316_079.25
    for is_first, interval in ((True, FIRST_INTERVAL_SECONDS), (False, INTERVAL_SECONDS)):
        lines = NextVote(due, is_first=is_first).authority_lines()
        assert f"TestingV3AuthInitialVotingInterval {interval}" in lines
        (offset,) = (int(line.split()[1]) for line in lines if "Offset" in line)
        assert 0 <= offset < interval
        assert (1_795_316_080 - offset) % interval == 0


def test_relays_wait_for_a_first_vote_only() -> None:
    due = time.time() + 8
    (line,) = NextVote(due, is_first=True).relay_lines()
    assert line in (f"TestingServerConsensusDownloadInitialDelay {n}" for n in (8, 9, 10))
    assert NextVote(due, is_first=False).relay_lines() == []


def test_no_such_program(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="Apt install tor"):
        _relay(tmp_path, is_authority=False).with_keys(tmp_path / "none", "tor-gencert")


def test_a_failure_is_told_in_the_programs_words(tmp_path: Path) -> None:
    fake = tmp_path / "tor"
    fake.write_text("#!/bin/sh\necho 'no entropy today' >&2; exit 1\n")
    fake.chmod(0o755)
    with pytest.raises(MeasurementError, match="no entropy today"):
        _relay(tmp_path, is_authority=False).with_keys(fake, "tor-gencert")
    fake.write_text("#!/bin/sh\ncat >/dev/null; echo something else\n")
    with pytest.raises(MeasurementError, match="something else"):
        _relay(tmp_path, is_authority=False).with_keys(fake, "tor-gencert")


def test_last_words(tmp_path: Path) -> None:
    relay = _relay(tmp_path, is_authority=False)
    assert relay.last_words() == "nothing"
    relay.log_path.write_text("one\ntwo\nthree\nfour\n")
    assert relay.last_words() == "two / three / four"
    assert relay.last_words(since_byte=14) == "four"
    relay.log_path.write_bytes(b"\xff" * 100_000 + b"\nend")
    assert log_lines(relay.log_path)[-1] == "end"
    assert len(relay.last_words()) <= 600


def test_utc_stamp() -> None:
    assert utc_unix_ts("2026-11-22 03:11:44") == 1_795_317_104
    with pytest.raises(ValueError, match="format"):
        utc_unix_ts("")
