from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perfmeasure.analysis.sections import percent_of, sections_of

if TYPE_CHECKING:
    from tests.analysis.conftest import Lines


def test_sections_of_a_line(lines: type[Lines]) -> None:
    sections = sections_of(lines.outcome(1, 2, 3, 5000).encode())
    assert sections is not None
    assert sections["stream"]["id"] == "3"
    assert sections["transport"]["local"] == "localhost:127.0.0.1:5000"
    assert sections["times"]["usecs-to-first-byte-send"] == "-1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vertexid=stream,", ""),
        ("error=NONE]", "error=NONE,error=NONE]"),
        ("] bytes [", "] bits ["),
        ("now-ts", "then-ts"),
        ("peername=vm", "peername=v,m"),
        ("peername=vm", "peername=v]m"),
        ("peername=vm", "peername="),
        ("peername=vm", "peername=v\0m"),
        ("state=SUCCESS_OPEN", "state=SUCCESS_OPe"),
        ("fd=7,", "fd=7,=7,"),
        (":5000,", ":50x0,"),
        ("now-ts=", "now-ts=1_"),
        ("100.00%", "100.0%"),
        ("total-bytes-send=2167", "total-bytes-send=-1"),
        ("payload-bytes-send=0", "paes-recv=400,payload-bytes-send=0"),
        ("[tgen-stream.c:1738]", "[tgen-stream.c:1738"),
        ("[message]", "[massage]"),
        ("[stream-success]", "[stream-success]ess]"),
    ],
)
def test_sections_that_are_not_as_they_should_be(lines: type[Lines], old: str, new: str) -> None:
    line = lines.outcome(1, 2, 3, 5000)
    assert old in line
    assert sections_of(line.replace(old, new).encode()) is None


def test_a_field_that_is_new_in_a_later_version_does_no_harm(lines: type[Lines]) -> None:
    line = lines.outcome(1, 2, 3, 5000).replace("fd=7,", "fd=7,tls=no,")
    assert sections_of(line.encode()) is not None


def test_a_percentage_may_be_unknown() -> None:
    assert [percent_of(text) for text in ("?", "?%", "3.12%")] == [-1.0, -1.0, 3.12]
