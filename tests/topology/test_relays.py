from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.topology.relays import RelayAddress, RelayNotes, relays_of

_A, _B = "A" * 40, "0123456789" * 4


def note(fingerprint: str, nickname: str, *places: str) -> bytes:
    words = " ".join((f"${fingerprint}~{nickname}", *places))
    return f"2026-11-22 09:17:00 1795339020.000001 [RELAY] {words}\n".encode()


def test_notes_are_found_as_they_come_and_once_each(tmp_path: Path) -> None:
    path = tmp_path / "perfmeasure.torctl.log"
    notes = RelayNotes([path])
    assert notes.read() == []
    path.write_bytes(b"650 CIRC 1 BUILT\r\n" + note(_A, "one", "10.0.0.1:9001", "[fd00::1]:9001"))
    ones = [RelayAddress(_A, "one", "10.0.0.1", 9001), RelayAddress(_A, "one", "fd00::1", 9001)]
    assert notes.read() == ones
    with path.open("ab") as file:
        file.write(note(_A, "one", "10.0.0.1:9001"))
        file.write(note(_B, "two", "10.0.0.2:443")[:-9])
        file.flush()
        assert notes.read() == []  # half a line is none
        file.write(note(_B, "two", "10.0.0.2:443")[-9:])
    assert notes.read() == [RelayAddress(_B, "two", "10.0.0.2", 443)]
    assert list(notes.known) == [*ones, RelayAddress(_B, "two", "10.0.0.2", 443)]


def test_a_log_that_rotates_is_read_to_its_end_and_then_the_next(tmp_path: Path) -> None:
    path = tmp_path / "tor-client" / "perfmeasure.torctl.log"
    path.parent.mkdir()
    notes = relays_of(tmp_path)
    path.write_bytes(note(_A, "one", "10.0.0.1:1"))
    assert len(notes.read()) == 1
    with path.open("ab") as file:
        file.write(note(_A, "one", "10.0.0.1:2"))
    path.rename(tmp_path / "archived")
    path.write_bytes(note(_A, "one", "10.0.0.1:3"))
    found = notes.read() + notes.read()
    assert [address.port for address in found] == [2, 3]


@given(st.binary(max_size=200))
def test_anything_may_be_in_a_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.log"
    path.write_bytes(data + b"\n" + note(_A, "one", "10.0.0.1:9001"))
    assert RelayAddress(_A, "one", "10.0.0.1", 9001) in RelayNotes([path]).read()


def test_a_place_that_is_none_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(note(_A, "one", "example.org:9001", "10.0.0.1:9001", "[10.0.0]:1"))
    assert [address.ip for address in RelayNotes([path]).read()] == ["10.0.0.1"]
