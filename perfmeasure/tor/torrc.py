"""What tor is told: the text of a torrc for `measure`'s client and onion host, and its check.

The options are today's equivalents of those that OnionPerf gives its two tors, so that results
compare with two decades of earlier ones; tor(1), 0.4.9, names each. Later lines win in tor, hence
the order: the text of BASETORRC, ours, the network's, the user's file, the user's extra text.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmeasure.errors import MissingError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from perfmeasure.tor.onion import OnionService

_KEYWORD = re.compile(r"^\s*[+/]?([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE)
_SPOKEN = re.compile(r"\[(?:warn|err)\] (.*)")

# Without these the harness could no longer reach the tor that it started.
_OURS = frozenset(("cookieauthentication", "cookieauthfile", "datadirectory", "runasdaemon"))
_VERIFY_LIMIT_SECONDS = 60

# Warnings about what is done here on purpose, or known to whoever does it.
_EXPECTED = (
    "HiddenServiceNonAnonymousMode is set.",
    "TestingTorNetwork is set.",
    "This copy of Tor was compiled or configured to run in a non-anonymous mode.",
    "UseEntryGuards is disabled, but you have configured one or more hidden services",
    "You are running Tor as root.",
    "You have used DirAuthority or AlternateDirAuthority",
    "Your log may contain sensitive information - you disabled SafeLogging.",
)

NO_DEFAULTS = ("--defaults-torrc", "/dev/null")
"""Arguments that keep the machine's own defaults for tor out of a measurement."""


@dataclass(frozen=True)
class TorSettings:
    """What one tor of a measurement is to do.

    Args:
        data_directory: tor's own folder.
        cookie_path: where tor puts the cookie that opens its control port.
        control_port: on 127.0.0.1.
        socks_port: on 127.0.0.1; 0 for none.
        drop_guards_hours: above 0, guards are used (and dropped so often, by the harness).
        onion: the onion service that this tor hosts.
        network_lines: what a private network wants in each torrc; none for the public one.
        base_text: the environment's BASETORRC, which comes first.
        file_text: what is in the user's torrc file, which comes after ours.
        additional_text: the user's extra options, last; backslash-n in it is a new line.
        owner_pid: tor ends by itself, within 15 s, when this process is gone.
    """

    data_directory: Path
    cookie_path: Path
    control_port: int
    socks_port: int = 0
    drop_guards_hours: float = 0
    onion: OnionService | None = None
    network_lines: tuple[str, ...] = ()
    base_text: str = ""
    file_text: str = ""
    additional_text: str = ""
    owner_pid: int | None = None

    def text(self) -> str:
        """Return the torrc.

        Raises:
            UsageError: a path that no torrc can hold, or an extra line that takes an option
                which the harness needs for itself.
        """
        user_text = "\n".join(
            (self.file_text, self.additional_text.replace("\\n", "\n").replace("\r", ""))
        )
        refused = sorted(keywords(user_text) & _OURS)
        if refused:
            raise UsageError(
                "extra torrc lines",
                f"the option {refused[0]}",
                "only options that the harness does not need for itself",
                "leave that line out",
            )
        is_single_onion = self.onion is not None and self.onion.is_single_onion
        socks_port = 0 if is_single_onion else self.socks_port
        lines = [
            "RunAsDaemon 0",
            "ORPort 0",
            f"SocksPort {f'127.0.0.1:{socks_port}' if socks_port else 0}",
            f"ControlPort 127.0.0.1:{self.control_port}",
            "CookieAuthentication 1",
            f"CookieAuthFile {quoted(self.cookie_path)}",
            f"DataDirectory {quoted(self.data_directory)}",
            "ClientOnly 1",
            "SafeLogging 0",
            "Log notice stdout",
        ]
        if self.owner_pid is not None:
            lines.append(f"__OwningControllerProcess {self.owner_pid}")
        if self.onion is not None:
            lines += self.onion.torrc_lines()
        else:
            # As OnionPerf's. Not for an onion host: tor closes a service's rendezvous circuit by
            # that limit without a word to the client, whose next transfer then hangs.
            lines.append("MaxCircuitDirtiness 60 seconds")
        lines += self.network_lines
        given = keywords(self.base_text) | keywords(user_text)
        if self.drop_guards_hours <= 0 and not given & {"useentryguards", "usebridges"}:
            # As OnionPerf does: each circuit picks its first hop anew, so that the figures speak
            # of the network and not of two relays.
            lines.append("UseEntryGuards 0")
        texts = (self.base_text.strip("\n"), "\n".join(lines), user_text.strip("\n"))
        return "".join(f"{text}\n" for text in texts if text)


def keywords(text: str) -> frozenset[str]:
    """Return the names of the options that a torrc's text sets, in lower case."""
    return frozenset(name.lower() for name in _KEYWORD.findall(text))


def quoted(path: Path) -> str:
    """Return a path, made absolute, as a value in a torrc, whatever it holds (blanks, ``#``).

    Raises:
        UsageError: it holds a control character.
    """
    text = str(path.absolute())
    if any(ord(character) < 32 for character in text):
        raise UsageError("path for tor", f"{text!r} holds a control character", "a plain path")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def verify(tor: str | Path, torrc_path: Path) -> list[str]:
    """Have tor check a torrc without running, and return the warnings it gave.

    Left out are those that our own lines bring about (a private network, UseEntryGuards 0, …).

    Raises:
        UsageError: tor refuses it; the message holds tor's own words.
        MissingError: there is no such program.
    """
    argv = [str(tor), "--verify-config", "-f", str(torrc_path), *NO_DEFAULTS]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_VERIFY_LIMIT_SECONDS,
        )
    except OSError as error:
        raise MissingError(
            str(tor), f"cannot be run ({error.strerror})", "the program tor", "apt install tor"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            str(torrc_path), f"tor did not finish checking it in {_VERIFY_LIMIT_SECONDS} s"
        ) from error
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    spoken = _SPOKEN.findall(said)
    if done.returncode:
        reasons = [line for line in spoken if not line.startswith("Reading config failed")]
        raise UsageError(
            str(torrc_path),
            f"tor refuses it: {' / '.join(reasons[-3:]) or said.strip()[-300:]}",
            "",
            "correct --additional-client-conf, the torrc file given as an option, or BASETORRC",
        )
    return [line for line in spoken if not line.startswith(_EXPECTED)]
