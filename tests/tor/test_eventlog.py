"""perfmeasure.tor.eventlog: stamps, secrets, batches, rotation and a full disk."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.logfile import LogFile
from perfmeasure.tor.control import Arrival
from perfmeasure.tor.eventlog import EventLog, StandardOutput, redact
from perfmeasure.units import log_stamp

if TYPE_CHECKING:
    pass

SECOND_NS = 10**9
MIDNIGHT_NS = 1_795_305_600 * SECOND_NS


class ListSink:
    """Keeps what is written, and fails on demand."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, float]] = []
        self.problem: OSError | None = None

    def write(self, entry: bytes, unix_ts: float) -> None:
        if self.problem:
            raise self.problem
        self.written.append((entry, unix_ts))

    def rotate_if_due(self, now: float) -> None:  # noqa: ARG002 - as a log's
        if self.problem:
            raise self.problem

    def close(self) -> None:
        pass

    @property
    def content(self) -> bytes:
        return b"".join(entry for entry, _ in self.written)


# ---- secrets ------------------------------------------------------------------------------------


def c_escaped(text: bytes) -> bytes:
    """Quote bytes as tor does."""
    plain = {ord("\\"): b"\\\\", ord('"'): b'\\"', 10: b"\\n", 13: b"\\r", 9: b"\\t"}
    return b"".join(
        plain.get(byte) or (bytes([byte]) if 32 <= byte < 127 else b"\\%03o" % byte)
        for byte in text
    )


@given(st.binary(min_size=1, max_size=30), st.booleans())
def test_no_socks_password_stays(password: bytes, has_more: bool) -> None:
    more = b" CLIENT_PROTOCOL=SOCKS5 ISO_FIELDS=SOCKS_USERNAME,SOCKS_PASSWORD" * has_more
    before = b'650 STREAM 1 NEW 0 a:1 SOCKS_USERNAME="me" SOCKS_PASSWORD="'
    line = before + c_escaped(password) + b'"' + more + b"\r\n"
    assert redact(line + line) == 2 * (before + b'[redacted]"' + more + b"\r\n")


@pytest.mark.parametrize(
    ("line", "redacted"),
    [
        (b"650 X SOCKS_PASSWORD=bare Y=1\r\n", b'650 X SOCKS_PASSWORD="[redacted]" Y=1\r\n'),
        (b'650 SOCKS_PASSWORD="cut\\\r\nnext\r\n', b'650 SOCKS_PASSWORD="[redacted]"\r\nnext\r\n'),
        (b'650 X SOCKS_PASSWORD="" Y=1\r\n', b'650 X SOCKS_PASSWORD="[redacted]" Y=1\r\n'),
        (b"650 X ISO_FIELDS=SOCKS_PASSWORD,Y\r\n", b"650 X ISO_FIELDS=SOCKS_PASSWORD,Y\r\n"),
    ],
)  # fmt: skip
def test_odd_socks_passwords(line: bytes, redacted: bytes) -> None:
    assert redact(line) == redacted


def test_secret_options_are_not_shown_when_they_change() -> None:
    names = [
        b"HashedControlPassword", b"__HashedControlSessionPassword", b"HTTPSProxyAuthenticator",
        b"HTTPProxyAuthenticator", b"Socks5ProxyPassword", b"HidServAuth", b"Bridge",
        b"HiddenServiceAuthorizeClient", b"ServerTransportOptions",
    ]  # fmt: skip
    lines = b"".join(b"650-%s=abc def\r\n" % name for name in names)
    entry = (
        b"1 2 3 650-CONF_CHANGED\r\n650-SocksPort=9050\r\n" + lines + b"650-Bridge\r\n650 OK\r\n"
    )
    shown = redact(entry)
    assert b"abc" not in shown
    assert shown.count(b'="[redacted]"\r\n') == len(names)
    assert b"650-SocksPort=9050\r\n" in shown
    assert shown.endswith(b"650-Bridge\r\n650 OK\r\n")


def test_what_is_public_is_kept(recorded: list[bytes]) -> None:
    for message in recorded:
        assert redact(message) == message


# ---- stamps and batches -------------------------------------------------------------------------


def test_every_message_of_an_arrival_has_its_stamp_and_is_kept_byte_for_byte() -> None:
    sink = ListSink()
    log = EventLog(sink, pytest.fail)
    log.add(
        Arrival(MIDNIGHT_NS + 123_456_789, [b"650 BW 1 2\r\n", b"650+NS\r\nr x\r\n.\r\n650 OK\r\n"])
    )
    log.add(Arrival(MIDNIGHT_NS + 123_460_000, []))
    log.flush()
    stamp = b"2026-11-22 00:00:00 1795305600.123456 "
    assert sink.written == [
        (stamp + b"650 BW 1 2\r\n" + stamp + b"650+NS\r\nr x\r\n.\r\n650 OK\r\n", 1795305600.123456)
    ]


@given(st.integers(0, 4 * 10**18))
def test_the_stamp_is_the_houses(utc_ns: int) -> None:
    sink = ListSink()
    log = EventLog(sink, pytest.fail)
    log.note("x", utc_ns)
    assert sink.content.decode() == log_stamp(utc_ns // 1000 / 1e6) + " x\n"
    assert sink.written[0][1] == float(sink.content.split()[2])


def test_what_comes_thick_is_written_in_one_go_but_soon() -> None:
    sink = ListSink()
    log = EventLog(sink, pytest.fail)
    for number in range(1000):  # 10,000 a second for 0.1 s
        log.add(Arrival(MIDNIGHT_NS + number * 100_000, [b"650 BW %d 0\r\n" % number]))
    log.flush()
    assert 15 <= len(sink.written) <= 25
    assert re.findall(rb"BW (\d+)", sink.content) == [b"%d" % number for number in range(1000)]
    log.add(Arrival(MIDNIGHT_NS, [b"650 " + b"x" * 2**16 + b"\r\n"]))
    assert not log.has_pending


@given(st.lists(st.tuples(st.integers(0, 1_500_000), st.integers(1, 4)), min_size=1, max_size=40))
def test_each_period_holds_its_own_entries(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("rotation")
    live = root / "tor-client" / "perfmeasure.torctl.log"
    log = EventLog(LogFile(live, root / "archive", 2), pytest.fail)
    utc_ns = MIDNIGHT_NS - 5 * SECOND_NS
    expected: list[bytes] = []
    for pause_us, count in arrivals:
        utc_ns += pause_us * 1000
        messages = [b"650 BW %d %d\r\n" % (len(expected) + n, utc_ns) for n in range(count)]
        expected += messages
        log.add(Arrival(utc_ns, messages))
    log.close()
    files = [*sorted(root.glob("archive/*/tor-client/*.torctl.log")), live]
    found = []
    for file in files:
        lines = file.read_bytes().splitlines(keepends=True)
        assert len({int(float(line.split()[2])) // 2 for line in lines}) == 1
        found += [line.split(b" ", 3)[3] for line in lines]
    assert found == expected


# ---- a disk that is full ------------------------------------------------------------------------


def test_a_full_disk_is_reported_once_and_the_loss_is_counted() -> None:
    sink = ListSink()
    reports: list[str] = []
    log = EventLog(sink, reports.append)
    log.note("before", MIDNIGHT_NS)
    sink.problem = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for number in range(1, 11):
        log.add(Arrival(MIDNIGHT_NS + number * SECOND_NS, [b"650 A\r\n", b"650 B\r\n"]))
    log.flush()
    assert len(reports) == 1
    assert "No space left on device" in reports[0]
    sink.problem = None
    log.note("after", MIDNIGHT_NS + 20 * SECOND_NS)
    log.note("later", MIDNIGHT_NS + 21 * SECOND_NS)
    texts = [line.split(b" ", 3)[3] for line in sink.content.splitlines()]
    assert texts == [
        b"before", b"[LOST] 20 entries were not written: No space left on device", b"after",
        b"later",
    ]  # fmt: skip
    assert reports[1:] == ["the log can be written again; 20 entries were lost"]
    sink.problem = OSError(errno.EIO, os.strerror(errno.EIO))
    log.note("x", MIDNIGHT_NS + 22 * SECOND_NS)
    log.idle(MIDNIGHT_NS / SECOND_NS)
    log.close()
    assert reports[2:] == [  # the second failure within a minute is not announced again
        "the log cannot be rotated (Input/output error)",
        "1 entries were not written: Input/output error",
    ]


def test_standard_output_that_was_cut_goes_on_with_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = bytearray()
    room = 5

    def write(_fd: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "full")
        part = bytes(data[:room])
        room -= len(part)
        written.extend(part)
        return len(part)

    monkeypatch.setattr("perfmeasure.tor.eventlog.os.write", write)
    sink = StandardOutput()
    for entry in (b"abcdefgh\n", b"ijkl\n"):
        with pytest.raises(OSError, match="full"):
            sink.write(entry, 0)
    room = 100
    sink.write(b"mnop\n", 0)
    sink.write(b"qrst\n", 0)
    monkeypatch.undo()
    assert bytes(written) == b"abcde\nmnop\nqrst\n"
