from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perfmeasure.errors import UsageError
from perfmeasure.recorder.feeds import Feeds, parse_feed

_COPY = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())"


def test_programs_are_words_without_a_shell() -> None:
    assert parse_feed("t=tshark -r - -Y 'a b'") == ("t", ["tshark", "-r", "-", "-Y", "a b"])
    for text in ("tshark", "=tshark", "t=", "t='x"):
        with pytest.raises(UsageError, match="NAME=COMMAND"):
            parse_feed(text)


def test_each_stream_has_a_process(tmp_path: Path) -> None:
    said: list[str] = []
    command = [sys.executable, "-c", _COPY, str(tmp_path / "out")]
    feeds = Feeds({"copy": command, "fail": ["false"], "none": ["/no/such"]}, print, said.append)
    feeds.data("copy", "a", b"first ")
    feeds.data("copy", "b", b"third")
    feeds.data("copy", "a", b"second ")
    assert not feeds.wait(0.01)
    feeds.data("copy", "a", b"")
    assert (tmp_path / "out").read_bytes() == b"first second "
    feeds.data("copy", "b", b"")
    assert (tmp_path / "out").read_bytes() == b"first second third"
    assert feeds.wait(0.01)
    assert feeds.failures == 0
    assert said == []
    for name, words in (("fail", "ended with status 1"), ("none", "No such file"), ("x", "not na")):
        feeds.data(name, "a", b"x" * 1_000_000)
        feeds.data(name, "a", b"y" * 1_000_000)
        feeds.data(name, "a", b"")
        assert words in said[-1]
    assert feeds.failures == 3


def test_programs_end_with_the_console(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _COPY, str(tmp_path / "out")]
    feeds = Feeds({"copy": command}, print, print)
    feeds.data("copy", "a", b"some")
    assert not feeds.wait(0.01)
    feeds.close()
    assert feeds.wait(0.01)
    assert (tmp_path / "out").read_bytes() == b"some"
