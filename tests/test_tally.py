from __future__ import annotations

import pytest

from perfmeasure.tally import Tally

LINE = (
    b"2026-11-22 00:57:31 1795309051.338434 [message] [tgen-stream.c:1738] [_tgenstream_log] "
    b"[stream-%s] transport [fd=6,local=localhost:127.0.0.1:43766,proxy=localhost:127.0.0.1:36448,"
    b"remote=localhost:127.0.0.1:18080,state=SUCCESS_OPEN,error=NONE] stream [id=0,"
    b"vertexid=stream_%s,name=vm,peername=vm,sendsize=0,recvsize=5242880,sendstate=SEND_SUCCESS,"
    b"recvstate=RECV_SUCCESS,error=NONE] bytes [total-bytes-recv=5242984]"
)


class Seen:
    def __init__(self, wanted: int, kinds: tuple[str, ...] = ("exit", "onion")) -> None:
        self.texts: list[str] = []
        self.completions = 0
        self.tally = Tally(kinds, wanted, on_transfer=self.texts.append, on_complete=self.complete)

    def complete(self) -> None:
        self.completions += 1

    def take(self, outcome: bytes, kind: bytes) -> bool:
        return self.tally.take(LINE % (outcome, kind))


def test_each_kind_is_counted_until_all_are_complete() -> None:
    seen = Seen(2)
    assert seen.take(b"success", b"exit")
    assert seen.tally.remaining == {"onion": 2, "exit": 1}
    assert list(seen.tally.remaining) == ["onion", "exit"], "the kind that is next comes first"
    assert seen.take(b"error", b"onion")
    assert seen.tally.fraction == 0.5
    assert seen.take(b"success", b"exit")
    assert not seen.tally.is_complete
    assert seen.take(b"success", b"onion")
    assert seen.completions == 1
    assert seen.texts[-1] == "2 of 2 by exit; 2 of 2 by onion, 1 failed"
    assert not seen.take(b"success", b"onion"), "what comes after the end is not counted"


def test_for_ever_has_no_end_and_no_fraction() -> None:
    seen = Seen(0, ("exit",))
    for _ in range(100):
        seen.take(b"success", b"exit")
    assert seen.tally.fraction is None
    assert seen.tally.remaining == {"exit": 0}
    assert seen.completions == 0
    assert seen.texts[-1] == "100 by exit"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        (LINE % (b"status", b"exit")),
        (LINE % (b"success", b"elsewhere")),
        (LINE % (b"success", b"exit")).replace(b"vertexid=stream_exit", b"vertexid=passive"),
        b"\xff\x00[stream-success] vertexid=",
    ],
)
def test_other_lines_do_not_count(line: bytes) -> None:
    seen = Seen(1)
    assert not seen.tally.take(line)
    assert seen.tally.ended == 0
