"""perfmeasure.tgen.socks: the bytes of both RFCs, every refusal, and any garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.tgen.peer import Peer
from perfmeasure.tgen.socks import REPLIES, SocksError, SocksHandshake

REMOTE = Peer("127.0.0.1", 80)


def feed(handshake: SocksHandshake, data: bytes) -> bytes:
    """Give the handshake what it wants of ``data``; return what it left."""
    while data and not handshake.is_done:
        wanted = handshake.wanted()
        handshake.receive(data[:wanted])
        data = data[wanted:]
        handshake.take_output()
    return data


def at_request(remote: Peer = REMOTE) -> tuple[SocksHandshake, bytes]:
    handshake = SocksHandshake(remote, None, None)
    handshake.take_output()
    handshake.receive(b"\5\0")
    return handshake, handshake.take_output()


def test_without_authentication() -> None:
    handshake = SocksHandshake(REMOTE, None, None)
    assert handshake.take_output() == b"\5\1\0"
    assert handshake.state == "CHOICE"
    assert handshake.take_output() == b""
    handshake.receive(b"\5")
    assert handshake.state == "CHOICE"
    handshake.receive(b"\0")
    assert handshake.state == "REQUEST"
    assert handshake.take_output() == b"\5\1\0\1\x7f\0\0\1\0\x50"
    assert handshake.state == "RESPONSE_STATUS"
    assert feed(handshake, b"\5\0\0\1\0\0\0\0\0\0payload") == b"payload"
    assert handshake.is_done


def test_with_user_name_and_password() -> None:
    handshake = SocksHandshake(REMOTE, "me", "x" * 300)
    assert handshake.take_output() == b"\5\1\2"
    handshake.receive(b"\5\2")
    assert handshake.state == "AUTH_REQUEST"
    assert handshake.take_output() == b"\1\2me\xff" + b"x" * 255
    assert handshake.state == "AUTH_RESPONSE"
    handshake.receive(b"\1\0")
    assert handshake.state == "REQUEST"


def test_a_name_goes_to_the_proxy_as_a_name() -> None:
    assert at_request(Peer("abc.onion", 8080))[1] == b"\5\1\0\3\x09abc.onion\x1f\x90"


@pytest.mark.parametrize(
    "answer", [b"\1\x7f\0\0\1\0\1", b"\3\3abc\0\1", b"\4" + bytes(18), b"\3\0\0\0"]
)
def test_an_address_of_any_kind_is_read_to_its_end(answer: bytes) -> None:
    handshake, _ = at_request()
    assert feed(handshake, b"\5\0\0" + answer + b"rest") == b"rest"
    assert handshake.is_done


@pytest.mark.parametrize("status", [*REPLIES, 9, 0xF0, 0xFF])
def test_every_reply_code_is_told(status: int) -> None:
    handshake, _ = at_request()
    with pytest.raises(SocksError) as caught:
        handshake.receive(bytes([5, status]))
    assert caught.value.code == "STATUS"
    assert f"error status {status:X}: {REPLIES.get(status, 'unknown error')}" in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([b"\4\0"], "CHOICE"),
        ([b"\5\xff"], "CHOICE"),
        ([b"\5\2"], "CHOICE"),
        ([b"HT"], "CHOICE"),
        ([b"\5\0", b"\4\0"], "VERSION"),
        ([b"\5\0", b"\5\0", b"\0\7"], "ADDR"),
    ],
)
def test_other_faults_have_tgens_names(answers: list[bytes], code: str) -> None:
    handshake = SocksHandshake(REMOTE, None, None)
    handshake.take_output()
    for answer in answers[:-1]:
        handshake.receive(answer)
        handshake.take_output()
    with pytest.raises(SocksError) as caught:
        handshake.receive(answers[-1])
    assert caught.value.code == code


def test_refused_credentials_are_not_told() -> None:
    handshake = SocksHandshake(REMOTE, "user", "secret")
    handshake.take_output()
    handshake.receive(b"\5\2")
    handshake.take_output()
    with pytest.raises(SocksError) as caught:
        handshake.receive(b"\1\1")
    assert caught.value.code == "AUTH"
    assert "secret" not in str(caught.value)


@given(st.binary(min_size=1, max_size=300))
def test_any_answer_ends_it_or_leaves_it_waiting(data: bytes) -> None:
    handshake, _ = at_request()
    code = "ADDR"
    try:
        feed(handshake, data)
    except SocksError as error:
        code = error.code
    assert code in ("VERSION", "STATUS", "ADDR")
