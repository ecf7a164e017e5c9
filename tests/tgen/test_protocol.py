"""perfmeasure.tgen.protocol against the bytes of two real TGen programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure import jsonio
from perfmeasure.tgen import protocol
from perfmeasure.tgen.protocol import Command, HeaderError

COMMAND = Command("vm", "stream", 1500, 2000, "internal-packet-model", 2432506014, None, 1970)


def line_of(command: Command) -> bytes:
    return command.line()[len(protocol.TOKEN) + 1 : -1]


def test_the_command_of_a_real_exchange(fixtures: Path) -> None:
    entries = jsonio.loads((fixtures / "tgen/transcript.json").read_bytes())
    said = [text.encode("latin-1") for who, text in entries if who == "client>"]
    line = said[0].partition(b"\n")[0] + b"\n"
    assert COMMAND.line() == line
    assert protocol.parse_command(line[len(protocol.TOKEN) + 1 : -1]) == COMMAND


def test_the_answer_of_a_real_exchange(fixtures: Path) -> None:
    entries = jsonio.loads((fixtures / "tgen/transcript.json").read_bytes())
    answer = next(text for who, text in entries if who == "server>").encode("latin-1")
    assert protocol.response_line("vm", "NONE") == answer
    assert protocol.parse_response(answer[len(protocol.TOKEN) + 1 : -1]) == "vm"


@given(
    st.builds(
        Command,
        hostname=st.text("ab.-", min_size=1),
        transfer_id=st.text("ab_:", min_size=1),
        send_size_bytes=st.none() | st.integers(0, 2**62),
        recv_size_bytes=st.none() | st.integers(0, 2**62),
        model_name=st.text("abc", min_size=1),
        model_seed=st.integers(0, 2**32 - 1),
        model_path=st.just("/a/b"),
    )
)
def test_what_is_said_is_understood(command: Command) -> None:
    assert protocol.parse_command(line_of(command)) == command


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("VERSION=2.0", "VERSION=1.0", "HEADER_VERSION"),
        (" PROTOCOL_VERSION=2.0", "", "HEADER_INCOMPLETE"),
        ("HOSTNAME=vm ", "", "HEADER_INCOMPLETE"),
        ("MODEL_SEED=2432506014 ", "", "HEADER_INCOMPLETE"),
        (" MODEL_MODE=graphml", "", "HEADER_INCOMPLETE"),
        (" MODEL_SIZE=1970", "", "HEADER_INCOMPLETE"),
        ("MODE=graphml", "MODE=telepathy", "HEADER_MODELMODE"),
        ("MODE=graphml", "MODE=path", "HEADER_INCOMPLETE"),
        ("SIZE=1970", "SIZE=0", "HEADER_MODELSIZE"),
        ("SIZE=1970", "SIZE=10485761", "HEADER_MODELSIZE"),
        ("SIZE=1970", "SIZE=-5", "HEADER_MODELSIZE"),
        ("SEND_SIZE=1500", "SEND_SIZE=many", "HEADER"),
        ("SEED=2432506014", "SEED=x", "HEADER"),
    ],
)
def test_what_is_wrong_has_tgens_name(old: str, new: str, code: str) -> None:
    line = line_of(COMMAND)
    changed = (b" " + line).replace(old.encode(), new.encode(), 1)
    assert changed != b" " + line
    with pytest.raises(HeaderError) as caught:
        protocol.parse_command(changed)
    assert caught.value.code == code


def test_sizes_and_case_and_unknown_tags() -> None:
    line = line_of(COMMAND).replace(b"SEND_SIZE=1500", b"send_size=~ X=1 junk")
    line = line.replace(b"RECV_SIZE=2000", b"RECV_SIZE=0")
    found = protocol.parse_command(line)
    assert found.send_size_bytes == 0
    assert found.recv_size_bytes is None


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"PROTOCOL_VERSION=2.0 HOSTNAME=vm CODE=HEADER_MODELPATH", "HEADER"),
        (b"PROTOCOL_VERSION=2.0 HOSTNAME=vm", "HEADER_INCOMPLETE"),
        (b"PROTOCOL_VERSION=3.1 HOSTNAME=vm CODE=NONE", "HEADER_VERSION"),
    ],
)
def test_answers_that_are_no_consent(line: bytes, code: str) -> None:
    with pytest.raises(HeaderError) as caught:
        protocol.parse_response(line)
    assert caught.value.code == code


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_line_is_understood_or_refused_and_names_stay_harmless(junk: bytes, at: int) -> None:
    line = line_of(COMMAND)
    for text in (junk, line[:at] + junk + line[at:]):
        try:
            found = protocol.parse_command(text)
        except HeaderError:
            continue
        assert not set(found.hostname + found.transfer_id) & set(" ,=[]\n")
