from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perfmeasure.errors import MeasurementError, UsageError
from perfmeasure.recorder.language import Feed, ToFile
from perfmeasure.recorder.outlet import outlet
from perfmeasure.recorder.store import Chunk
from tests.recorder import made
from tests.recorder.served import Kept
from tests.recorder.test_answer import EVERYTHING, packets_of, stored


def in_order(packets: list[made.Timed]) -> bytes:
    return made.pcap(sorted(packets, key=lambda packet: packet.ts_ns))


def test_a_file_grows_and_is_whole_at_any_time(tmp_path: Path) -> None:
    packets = made.trace(1, 60)
    store = stored(tmp_path, made.pcap(packets))
    out = outlet(ToFile("x.pcap"), tmp_path, Kept())
    path = tmp_path / "queries" / "x.pcap"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    out.begin(1, iter(()))
    assert path.read_bytes() == made.pcap([])
    for chunk in store.packets(EVERYTHING):
        out.write(chunk)
    assert path.read_bytes() == in_order(packets)
    out.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["x.pcap"]


def test_what_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    store = stored(tmp_path, made.pcap(made.trace(1, 60)))
    path = tmp_path / "queries" / "x.pcap"
    path.parent.mkdir()
    path.write_bytes(b"old")

    def chunks() -> Iterator[Chunk]:
        yield from store.packets(EVERYTHING)
        raise MeasurementError("store", "is broken")

    for function in (
        lambda: outlet(ToFile("x.pcap"), tmp_path, Kept()).answer(chunks()),
        lambda: outlet(ToFile("x.pcap"), tmp_path, Kept()).begin(1, chunks()),
        # Of another link type than what is being recorded.
        lambda: outlet(ToFile("x.pcap"), tmp_path, Kept()).begin(101, store.packets(EVERYTHING)),
        lambda: outlet(ToFile("x.pcapng"), tmp_path, Kept()).begin(1, chunks()),
    ):
        with pytest.raises((MeasurementError, UsageError)):
            function()
        assert [entry.name for entry in path.parent.iterdir()] == ["x.pcap"]
        assert path.read_bytes() == b"old"


def test_a_link_in_the_folder_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "queries" / "x.pcap").symlink_to(tmp_path / "precious")
    out = outlet(ToFile("x.pcap"), tmp_path, Kept())
    out.begin(1, iter(()))
    out.close()
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "queries" / "x.pcap").is_symlink()


def test_a_feed_is_one_capture_and_ends_with_nothing(tmp_path: Path) -> None:
    packets = made.trace(1, 60)
    store = stored(tmp_path, made.pcap(packets))
    for is_live in (False, True):
        client = Kept()
        out = outlet(Feed("zeek", "t1"), tmp_path, client)
        if is_live:
            out.begin(1, iter(()))
            for chunk in store.packets(EVERYTHING):
                out.write(chunk)
        else:
            out.answer(store.packets(EVERYTHING))
        out.close()
        assert {block[:2] for block in client.blocks} == {("zeek", "t1")}
        assert [not content for _, _, content in client.blocks].index(True) == (
            len(client.blocks) - 1
        )
        (tmp_path / "out.pcap").write_bytes(b"".join(block[2] for block in client.blocks))
        assert packets_of(tmp_path / "out.pcap") == sorted(packets, key=lambda p: p.ts_ns)
