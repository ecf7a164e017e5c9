"""Filters of libpcap against tcpdump's own reading of the same packets."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import MissingError, UsageError
from perfmeasure.recorder import core, libpcap
from perfmeasure.recorder.libpcap import Filter, Filters
from perfmeasure.recorder.records import FRAME, LINK_ETHERNET, LINK_RAW, Array
from tests.recorder import made


def frames_of(data: bytes, link: int = LINK_ETHERNET) -> Array:
    frames = np.zeros(100_000, FRAME)
    count, _, _ = core.walk_pcap(data, 24, False, 1, link, frames)
    return frames[:count]


def test_the_library_says_what_it_is() -> None:
    assert "libpcap" in libpcap.version()


@pytest.mark.parametrize(
    "expression", ["tcp", "udp or icmp", "tcp port 80", "net 10.0.0.0/9", "less 200", "ip6"]
)
def test_the_same_packets_as_tcpdump(
    expression: str, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("tcpdump")
    data = made.pcap(made.trace(21, 2000, connections=60))
    path = tmp_path / "all.pcap"
    path.write_bytes(data)
    ran = subprocess.run(
        ["tcpdump", "-n", "-r", path, "-w", tmp_path / "some.pcap", expression],
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    assert ran.returncode == 0
    frames = frames_of(data)
    found = frames[Filters(expression, "test").matches(data, frames)]
    mine = [data[int(f["at"]) : int(f["at"]) + int(f["captured"])] for f in found]
    theirs = (tmp_path / "some.pcap").read_bytes()
    wanted = [theirs[int(f["at"]) : int(f["at"]) + int(f["captured"])] for f in frames_of(theirs)]
    assert mine == wanted


def test_each_link_type_has_its_own_program() -> None:
    packet = made.tcp("10.0.0.1", 1, "10.0.0.2", 80, 10, made.ACK)
    data = made.ethernet(packet) + packet
    frames = np.zeros(2, FRAME)
    frames["at"] = 0, len(data) - len(packet)
    frames["captured"] = frames["original"] = len(data) - len(packet), len(packet)
    frames["link"] = LINK_ETHERNET, LINK_RAW
    filters = Filters("tcp dst port 80", "test")
    assert filters.matches(data, frames).all()
    assert not Filters("tcp dst port 81", "test").matches(data, frames).any()


def test_an_expression_without_meaning_for_a_link_type() -> None:
    frames = np.zeros(1, FRAME)
    frames["link"] = LINK_RAW
    with pytest.raises(UsageError, match="class a: filter 'ether host"):
        Filters("ether host 1:2:3:4:5:6", "class a").matches(b"\x45", frames)


def test_an_interface_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="filter: interface nosuch0: "):
        Filter("udp", LINK_ETHERNET, "filter", "nosuch0")


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libpcap, "_LIBRARY", "libnosuch.so.0")
    libpcap._libpcap.cache_clear()
    try:
        with pytest.raises(MissingError, match=r"apt-get install .* libpcap0\.8"):
            Filter("tcp", LINK_ETHERNET, "filter")
    finally:
        libpcap._libpcap.cache_clear()


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_what_is_no_expression_is_said_so(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert Filter(text, LINK_ETHERNET, "filter").socket_program
