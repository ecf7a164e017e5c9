"""One relay of a private Tor network: its keys, its torrc, the program that it is.

A directory authority is a relay too, without exit. All relays live on 127.0.0.1 and differ by
port. What each option is for stands beside it; tor(1), 0.4.9, documents them.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from perfmeasure.errors import MeasurementError, MissingError
from perfmeasure.tor.ports import LOOPBACK
from perfmeasure.tor.torrc import NO_DEFAULTS, quoted

if TYPE_CHECKING:
    from pathlib import Path

_KEY_LIMIT_SECONDS = 90
_FINGERPRINT = re.compile(r"^fingerprint ([0-9A-F]{40})$", re.MULTILINE)

# How long the first votes travel, and then the signatures: the least that tor allows.
DELAY_SECONDS = 2
_PUBLISHED_SECONDS = 1
# Authorities without a consensus vote for one at each multiple of this (a divisor of 30 minutes)
# plus an offset. It exceeds the time from start to consensus, or else they would vote one
# interval too early, knowing themselves only.
FIRST_INTERVAL_SECONDS = 30
# After that they vote each half an hour, and what they agree on is valid for half a day. An onion
# host times its descriptors by 48 of these intervals and logs a bug when that, and the age of the
# consensus, exceed 131072 s (OPE_INPUT_MAX): one vote a day would not do.
INTERVAL_SECONDS = 1800
_INTERVALS_VALID = 24

_RELAY_LINES = f"""\
# Without TestingTorNetwork tor refuses authorities, relays and exits on private addresses.
TestingTorNetwork 1
Address {LOOPBACK}
AddressDisableIPv6 1
SocksPort 0
CookieAuthentication 1
Log notice stdout
SafeLogging 0
ContactInfo none (a private network for measurements)
ShutdownWaitLength 0
# Nobody tests from outside whether the relay can be reached.
AssumeReachable 1
PathsNeededToBuildCircuits 0.67
BandwidthRate 1 GBytes
BandwidthBurst 1 GBytes
DirCache 1
# The crypto threads of six relays would only wait for one another.
NumCPUs 1
# All clients come from one address.
DoSCircuitCreationEnabled 0
DoSConnectionEnabled 0
ExitPolicyRejectPrivate 0
"""

_AUTHORITY_LINES = f"""\
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
TestingV3AuthInitialVoteDelay {DELAY_SECONDS}
TestingV3AuthInitialDistDelay {DELAY_SECONDS}
V3AuthVotingInterval {INTERVAL_SECONDS}
V3AuthVoteDelay {DELAY_SECONDS}
V3AuthDistDelay {DELAY_SECONDS}
V3AuthNIntervalsValid {_INTERVALS_VALID}
TestingAuthDirTimeToLearnReachability 0
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
TestingMinFastFlagThreshold 0
# Circuits on loopback take milliseconds; a limit learned from that would cut them off under load.
ConsensusParams cbtmintimeout=1000
"""


@dataclass(frozen=True)
class NextVote:
    """When authorities are to have their next consensus.

    Args:
        due_unix_ts: the moment.
        is_first: there is no consensus yet.
    """

    due_unix_ts: float
    is_first: bool

    def relay_lines(self) -> list[str]:
        """Return what to say in the torrc of a relay that does not vote."""
        if not self.is_first:
            return []
        # Asked too early, authorities have nothing to give, and relays ask again ever later.
        delay = max(0, math.ceil(self.due_unix_ts - time.time()) + _PUBLISHED_SECONDS)
        return [f"TestingServerConsensusDownloadInitialDelay {delay}"]

    def authority_lines(self) -> list[str]:
        """Return what to say in an authority's torrc."""
        interval = FIRST_INTERVAL_SECONDS if self.is_first else INTERVAL_SECONDS
        offset = math.ceil(self.due_unix_ts) % interval
        return [
            f"TestingV3AuthInitialVotingInterval {interval}",
            f"TestingV3AuthVotingStartOffset {offset}",
        ]


@dataclass(frozen=True)
class Relay:
    """A relay and all that is fixed about it before it runs.

    Args:
        name: its nickname in the network, also its folder's name.
        folder: holds its torrc, logs, and tor's own folder ``data``.
        is_authority: it votes on the consensus.
        is_exit: it connects to any address and port.
        or_port: for circuits; part of its descriptor.
        dir_port: an authority's, for votes; part of its descriptor.
        control_port: for questions about its state.
        fingerprint: SHA-1 of its identity key, 40 upper-case hex digits; empty without keys.
        v3_identity: the same of an authority's voting key; empty for other relays.
    """

    name: str
    folder: Path
    is_authority: bool = False
    is_exit: bool = False
    or_port: int = 0
    dir_port: int = 0
    control_port: int = 0
    fingerprint: str = ""
    v3_identity: str = ""

    @property
    def data(self) -> Path:
        """Tor's DataDirectory."""
        return self.folder / "data"

    @property
    def torrc_path(self) -> Path:
        """Where its torrc is written."""
        return self.folder / "torrc"

    @property
    def cookie_path(self) -> Path:
        """Where tor puts the control port's cookie."""
        return self.data / "control_auth_cookie"

    @property
    def log_path(self) -> Path:
        """Where its standard output belongs."""
        return self.folder / "perfmeasure.tor.log"

    def argv(self, tor: str | Path) -> list[str]:
        """Return the program and its arguments."""
        return [str(tor), "-f", str(self.torrc_path), *NO_DEFAULTS]

    def authority_line(self) -> str:
        """Return the DirAuthority line that names this authority to all others."""
        return (
            f"DirAuthority {self.name} orport={self.or_port} no-v2 "
            f"v3ident={self.v3_identity} {LOOPBACK}:{self.dir_port} {self.fingerprint}"
        )

    def torrc_text(self, authority_lines: list[str], next_vote: NextVote, owner_pid: int) -> str:
        """Return the torrc.

        Args:
            authority_lines: the DirAuthority lines of the network.
            next_vote: when its consensus is due.
            owner_pid: tor ends by itself, within 15 s, when this process is gone.
        """
        lines = [
            f"Nickname {self.name}",
            f"DataDirectory {quoted(self.data)}",
            f"ORPort {LOOPBACK}:{self.or_port}",
            f"ControlPort {LOOPBACK}:{self.control_port}",
            f"ExitRelay {int(self.is_exit)}",
            f"ExitPolicy {'accept' if self.is_exit else 'reject'} *:*",
            f"__OwningControllerProcess {owner_pid}",
            *authority_lines,
        ]
        text = _RELAY_LINES + "\n".join(lines) + "\n"
        if self.is_authority:
            text += f"DirPort {LOOPBACK}:{self.dir_port}\n" + _AUTHORITY_LINES
        votes = next_vote.authority_lines() if self.is_authority else next_vote.relay_lines()
        return text + "".join(f"{line}\n" for line in votes)

    def with_keys(self, tor: str | Path, tor_gencert: str | Path) -> Relay:
        """Make the relay's keys in its folder and return the relay with its fingerprints.

        Raises:
            MissingError: tor or tor-gencert cannot be run.
            MeasurementError: one of them failed.
        """
        keys = self.data / "keys"
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data.chmod(0o700)
        v3_identity = ""
        if self.is_authority:
            certificate = keys / "authority_certificate"
            argv = [
                *(str(tor_gencert), "--create-identity-key", "--passphrase-fd", "0", "-m", "24"),
                *("-i", str(keys / "authority_identity_key")),
                *("-s", str(keys / "authority_signing_key")),
                *("-c", str(certificate)),
            ]
            # The identity key is never used again, so its pass-phrase guards nothing.
            _run(argv, stdin=b"unused\n")
            match = _FINGERPRINT.search(certificate.read_text("ascii"))
            if match is None:
                raise MeasurementError(str(certificate), "holds no fingerprint line")
            v3_identity = match[1]
        # This makes the RSA, ed25519 and onion keys, too.
        said = _run(
            [str(tor), "-f", "-", *NO_DEFAULTS, "--list-fingerprint", "--hush"],
            stdin=f"Nickname {self.name}\nORPort 1\nDataDirectory {quoted(self.data)}\n".encode(),
        )
        last = (said.strip().splitlines() or [""])[-1]
        name, _, fingerprint = last.partition(" ")
        fingerprint = fingerprint.replace(" ", "")
        if name != self.name or not re.fullmatch(r"[0-9A-F]{40}", fingerprint):
            raise MeasurementError(
                f"{tor} --list-fingerprint", f"said {last[:200]!r}", f"{self.name} FINGERPRINT"
            )
        return replace(self, fingerprint=fingerprint, v3_identity=v3_identity)

    def last_words(self, path: Path | None = None, since_byte: int = 0) -> str:
        """Return the last three lines of its log, or of another at ``path``."""
        lines = log_lines(path or self.log_path, since_byte)
        return " / ".join(lines[-3:])[-600:] or "nothing"


def log_lines(path: Path, since_byte: int = 0) -> list[str]:
    """Return the lines of the last 64 KiB of a log, none when it cannot be read."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(since_byte, size - 65536))
            return log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def utc_unix_ts(stamp: str) -> float:
    """Return the Unix time of a stamp as tor writes it, ``YYYY-MM-DD HH:MM:SS`` in UTC.

    Raises:
        ValueError: it is none.
    """
    return datetime.strptime(f"{stamp} +0000", "%Y-%m-%d %H:%M:%S %z").timestamp()


def _run(argv: list[str], stdin: bytes) -> str:
    """Run a program that makes keys and return its standard output."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, check=False, timeout=_KEY_LIMIT_SECONDS
        )
    except OSError as error:
        raise MissingError(
            argv[0],
            f"cannot be run ({error.strerror})",
            "tor and tor-gencert, which are in one package",
            "apt install tor",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            argv[0], f"made no keys in {_KEY_LIMIT_SECONDS} s", "", "look at the machine's load"
        ) from error
    if done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        raise MeasurementError(argv[0], f"status {done.returncode}: {said[-400:]}", "keys")
    return done.stdout.decode("utf-8", "replace")
