"""The addresses of the relays that tor connects to, noted beside its events.

An ORCONN event names a relay by its fingerprint, while the kernel knows addresses. So the reader
asks tor for the relay's entry in the consensus (control-spec, ``GETINFO ns/id/…``; dir-spec,
"Router status entry") and notes what it says::

    [RELAY] $FINGERPRINT~NICKNAME ADDRESS:PORT [ADDRESS]:PORT

That is public. Of a relay that is not in the consensus, a bridge say, there is no note.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_EVENT = re.compile(rb"650 ORCONN (\$[0-9A-F]{40})[~=]?\w{0,19} (?:LAUNCHED|CONNECTED) ")
_STATUS = re.compile(r"(\$[0-9A-F]{40})[~=]?\w{0,19} CONNECTED\Z")


class Asked(Protocol):
    """Whom to ask: a `ControlConnection`."""

    def get_info(self, *keys: str) -> dict[str, str]:
        """Return what tor knows about the keys."""


class Relays:
    """Takes the messages of one control port and notes the relays in them.

    Args:
        note: takes a line for the log.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._asked_about: dict[str, str] = {}
        """What was noted, by fingerprint: an address that stays is not noted again."""
        self._seen: set[str] = set()

    def begin(self, connection: Asked) -> None:
        """Ask about the relays to which tor was connected before anyone listened."""
        status = connection.get_info("orconn-status").get("orconn-status", "")
        self._seen.update(m[1] for line in status.splitlines() if (m := _STATUS.match(line)))
        self.ask(connection)

    def see(self, messages: Iterable[bytes]) -> None:
        """Take messages in, to ask later."""
        for message in messages:
            if message.startswith(b"650 ORCONN $") and (match := _EVENT.match(message)):
                self._seen.add(match[1].decode())

    def ask(self, connection: Asked) -> None:
        """Ask about the relays that were seen since the last time.

        Raises:
            ControlError: the connection was lost.
        """
        while self._seen:  # more may be seen while tor answers
            fingerprint = min(self._seen)
            self._seen.discard(fingerprint)
            key = f"ns/id/{fingerprint[1:]}"
            text = note_of(fingerprint, connection.get_info(key).get(key, ""))
            if text and self._asked_about.get(fingerprint) != text:
                self._asked_about[fingerprint] = text
                self._note(text)


def note_of(fingerprint: str, entry: str) -> str:
    """Return the note of a consensus entry, nothing if it has no address."""
    name, addresses = "", []
    for line in entry.splitlines():
        words = line.split(" ")
        if words[0] == "r" and len(words) >= 9 and _is_address(words[6]) and words[7].isdigit():
            name = words[1]
            addresses.append(f"{words[6]}:{words[7]}")
        elif words[0] == "a" and len(words) == 2:
            address, _, port = words[1].rpartition(":")
            if _is_address(address.strip("[]")) and port.isdigit():
                addresses.append(words[1])
    return f"[RELAY] {fingerprint}~{name} {' '.join(addresses)}" if name else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
