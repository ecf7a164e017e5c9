"""perfmeasure.tgen.peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import UsageError
from perfmeasure.tgen.peer import Peer, parse_peer


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:80", "localhost:127.0.0.1:80"),
        ("localhost:80", "localhost:127.0.0.1:80"),
        ("10.1.2.3:65535", "NULL:10.1.2.3:65535"),
        ("abc.onion:8080", "abc.onion:0.0.0.0:8080"),
    ],
)
def test_the_log_shows_name_address_and_port(text: str, shown: str) -> None:
    assert str(parse_peer(text)) == shown


@pytest.mark.parametrize(
    "text", ["", ":", "a", "a:", ":1", "a:0", "a:65536", "a:1x", "a b:1", "1.2.3:4", "1.2.3.999:1",
             "a:\N{ARABIC-INDIC DIGIT ONE}", "a,b:1", "[::1]:80"]
)  # fmt: skip
def test_what_is_no_peer_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_peer(text)


@given(st.text(max_size=40))
def test_any_text_is_a_peer_or_refused(text: str) -> None:
    try:
        peer = parse_peer(text)
    except UsageError:
        return
    assert peer == Peer(peer.host, peer.port)
    assert not set(peer.host) & set(" ,=[]:\n")
