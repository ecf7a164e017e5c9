"""perfmeasure.tor.messages: the stream of a control port, cut and taken apart."""

from __future__ import annotations

import io
import itertools

import pytest
import stem.response
import stem.socket
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import ControlError
from perfmeasure.tor.messages import MessageSplitter, Reply, unquote

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


def data_line(text: str) -> str:
    return f".{text}" if text.startswith(".") else text


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message: lines before the last may be plain or carry data."""
    status = draw(st.sampled_from(["250", "650", "552"]))
    lines = []
    for text in draw(st.lists(TEXT, max_size=3)):
        if draw(st.booleans()):
            lines.append(f"{status}-{text}")
        else:
            body = [data_line(part) for part in draw(st.lists(TEXT, max_size=3))]
            lines += [f"{status}+{text}", *body, "."]
    lines.append(f"{status} {draw(TEXT)}")
    return "".join(f"{line}\r\n" for line in lines).encode()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Feed a stream in pieces and return the messages."""
    splitter = MessageSplitter()
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    found = []
    for start, end in itertools.pairwise(edges):
        found += splitter.feed(stream[start:end])
    assert splitter.unfinished_bytes == 0
    return found


@given(st.lists(messages(), max_size=6), st.lists(st.integers(0, 2**20)))
def test_any_chunks_give_the_messages_that_were_sent(sent: list[bytes], places: list[int]) -> None:
    assert cut(b"".join(sent), places) == sent


@given(places=st.lists(st.integers(0, 2**20), max_size=200))
def test_any_chunks_of_a_real_stream_give_its_messages(
    recorded: list[bytes], places: list[int]
) -> None:
    assert cut(b"".join(recorded), places) == recorded


def test_byte_by_byte(recorded: list[bytes]) -> None:
    stream = b"".join(recorded[:60])
    assert cut(stream, list(range(len(stream)))) == recorded[:60]


def test_stem_cuts_and_understands_the_same_messages(recorded: list[bytes]) -> None:
    stream = io.BytesIO(b"".join(recorded))
    ours = cut(stream.getvalue(), [])
    assert len(ours) > 400
    assert any(message.startswith(b"650+NS") for message in ours)
    for message in ours:
        theirs = stem.socket.recv_message(stream)
        assert theirs.raw_content(get_bytes=True) == message
        stem.response.convert("EVENT", theirs)  # raises on what is no event
        assert theirs.type == message[4:].split()[0].decode()
    assert stream.read() == b""


def test_unfinished_bytes_are_counted() -> None:
    splitter = MessageSplitter()
    assert splitter.feed(b"650 BW 1 2\r\n650+NS\r\nr x\r\n.\r\n65") == [b"650 BW 1 2\r\n"]
    assert splitter.unfinished_bytes == len(b"650+NS\r\nr x\r\n.\r\n65")


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.0 501 Tor is not an HTTP Proxy\r\n",
        b"\r\n",
        b"650\r\n",
        b"650=x\r\n",
        b"650-a\r\nxyz\r\n",
        bytes(range(128, 256)) + b"\n",
        "\N{ARABIC-INDIC DIGIT SIX}50 x\n".encode(),
    ],
)
def test_garbage_is_named_with_a_next_step(garbage: bytes) -> None:
    with pytest.raises(ControlError, match="not the control protocol") as caught:
        MessageSplitter("127.0.0.1:1").feed(garbage)
    assert caught.value.where == "127.0.0.1:1"
    assert "ControlPort" in caught.value.next_step


@pytest.mark.parametrize(
    ("first", "more", "what"),
    [
        (b"650 ", b"x" * 65536, "a line without an end"),
        (b"650+NS\r\n", (b"x" * 1000 + b"\r\n") * 1000, "a message without an end"),
        (b"", b"650-x\r\n" * 50_000, "a message without an end"),
    ],
)
def test_what_never_ends_is_refused_in_bounded_memory(first: bytes, more: bytes, what: str) -> None:
    splitter = MessageSplitter()
    splitter.feed(first)

    def feed() -> None:
        for _ in range(200):
            splitter.feed(more)

    with pytest.raises(ControlError, match=what):
        feed()


def test_a_reply_is_taken_apart() -> None:
    reply = Reply(b"250-version=0.4\r\n250+ns/all=\r\nr x\r\n..dot\r\n.\r\n250 OK\r\n")
    assert reply.status == 250
    assert reply.lines == ["version=0.4", "ns/all=\nr x\n.dot", "OK"]
    assert Reply(b"552 Unrecognized key\r\n").status == 552


@given(st.binary(max_size=40))
def test_a_quoted_string_is_read_back(content: bytes) -> None:
    octal = '"' + "".join(f"\\{byte:03o}" for byte in content) + '"'
    assert unquote(octal) == content
    if content.isascii():
        text = content.decode().replace("\\", "\\\\").replace('"', '\\"')
        assert unquote(f'"{text}"') == content
