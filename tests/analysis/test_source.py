from __future__ import annotations

import gzip
import io
import lzma
import os
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis import compression, source
from perfmeasure.analysis.source import Kind
from perfmeasure.errors import InputError
from tests.analysis import kernel_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perfmeasure.analysis.source import Input
    from tests.analysis.conftest import Lines


def all_lines(log: Input) -> list[bytes]:
    return [line for _, lines in log.batches() for line in lines]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("onionperf-run/tgen-client.onionperf.tgen.log.xz", Kind.TGEN),
        ("onionperf-run/tor-client.onionperf.torctl.log.xz", Kind.TORCTL),
        ("tgen/client-upstream-web.tgen.log", Kind.TGEN),
        ("torctl/sample_400lines.torctl.log", Kind.TORCTL),
        ("kernel-run/kernel/connections.log.xz", Kind.CONNECTIONS),
        ("tgen/client-upstream-web.onionperf-3.1.json", Kind.UNKNOWN),
    ],
)
def test_a_log_is_recognised_by_what_is_in_it(fixtures: Path, name: str, kind: Kind) -> None:
    [log] = source.find([fixtures / name])
    assert log.kind is kind
    assert (log.first_unix_ts > 1.7e9) == (kind is not Kind.UNKNOWN)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"type": "onionperf"}', "JSON"),
        (b'{"record":"start","unix_ts":1795305600.0,"program":"another"}', "JSON"),
        (b"\x7fELF\0\0", "program"),
        (b"\0\1\2", "binary"),
        (b"<html>", "HTML"),
        (b"<?xml version='1.0'?>", "XML"),
        (b"@type torperf 1.1\r\n", ".tpf"),
        (b"Nov 22 00:57:19.000 [notice] Tor 0.4.9.11 running", "tor's own log"),
        (b"hello\nworld", "text that begins with 'hello'"),
        (b"\x1f\x8bnonsense that is no gzip", "cannot be unpacked"),
    ],
)
def test_what_is_no_log_is_called_by_its_name(
    log_of: Callable[..., Input], content: bytes, words: str
) -> None:
    log = log_of(content)
    assert log.kind is Kind.UNKNOWN
    assert words in log.looks_like


@pytest.mark.parametrize("is_in_folder", [True, False])
def test_a_pipe_is_not_waited_for(tmp_path: Path, *, is_in_folder: bool) -> None:
    os.mkfifo(tmp_path / "x.tgen.log")
    [log] = source.find([tmp_path if is_in_folder else tmp_path / "x.tgen.log"])
    assert log.kind is Kind.UNKNOWN
    assert "a pipe" in log.looks_like


def test_a_device_is_not_read() -> None:
    [log] = source.find([Path("/dev/zero")])
    assert log.looks_like == "a device or a socket"


@pytest.fixture
def locked(tmp_path: Path, open_folders: None) -> Iterator[None]:  # noqa: ARG001
    """Make a folder that may not be looked into, and hold root up by that as well."""
    (tmp_path / "locked").mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("path", ["", "locked", "locked/x.tgen.log", "locked/below/x.tgen.log"])
def test_what_may_not_be_read_is_one_clear_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match=r"locked.* cannot be read \(Permission denied\)"):
        source.find([tmp_path / path])


def test_an_empty_file_is_empty(log_of: Callable[..., Input]) -> None:
    assert log_of("").kind is Kind.EMPTY


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_compression_makes_no_difference(
    fixtures: Path, tmp_path: Path, suffix: str, log_of: Callable[..., Input]
) -> None:
    content = (fixtures / "tgen/client-direct-success.tgen.log").read_bytes()
    log = log_of(compression.compress(content, suffix), "renamed.bin")
    assert b"\n".join(all_lines(log)) + b"\n" == content
    assert log.counts.lines == content.count(b"\n")
    assert log.counts.rejected == {}
    assert log.size_bytes == (tmp_path / "renamed.bin").stat().st_size
    assert len(log.sha256) == 64


def test_line_numbers_go_on_over_blocks(log_of: Callable[..., Input]) -> None:
    log = log_of(b"".join(b"%06d %s\n" % (number, b"x" * 70) for number in range(1, 20001)))
    for first, lines in log.batches():
        assert int(lines[0][:6]) == first
    assert log.counts.lines == 20000


def test_a_last_line_without_an_end_is_passed_on(log_of: Callable[..., Input]) -> None:
    assert all_lines(log_of(b"one\ntwo")) == [b"one", b"two"]


@pytest.mark.parametrize("end", [b"\nlast\n", b""])
def test_a_line_without_end_is_not_collected(
    log_of: Callable[..., Input], end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LONGEST_LINE_BYTES", 3000)
    monkeypatch.setattr(source, "BLOCK_BYTES", 1000)
    log = log_of(b"first\n" + b"x" * 2_000_000 + end)
    assert all_lines(log) == [b"first", b"last"][: 1 + bool(end)]
    assert log.counts.rejected == {"line is longer than 1 MiB": 1}
    assert log.counts.lines == 2 + bool(end)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_compressed_data_cut_short_give_what_was_whole(
    fixtures: Path, suffix: str, log_of: Callable[..., Input]
) -> None:
    content = (fixtures / "tgen/client-socks-success.tgen.log").read_bytes()
    packed = compression.compress(content, suffix)
    log = log_of(packed[: len(packed) * 3 // 4])
    found = all_lines(log)
    assert content.startswith(b"\n".join(found[:-1]))
    assert len(found) > 50 or suffix == ".zst"  # which gives whole blocks of 128 KiB
    assert log.counts.rejected == {"compressed data end early": 1}


def test_examples_are_few_and_counts_are_all(log_of: Callable[..., Input]) -> None:
    counts = log_of("").counts
    for number in range(100):
        counts.reject(number, "odd" if number % 2 else "even")
    assert counts.rejected == {"odd": 50, "even": 50}
    assert counts.examples == [(0, "even"), (1, "odd"), (2, "even"), (3, "odd"), (4, "even")]


def make_tree(top: Path, lines: type[Lines]) -> Path:
    tgen, torctl = lines.initializing(10), lines.event(10, "BW 1 2")
    for name, content in {
        "log_archive/2026-11-21/tgen-client/perfmeasure_2026-11-21_23:59:59.tgen.log.gz": (
            lines.initializing(-99)
        ),
        "tgen-client/perfmeasure.tgen.log": tgen,
        "tgen-client/tgen.graphml.xml": "<graphml/>",
        "tgen-server/perfmeasure.tgen.log": tgen,
        "tor-client/perfmeasure.torctl.log": torctl,
        "kernel/connections.log": kernel_lines.clock(10),
        "log_archive/2026-11-21/kernel/perfmeasure_2026-11-21_23:59:59.connections.log": (
            kernel_lines.start(-9)
        ),
        "tor-client/perfmeasure.tor.log": "Nov 22 00:57:19.000 [notice] Tor",
        "tor-client/data/state": "",
        "tor-client/data/lock": "",
        "tor-client/data/x.torctl.log": torctl,
        "tor-client/data/keys/x.torctl.log": torctl,
        "docroot/old.tgen.log": tgen,
        "private/secret.tgen.log": tgen,
        "testnet/relay/x.torctl.log": torctl,
    }.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (top / "tor-client/data/x.torctl.log").unlink()
    return top


def test_a_measurement_is_found_whatever_folder_of_it_is_given(
    tmp_path: Path, lines: type[Lines]
) -> None:
    top = make_tree(tmp_path / "prefix", lines)
    logs = source.find([top])
    assert [(log.name, log.side, log.kind) for log in logs] == [
        (
            "log_archive/2026-11-21/tgen-client/perfmeasure_2026-11-21_23:59:59.tgen.log.gz",
            "client",
            Kind.TGEN,
        ),
        (
            "log_archive/2026-11-21/kernel/perfmeasure_2026-11-21_23:59:59.connections.log",
            "",
            Kind.CONNECTIONS,
        ),
        ("kernel/connections.log", "", Kind.CONNECTIONS),
        ("tgen-client/perfmeasure.tgen.log", "client", Kind.TGEN),
        ("tgen-server/perfmeasure.tgen.log", "server", Kind.TGEN),
        ("tor-client/perfmeasure.torctl.log", "client", Kind.TORCTL),
    ]
    assert {log.root for log in logs} == {str(top)}
    folders = [top / "tor-client", top / "log_archive" / "2026-11-21", top / "tgen-client"]
    again = source.find([*folders, top / "tgen-server", top / "kernel"])
    assert [(log.name, log.root) for log in again] == [(log.name, log.root) for log in logs]


def test_a_log_that_is_there_plain_and_packed_is_read_once(
    tmp_path: Path, lines: type[Lines]
) -> None:
    text = lines.initializing(1).encode()
    (tmp_path / "a.tgen.log").write_bytes(text)
    (tmp_path / "a.tgen.log.gz").write_bytes(gzip.compress(text))
    (tmp_path / "b.tgen.log.xz").write_bytes(lzma.compress(text))
    assert [log.name for log in source.find([tmp_path])] == ["a.tgen.log", "b.tgen.log.xz"]


def test_the_same_file_given_twice_is_read_once(fixtures: Path) -> None:
    path = fixtures / "tgen/client-upstream-web.tgen.log"
    assert len(source.find([path, path, path.parent / "../tgen" / path.name])) == 1


def test_standard_input(monkeypatch: pytest.MonkeyPatch, fixtures: Path) -> None:
    content = (fixtures / "tgen/client-socks-success.tgen.log").read_bytes()

    class FakeStdin:
        buffer = io.BytesIO(content)

    monkeypatch.setattr("sys.stdin", FakeStdin)
    [log] = source.find([Path("-")])
    assert log.kind is Kind.TGEN
    assert len(all_lines(log)) == content.count(b"\n")
    assert log.size_bytes == len(content)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        source.find([tmp_path / "nothing"])


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("content", [b"\0", b"x" * 700 + b"\n"])
def test_a_decompression_bomb_fills_no_memory(
    log_of: Callable[..., Input], suffix: str, content: bytes
) -> None:
    first = b"2026-11-22 00:00:00 1795305600.000000 [message] [a] [b] c\n"
    log = log_of(compression.compress(first + content * (64_000_000 // len(content)), suffix))
    tracemalloc.start()
    count = sum(len(lines) for _, lines in log.batches())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert log.kind is Kind.TGEN
    assert count + sum(log.counts.rejected.values()) == log.counts.lines
    assert peak_bytes < 12e6


def test_a_file_that_vanishes_is_one_clear_error(
    log_of: Callable[..., Input], tmp_path: Path, lines: type[Lines]
) -> None:
    log = log_of(lines.initializing(0))
    (tmp_path / "a.log").unlink()
    with pytest.raises(InputError, match=r"a\.log.*cannot be read"):
        all_lines(log)
