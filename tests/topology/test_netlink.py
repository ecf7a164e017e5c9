from __future__ import annotations

import socket
import subprocess

from perfmeasure.topology.netlink import addresses, attributes


def test_the_addresses_are_those_that_ip_shows() -> None:
    shown = subprocess.run(
        ["ip", "-o", "address", "show"], capture_output=True, text=True, check=False
    ).stdout
    wanted = {
        line.split()[3].partition("/")[0]
        for line in shown.splitlines()
        if "tentative" not in line and "dadfailed" not in line
    }
    found = addresses()
    assert "127.0.0.1" in found
    assert found == sorted(set(found))
    if wanted:
        assert set(found) == wanted


def test_attributes_that_are_cut_end_the_list() -> None:
    whole = bytearray(b"\x08\0\x01\0\x7f\0\0\x01" + b"\x05\0\x02\0x\0\0\0")
    found = [(kind, bytes(whole[at:end])) for kind, at, end in attributes(whole, 0, len(whole))]
    assert found == [(1, socket.inet_aton("127.0.0.1")), (2, b"x")]
    assert list(attributes(bytearray(b"\x01\0\x01\0"), 0, 4)) == []
    assert list(attributes(bytearray(b"\x08\0"), 0, 2)) == []
