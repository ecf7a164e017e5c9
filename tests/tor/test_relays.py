"""perfmeasure.tor.relays: what is asked about relays, and what is noted."""

from __future__ import annotations

import pytest

from perfmeasure.tor.relays import Relays, note_of

FINGERPRINT = "$" + "A" * 40
ENTRY = (
    "r relay1 qqqqqqqqqqqqqqqqqqqqqqqqqqo 3AEb1IvyqJ8kMW5FDZJz1pvrqTI 2038-01-01 00:00:00 "
    "192.0.2.7 9001 0\na [2001:db8::7]:9001\ns Fast Guard Running Valid\nw Bandwidth=1000"
)


class Tor:
    """Answers from a table, and lists what it was asked."""

    def __init__(self, **entries: str) -> None:
        self.entries = entries
        self.asked: list[str] = []

    def get_info(self, *keys: str) -> dict[str, str]:
        self.asked += keys
        return {key: self.entries[key] for key in keys if key in self.entries}


def tor(entry: str = ENTRY, status: str = "") -> Tor:
    return Tor(**{f"ns/id/{FINGERPRINT[1:]}": entry, "orconn-status": status})


def test_a_relay_is_noted_once_while_its_address_stays() -> None:
    notes: list[str] = []
    relays, asked = Relays(notes.append), tor()
    for status in (b"LAUNCHED", b"CONNECTED", b"CLOSED"):
        relays.see(
            [
                b"650 BW 1 2\r\n",
                b"650 ORCONN %s~relay1 %s ID=3\r\n" % (FINGERPRINT.encode(), status),
            ]
        )
        relays.ask(asked)
    assert notes == [f"[RELAY] {FINGERPRINT}~relay1 192.0.2.7:9001 [2001:db8::7]:9001"]
    assert len(asked.asked) == 2, "of what is closed nothing is asked"
    moved = tor(ENTRY.replace("192.0.2.7", "192.0.2.8"))
    relays.see([b"650 ORCONN %s LAUNCHED ID=4\r\n" % FINGERPRINT.encode()])
    relays.ask(moved)
    assert notes[1:] == [f"[RELAY] {FINGERPRINT}~relay1 192.0.2.8:9001 [2001:db8::7]:9001"]


def test_connections_from_before_the_reader() -> None:
    notes: list[str] = []
    status = f"{FINGERPRINT}~relay1 CONNECTED\n192.0.2.9:9001 LAUNCHED\n${'B' * 40} LAUNCHED"
    Relays(notes.append).begin(tor(status=status))
    assert [note.partition("~")[0] for note in notes] == [f"[RELAY] {FINGERPRINT}"]


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "s Fast",
        "r cut AAAA",
        ENTRY.replace("192.0.2.7", "192.0.2.x"),
        ENTRY.replace("9001", "x"),
    ],
)
def test_what_is_no_entry_is_not_noted(entry: str) -> None:
    assert not note_of(FINGERPRINT, entry)
