"""perfmeasure.tgen.receiving: a real exchange byte for byte, and what peers do wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.tgen.markov import builtin_packet_model
from perfmeasure.tgen.protocol import MAX_LINE_BYTES, TOKEN, Command, response_line

MODEL = builtin_packet_model().text


def md5(payload: bytes) -> hashlib._Hash:
    return hashlib.md5(payload, usedforsecurity=False)


def command(send: int | None = 0, recv: int | None = 0, **changes: Any) -> bytes:
    found = Command("far", "stream_x", send, recv, "m", 1, **{"model_size": len(MODEL), **changes})
    return found.line() + (b"" if found.model_path else MODEL)


def said(fixtures: Path, who: str) -> list[bytes]:
    entries = jsonio.loads((fixtures / "tgen/transcript.json").read_bytes())
    return [text.encode("latin-1") for name, text in entries if name == who and text != "EOF"]


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000, 10**6])
def test_a_real_clients_bytes(fixtures: Path, ends: Any, line_log: Any, piece_bytes: int) -> None:
    stream, wire = ends.server()
    data = b"".join(said(fixtures, "client>"))
    for at in range(0, len(data), piece_bytes):
        wire.send(data[at : at + piece_bytes])
    answer, _, rest = wire.read_all().partition(b"\n")
    assert answer + b"\n" == response_line("vm", "NONE")
    letter = rest[:1]
    assert letter.islower()
    payload = letter * 2000
    digest = md5(payload).hexdigest()
    assert rest == payload + f"MD5 {digest}\nFIN\n".encode()
    assert stream.is_success
    (outcome,) = line_log.of("[stream-success]")
    assert outcome["vertexid"] == "passive-stream:stream"
    assert (outcome["sendsize"], outcome["recvsize"]) == ("2000", "1500")
    assert outcome["payload-bytes-recv"] == "1500"
    assert outcome["total-bytes-recv"] == str(len(data))


@pytest.mark.parametrize("piece_bytes", [1, 11, 10**6])
def test_a_real_servers_bytes(fixtures: Path, ends: Any, line_log: Any, piece_bytes: int) -> None:
    stream, wire = ends.commander(send_size_bytes=1500, recv_size_bytes=2000)
    real = said(fixtures, "client>")[0].partition(b"\n")[0]
    line, _, rest = wire.read_until(lambda got: got.endswith(b"\n") and b"MD5 " in got).partition(
        b"\n"
    )
    assert [tag.partition(b"=")[0] for tag in line.split(b" ")] == [
        tag.partition(b"=")[0] for tag in real.split(b" ")
    ]
    assert line.startswith(real.partition(b" MODEL_SEED")[0])
    assert rest.startswith(MODEL)
    payload = rest[len(MODEL) :][:1500]
    assert payload == payload[:1] * 1500
    assert rest[len(MODEL) + 1500 :] == f"MD5 {md5(payload).hexdigest()}\n".encode()
    data = b"".join(said(fixtures, "server>"))
    for at in range(0, len(data), piece_bytes):
        wire.send(data[at : at + piece_bytes])
    assert wire.read_all().endswith(b"\nFIN\n")
    assert stream.is_success
    (outcome,) = line_log.of("[stream-success]")
    assert (outcome["sendstate"], outcome["recvstate"]) == ("SEND_SUCCESS", "RECV_SUCCESS")
    assert outcome["peername"] == "vm"
    assert outcome["payload-progress-recv"] == "100.00%"


@pytest.mark.parametrize("text", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01", TOKEN + b"x"])
def test_a_foreign_client_is_told_apart_at_once(ends: Any, line_log: Any, text: bytes) -> None:
    _, wire = ends.server()
    wire.send(text)
    assert wire.read_all() == b""
    (outcome,) = line_log.of("[stream-error]")
    assert outcome["error"] == "AUTH"
    assert outcome["recvstate"] == "RECV_ERROR"
    assert outcome["vertexid"] == "passive-stream"
    assert outcome["peername"] == "(null)"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (command().replace(b"VERSION=2.0", b"VERSION=1.0"), "HEADER_VERSION"),
        (command().replace(b" MODEL_SEED=1", b""), "HEADER_INCOMPLETE"),
        (command(model_size=10485761), "HEADER_MODELSIZE"),
        (command(model_path="/does/not/exist"), "HEADER_MODELPATH"),
        (command(model_path="/dev/zero"), "HEADER_MODELPATH"),
        (command(model_size=5), "MODEL"),
        (command().replace(b"exponential", b"exponentiel"), "MODEL"),
        (TOKEN + b" " + b"x" * MAX_LINE_BYTES, "HEADER_INCOMPLETE"),
    ],
)
def test_a_header_that_cannot_be_used_is_answered_with_its_error(
    ends: Any, line_log: Any, text: bytes, code: str
) -> None:
    _, wire = ends.server()
    wire.send(text)
    answer = wire.read_all()
    assert answer in (response_line("vm", code), b"")  # lost, where more was on its way to us
    (outcome,) = line_log.of("[stream-error]")
    assert outcome["error"] == code


def test_an_answer_with_an_error_is_the_commanders_error(ends: Any, line_log: Any) -> None:
    _, wire = ends.commander(send_size_bytes=0, recv_size_bytes=10)
    wire.send(response_line("far", "MODEL"))
    wire.read_all()
    (outcome,) = line_log.of("[stream-error]")
    assert outcome["error"] == "HEADER"


@pytest.mark.parametrize("by", ["builtin", "file"])
def test_a_model_may_be_named_by_path(ends: Any, tmp_path: Path, by: str) -> None:
    path = tmp_path / "model.xml"
    path.write_bytes(MODEL)
    stream, wire = ends.server()
    wire.send(command(recv=5, model_path=str(path) if by == "file" else "internal-packet-model"))
    wire.read_until(lambda got: b"FIN\n" in got)
    wire.send(b"FIN\n")
    wire.read_all()
    assert stream.is_success
    assert stream.vertex_id == "passive-stream:stream_x"


GOOD = b"aaaaa" + f"MD5 {md5(b'aaaaa').hexdigest()}\n".encode()


@pytest.mark.parametrize(
    ("text", "code", "state"),
    [
        (b"aaaab" + GOOD[5:], "CHECKSUM", "RECV_ERROR"),
        (b"aaaaa" + b"MD5 \n", "CHECKSUM", "RECV_ERROR"),
        (b"aaaaa" + b"\n", "CHECKSUM", "RECV_ERROR"),
        (GOOD + b"FIX\n", "FOOTER", "RECV_ERROR"),
        (b"aaa", "READEOF", "RECV_ERROR"),
        (GOOD, "READEOF", "RECV_ERROR"),
        (b"", "READEOF", "RECV_ERROR"),
    ],
)
def test_what_is_wrong_after_the_header(
    ends: Any, line_log: Any, text: bytes, code: str, state: str
) -> None:
    _, wire = ends.server()
    wire.send(command(send=5) + text)
    wire.read_until(lambda got: b"\n" in got)
    wire.connection.shutdown(1)
    wire.read_all()
    (outcome,) = line_log.of("[stream-error]")
    assert (outcome["error"], outcome["recvstate"]) == (code, state)
    assert outcome["transport.state"] == ("SUCCESS_EOF" if code == "READEOF" else "SUCCESS_OPEN")


def test_a_reset_is_a_read_error(ends: Any, loop: Any, line_log: Any) -> None:
    _, wire = ends.server()
    wire.send(command(send=50) + b"aaa")
    wire.read_until(lambda got: got)
    wire.reset()
    loop.until(lambda: line_log.of("[stream-error]"))
    (outcome,) = line_log.of("[stream-error]")
    assert (outcome["error"], outcome["transport.error"]) == ("READ", "READ")
    assert outcome["payload-progress-recv"] == "6.00%"


@pytest.mark.parametrize("end", [b"FIN\n", b""])
def test_payload_of_unknown_size_ends_with_the_footer_or_the_connection(
    ends: Any, line_log: Any, end: bytes
) -> None:
    _, wire = ends.server()
    wire.send(command(send=None) + b"a" * 5000)
    wire.read_until(lambda got: b"FIN\n" in got)
    for byte in end:
        wire.send(bytes([byte]))
    wire.connection.shutdown(1)
    wire.read_all()
    (outcome,) = line_log.of("[stream-success]")
    assert outcome["payload-bytes-recv"] == "5000"
    assert outcome["payload-progress-recv"] == "100.00%"
    assert line_log.of("[stream-status]")[0]["payload-progress-recv"] == "?"


GARBLED = command(send=5) + GOOD + b"FIN\n"


def test_any_bytes_end_in_an_outcome(ends: Any, line_log: Any) -> None:
    @given(st.integers(0, len(GARBLED)), st.binary(max_size=20))
    def check(at: int, junk: bytes) -> None:
        line_log.lines.clear()
        stream, wire = ends.server()
        wire.send(GARBLED[:at] + junk + GARBLED[at + len(junk) :])
        wire.connection.shutdown(1)
        wire.read_all()
        ends.loop.until(lambda: stream.has_ended)
        outcomes = line_log.of("[stream-error]") + line_log.of("[stream-success]")
        assert len(outcomes) == 1
        assert len(outcomes[0]) == 6 + 9 + 6 + 16
        wire.connection.close()

    check()
