"""Which class a connection is of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfmeasure.errors import UsageError
from perfmeasure.recorder import core
from perfmeasure.recorder.classes import Classes, PacketClass, Side
from perfmeasure.recorder.connections import Connections, Rules
from perfmeasure.recorder.keys import address_bytes
from perfmeasure.recorder.records import FRAME, NO_CUTOFF, Array
from tests.recorder import made

SECOND = 10**9


def packed(address: str) -> bytes:
    found = address_bytes(address)
    assert found is not None
    return found


class Table:
    """Connections that begin with frames, and their classes."""

    def __init__(self, *classes: PacketClass) -> None:
        self.classes = Classes(list(classes))
        self.connections = Connections(Rules(), lambda _: None)

    def see(self, *packets: bytes, ts_ns: int = 0) -> list[str]:
        """Return the class of each packet."""
        frames = [made.ethernet(packet) for packet in packets]
        places = np.zeros(len(frames), FRAME)
        places["captured"] = places["original"] = [len(frame) for frame in frames]
        places["at"] = np.cumsum(places["captured"]) - places["captured"]
        places["link"], places["ts_ns"] = 1, ts_ns
        data = b"".join(frames)
        slots, first_new = self.connections.follow(places, core.decode(data, places))
        table = self.connections.table
        self.classes.begin(table, first_new, data, places, slots)
        return self.names(table["class_id"][slots])

    def names(self, numbers: Array) -> list[str]:
        names = [*self.classes.numbers, "none"]
        return [names[number] for number in numbers]

    def assign(self, address: str, name: str, side: Side = Side.BOTH, now_ns: int = 0) -> Any:
        table = self.connections.table
        return self.classes.assign(packed(address), name, side, now_ns, table).tolist()


def tcp(src: str, src_port: int, dst: str, dst_port: int, flags: int = made.ACK) -> bytes:
    return made.tcp(src, src_port, dst, dst_port, 10, flags)


WEB = tcp("10.0.0.1", 1000, "10.0.0.2", 80)
ANSWER = tcp("10.0.0.2", 80, "10.0.0.1", 1000)
MAIL = tcp("10.0.0.1", 1000, "10.0.0.2", 25)


def test_the_highest_precedence_that_matches_wins() -> None:
    table = Table(
        PacketClass("all", precedence=1),
        PacketClass("web", "port 80", 5, cutoff_bytes=100),
        PacketClass("host", "host 10.0.0.1", 3),
    )
    other = tcp("10.0.0.8", 1, "10.0.0.9", 2)
    assert table.see(WEB, MAIL, other) == ["web", "host", "all"]
    assert table.connections.table["cutoff"].tolist() == [100, NO_CUTOFF, NO_CUTOFF]


def test_of_equals_the_first_wins() -> None:
    assert Table(PacketClass("a"), PacketClass("b")).see(WEB) == ["a"]


def test_the_first_packet_decides_for_the_connection() -> None:
    table = Table(PacketClass("to", "dst port 80", 1), PacketClass("rest"))
    assert table.see(WEB, ANSWER) == ["to", "to"]
    assert table.see(ANSWER) == ["to"]
    assert Table(PacketClass("to", "dst port 80", 1), PacketClass("rest")).see(ANSWER, WEB) == [
        "rest", "rest",
    ]  # fmt: skip


def test_what_no_class_takes_is_not_kept() -> None:
    table = Table(PacketClass("web", "port 80"))
    assert table.see(MAIL, WEB) == ["none", "web"]
    assert table.connections.table["cutoff"].tolist() == [0, NO_CUTOFF]


@pytest.mark.parametrize(
    ("side", "begun_by_it", "begun_by_other"),
    [
        (Side.BOTH, "watch", "watch"),
        (Side.ORIGINATOR, "watch", "all"),
        (Side.RESPONDER, "all", "watch"),
    ],
)
@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.200"])
def test_an_address_is_assigned(
    side: Side, begun_by_it: str, begun_by_other: str, address: str
) -> None:
    """Either end may be the one with the lower address."""
    other = "10.0.0.100"
    table = Table(PacketClass("all", cutoff_bytes=10), PacketClass("watch", "less 1"))
    before = table.see(tcp(address, 1, other, 2), tcp(other, 3, address, 4), MAIL)
    assert before == ["all", "all", "all"]
    slots = table.assign(address, "watch", side)
    wanted = [0, 1] if side is Side.BOTH else [0 if side is Side.ORIGINATOR else 1]
    if address == "10.0.0.1":
        wanted += [2] if side is not Side.RESPONDER else []  # which it began, too
    assert sorted(slots) == sorted(wanted), "connections under way"
    assert (table.connections.table["cutoff"][slots] == NO_CUTOFF).all()
    after = table.see(tcp(address, 5, other, 6), tcp(other, 7, address, 8))
    assert after == [begun_by_it, begun_by_other], "connections that begin"
    assert table.classes.assigned == 1
    assert table.classes.unassign(packed(address))
    assert not table.classes.unassign(packed(address))
    assert table.see(tcp(address, 9, other, 10)) == ["all"]
    assert table.see(tcp(address, 5, other, 6)) == [begun_by_it], "it stays what it was"


def test_an_assignment_ends() -> None:
    watch = PacketClass("watch", "less 1", dynamic_timeout_seconds=60)
    table = Table(PacketClass("all"), watch)
    table.assign("10.0.0.1", "watch", now_ns=100 * SECOND)
    assert table.see(WEB, ts_ns=160 * SECOND) == ["watch"]
    assert table.see(MAIL, ts_ns=160 * SECOND + 1) == ["all"]
    assert table.classes.assigned == 0


def test_the_originator_is_asked_first() -> None:
    table = Table(PacketClass("all"), PacketClass("a", "less 1"), PacketClass("b", "less 1"))
    table.assign("10.0.0.1", "a")
    table.assign("10.0.0.2", "b")
    assert table.see(WEB, tcp("10.0.0.2", 5, "10.0.0.1", 6)) == ["a", "b"]


def test_errors() -> None:
    with pytest.raises(UsageError, match="class 'a': defined twice"):
        Classes([PacketClass("a"), PacketClass("b"), PacketClass("a")])
    with pytest.raises(UsageError, match="class a: filter 'prot 80'"):
        Classes([PacketClass("a", "prot 80")])
    with pytest.raises(UsageError, match=r"class '\.\./a': not a name"):
        PacketClass("../a")
    with pytest.raises(UsageError, match="class 'c': no such class; wanted one of a, b"):
        Table(PacketClass("a"), PacketClass("b")).assign("10.0.0.1", "c")
