from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis import source, torctl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perfmeasure.analysis.source import Input
    from perfmeasure.analysis.torlog import Guard
    from tests.analysis.conftest import Lines

FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"
IDENTITY = base64.b64encode(bytes.fromhex(FINGERPRINT)).decode().rstrip("=")
GUARD = f"GUARD ENTRY ${FINGERPRINT}~a"


def status_of(address: str, digest: str = " wSne0PDHehZ5R0lcka8ru4vYo6o") -> str:
    return f"r a {IDENTITY}{digest} 2026-11-22 00:00:00 {address} 9001 0\r\ns Fast\r\n.\r\n650 OK"


def directory_of(address: str, purpose: str = "DIR_FETCH") -> str:
    return f"STREAM 7 NEW 0 {address}.${FINGERPRINT}.exit:9001 PURPOSE={purpose}"


@pytest.fixture
def guards_of(lines: type[Lines], log_of: Callable[..., Input]) -> Callable[..., list[Guard]]:
    def read(*events: str) -> list[Guard]:
        texts = [lines.event(at, event) for at, event in enumerate(events)]
        log = log_of("".join(texts))
        found = torctl.read_logs([log]).guards
        assert not log.counts.rejected
        return found

    return read


@pytest.mark.parametrize(
    "events",
    [
        ["NEWCONSENSUS\r\n" + status_of("192.0.2.7")],
        ["NS\r\n" + status_of("192.0.2.7", digest="")],
        [directory_of("192.0.2.7")],
        ["ORCONN 192.0.2.7:443 LAUNCHED ID=9", f"ORCONN ${FINGERPRINT}~a CONNECTED ID=9"],
    ],
    ids=["consensus", "status without digest", "directory", "bridge"],
)
@pytest.mark.parametrize("is_guard_first", [False, True])
def test_where_a_guard_is(
    lines: type[Lines],
    log_of: Callable[..., Input],
    events: list[str],
    is_guard_first: bool,
) -> None:
    guard = [f"{GUARD} NEW", f"{GUARD} UP"]
    text = "".join(
        lines.event(at, event).replace(" 650 N", " 650+N")
        for at, event in enumerate([*guard, *events] if is_guard_first else [*events, *guard])
    )
    log = log_of(text)
    [found] = torctl.read_logs([log]).guards
    assert (found.address, log.counts.rejected) == ("192.0.2.7", {})


def test_ipv6(guards_of: Callable[..., list[Guard]]) -> None:
    [found] = guards_of(
        "ORCONN [2001:db8::7]:443 LAUNCHED ID=9", f"ORCONN ${FINGERPRINT} CONNECTED ID=9",
        f"{GUARD} NEW",
    )  # fmt: skip
    assert found.address == "2001:db8::7"


@pytest.mark.parametrize(
    "event",
    [
        directory_of("192.0.2.7", "USER"),  # which is what is wanted of that relay
        directory_of("example.com"),
        f"ORCONN ${FINGERPRINT} LAUNCHED ID=9",
        f"HS_DESC_CONTENT x\r\n{status_of('192.0.2.7')}",
    ],
)
def test_what_does_not_tell(event: str, lines: type[Lines], log_of: Callable[..., Input]) -> None:
    text = lines.event(1, event).replace(" 650 HS", " 650+HS")
    [found] = torctl.read_logs([log_of(text + lines.event(2, f"{GUARD} NEW"))]).guards
    assert found.address == ""


def test_each_time_of_being_a_guard_has_the_address_of_then(
    guards_of: Callable[..., list[Guard]],
) -> None:
    first, second = guards_of(
        f"{GUARD} NEW", directory_of("192.0.2.7"), f"{GUARD} DROPPED",
        f"{GUARD} NEW", directory_of("192.0.2.8").replace("STREAM 7", "STREAM 8"),
    )  # fmt: skip
    assert (first.address, second.address) == ("192.0.2.7", "192.0.2.8")


def test_real_guards(fixtures: Path) -> None:
    log = fixtures / "torctl/sample_400lines.torctl.log"
    guards = torctl.read_logs(source.find([log])).guards
    assert {guard.nickname: guard.address for guard in guards} == dict.fromkeys(
        ("exit4", "exit2", "auth1", "exit1", "auth0"), "127.0.0.1"
    )
