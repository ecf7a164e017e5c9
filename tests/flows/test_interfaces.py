from __future__ import annotations

import errno
import os
import socket

import pytest

from perfmeasure.errors import MissingError, UsageError
from perfmeasure.flows import bpfcall, interfaces
from perfmeasure.flows.interfaces import Hook
from perfmeasure.flows.keys import EGRESS, INGRESS

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")


def test_loopback_is_counted_once_without_being_told() -> None:
    (hook,) = interfaces.choose_hooks(["lo", "lo"], "auto", is_xdp=False)
    assert (hook.interface, hook.direction, hook.function) == ("lo", INGRESS, "count_ingress")
    both = interfaces.choose_hooks(["lo"], "both", is_xdp=True)
    assert [hook.function for hook in both] == ["count_xdp", "count_egress"]
    (egress,) = interfaces.choose_hooks(["lo"], "egress", is_xdp=False)
    assert egress.direction == EGRESS


def test_another_interface_is_counted_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "_flags", lambda _name: 1)
    hooks = interfaces.choose_hooks(["lo"], "auto", is_xdp=False)
    assert [hook.direction for hook in hooks] == [INGRESS, EGRESS]


@pytest.mark.parametrize("name", ["no-such-if", "a" * 40, ""])
def test_an_interface_that_is_not_there_is_told_with_those_that_are(name: str) -> None:
    with pytest.raises(UsageError, match=r"there is no interface .*; wanted one of .*\blo\b"):
        interfaces.choose_hooks([name], "auto", is_xdp=False)


def test_interfaces_that_the_counters_would_mix_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interfaces, "_flags", lambda _name: 1)
    monkeypatch.setattr(socket, "if_nametoindex", lambda name: {"a": 5, "b": 1029}[name])
    with pytest.raises(UsageError, match="the same modulo 1024"):
        interfaces.choose_hooks(["a", "b"], "auto", is_xdp=False)


def test_those_that_are_up_have_loopback_among_them() -> None:
    assert "lo" in interfaces.up_interfaces()


def test_names_are_found_by_the_low_bits_of_the_index() -> None:
    hooks = [Hook("lo", 1, INGRESS), Hook("veth9", 65536 + 7, EGRESS)]
    assert interfaces.names_by_number(hooks) == {1: "lo", 7: "veth9"}


@pytest.mark.parametrize(
    ("number", "is_xdp", "said"),
    [
        (errno.EBUSY, True, "another program has its XDP hook"),
        (errno.EPERM, False, "may not attach"),
        (errno.EINVAL, False, r"has no tcx hook; wanted Linux 6\.6 or later"),
        (errno.ENODEV, False, "No such device"),
    ],
)
def test_what_cannot_be_attached_is_one_message(
    number: int, is_xdp: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(bpfcall, "link_create", refuse)
    hook = Hook("lo", 1, INGRESS, is_xdp)
    with pytest.raises(MissingError, match=said):
        interfaces.attach(hook, {hook.function: 0})


def test_xdp_falls_back_to_the_generic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def native_is_refused(*arguments: int) -> int:
        asked.append(arguments[3:])
        if len(asked) == 1:
            raise OSError(errno.EOPNOTSUPP, "no")
        return 99

    monkeypatch.setattr(bpfcall, "link_create", native_is_refused)
    assert interfaces.attach(Hook("lo", 1, INGRESS, is_xdp=True), {"count_xdp": 0}) == 99
    assert asked == [(), (2,)]


def test_the_statistics_are_those_of_the_system() -> None:
    hook = Hook("lo", 1, INGRESS)
    before = interfaces.read_statistics(hook)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x" * 100, ("127.0.0.1", 9))
    after = interfaces.read_statistics(hook)
    assert after.packets > before.packets
    assert after.bytes >= before.bytes + 128
    with pytest.raises(MissingError, match="is gone"):
        interfaces.read_statistics(Hook("no-such-if", 99, INGRESS))
