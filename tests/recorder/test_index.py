from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.recorder import core
from perfmeasure.recorder.arrays import Arrays, save
from perfmeasure.recorder.index import ClosedIndex, OpenIndex, OpenView
from perfmeasure.recorder.keys import Address, Key, Port, Protocol, Side, Vlan, address_bytes
from perfmeasure.recorder.records import FRAME, MAPPED, Array
from tests.recorder import made

PACKETS = made.trace(11, 4000, 300)


def frames_of(packets: list[made.Timed]) -> tuple[bytes, Array]:
    data = made.pcap(packets)
    frames = np.zeros(len(packets), FRAME)
    assert core.walk_pcap(data, 24, False, 1, 1, frames)[0] == len(packets)
    return data, frames


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenView, ClosedIndex]:
    """The same packets in an open and in a closed index."""
    data, frames = frames_of(PACKETS)
    index = OpenIndex()
    for begin in range(0, len(frames), 333):
        part = frames[begin : begin + 333]
        index.add(part, core.decode(data, part), (part["at"] - 16).astype("u4"))
    path = tmp_path_factory.mktemp("index") / "x.npz"
    save(path, index.sealed(), {})
    return index.snapshot(), ClosedIndex(Arrays(path))


def numbers(places: Array) -> list[int]:
    ends = np.cumsum([0] + [16 + len(packet.frame) for packet in PACKETS]) + 24
    return [int(n) for n in np.searchsorted(ends, places)]


def address(text: str) -> bytes:
    found = address_bytes(text)
    assert found is not None
    return found


CASES: list[tuple[Key, object]] = [
    (Protocol(17), lambda f: f.protocol == 17),
    (Protocol(0), lambda _: False),
    (Vlan(7), lambda f: 7 in f.vlans),
    (Vlan(9), lambda f: 9 in f.vlans),
    (Vlan(None), lambda f: bool(f.vlans)),
    (Port(80), lambda f: 80 in (f.src_port, f.dst_port)),
    (Port(80, Side.SOURCE), lambda f: f.src_port == 80),
    (Port(0), lambda _: False),
    (Address(address("10.0.0.5"), address("10.0.0.5"), Side.TARGET), lambda f: f.dst == "10.0.0.5"),
    (
        Address(address("10.0.0.0"), address("10.0.0.15")),
        lambda f: any(e.startswith("10.0.0.") and int(e[7:]) < 16 for e in (f.src, f.dst)),
    ),
    (Address(MAPPED + bytes(4), MAPPED + b"\xff" * 4), lambda f: "." in f.src),
    (Address(address("::"), address("f" * 4 + ":ffff" * 7)), lambda f: ":" in f.src),
    (Address(address("::"), address("::")), lambda _: False),
]


@pytest.mark.parametrize(("key", "is_wanted"), CASES)
def test_open_and_closed_find_what_a_walk_finds(
    key: Key, is_wanted: object, views: tuple[OpenView, ClosedIndex]
) -> None:
    assert callable(is_wanted)
    wanted = [n for n, p in enumerate(PACKETS) if is_wanted(made.fields(p.frame))]
    for view in views:
        groups = key.groups(view)
        places, found_groups = view.places(groups)
        assert numbers(places) == wanted
        assert groups[found_groups & 1, found_groups >> 1].all()
        totals = view.totals(groups)
        captured = sum(len(PACKETS[n].frame) for n in wanted)
        assert totals == ((len(wanted), captured) if view is views[1] else None)


def test_a_snapshot_does_not_see_what_comes_later() -> None:
    data, frames = frames_of(PACKETS)
    packets = core.decode(data, frames)
    index = OpenIndex()
    places = (frames["at"] - 16).astype("u4")
    index.add(frames[:100], packets[:100], places[:100])
    before = index.snapshot()
    index.add(frames[100:], packets[100:], places[100:])
    for view, count in ((before, 100), (index.snapshot(), 4000)):
        everything = np.ones((2, len(view.protocol)), bool)
        assert len(view.places(everything)[0]) == count


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = OpenIndex()
    save(tmp_path / "x.npz", index.sealed(), {})
    for view in (index.snapshot(), ClosedIndex(Arrays(tmp_path / "x.npz"))):
        for key, _ in CASES:
            assert len(view.places(key.groups(view))[0]) == 0


@given(
    st.lists(
        st.binary(min_size=16, max_size=16).map(lambda b: b[:1] + bytes(14) + b[-1:]), min_size=2
    )
)
def test_addresses_that_end_in_zeros_are_told_apart(hosts: list[bytes]) -> None:
    import ipaddress
    import tempfile

    texts = [str(ipaddress.IPv6Address(host)) for host in hosts]
    packets = [made.Timed(0, made.ethernet(made.udp(text, 1, "2001::", 2))) for text in texts]
    data, frames = frames_of(packets)
    index = OpenIndex()
    index.add(frames, core.decode(data, frames), np.arange(len(frames), dtype="u4"))
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "x.npz", index.sealed(), {})
        for view in (index.snapshot(), ClosedIndex(Arrays(Path(folder) / "x.npz"))):
            for host in hosts:
                places, _ = view.places(Address(host, host, Side.SOURCE).groups(view))
                assert places.tolist() == [n for n, other in enumerate(hosts) if other == host]
