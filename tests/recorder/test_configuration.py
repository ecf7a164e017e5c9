"""The configuration in TOML, and what both kinds of file have in common."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import InputError, UsageError
from perfmeasure.recorder.configuration import Setup, read_setup, setup_of_options
from perfmeasure.recorder.connections import Rules
from perfmeasure.recorder.writer import Limits

WHOLE = """
interface = "eth0"
promiscuous = true
filter = "not port 22"
log_interval = "30 s"
connection_timeout = "3 min"
end_by_flags = false

[classes.web]
filter = "port 80"
precedence = 7
cutoff = "15 KB"
dynamic_timeout = 60
segment_size = "64 MiB"
segment_time = "5 min"
budget = "1 GiB"

[classes.rest]
cutoff = "none"
budget = "none"
"""


def read(tmp_path: Path, text: str) -> Setup:
    path = tmp_path / "recorder.conf"
    path.write_text(text)
    return read_setup(path)


def test_every_option(tmp_path: Path) -> None:
    setup = read(tmp_path, WHOLE)
    assert (setup.interface, setup.is_promiscuous, setup.filter) == ("eth0", True, "not port 22")
    assert setup.log_interval_seconds == 30
    assert setup.rules == Rules(timeout_seconds=180, ends_by_flags=False)
    web, rest = setup.classes
    assert (web.name, web.filter, web.precedence) == ("web", "port 80", 7)
    assert (web.cutoff_bytes, web.dynamic_timeout_seconds) == (15000, 60)
    assert web.limits == Limits(64 << 20, 300, 1 << 30)
    assert (rest.cutoff_bytes, rest.limits) == (None, Limits())
    assert setup.warnings == ()


def test_nothing_given_is_one_class_of_everything(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Setup()
    (only,) = Setup().classes
    assert (only.name, only.filter, only.cutoff_bytes) == ("all", "", None)
    assert setup_of_options({}) == Setup()


def test_options_of_the_command_line() -> None:
    setup = setup_of_options({"cutoff": "15 KB", "connection_timeout": "0", "end_by_flags": False})
    assert setup.classes[0].cutoff_bytes == 15000
    assert setup.rules == Rules(timeout_seconds=0, ends_by_flags=False)
    with pytest.raises(UsageError, match=r"^--segment-size: 'much' is not a size"):
        setup_of_options({"segment_size": "much"})


def test_a_small_budget_has_several_segments(tmp_path: Path) -> None:
    (only,) = read(tmp_path, '[classes.a]\nbudget = "80 MB"').classes
    assert only.limits == Limits(segment_bytes=10_000_000, budget_bytes=80_000_000)


def test_unknown_options_are_named(tmp_path: Path) -> None:
    setup = read(tmp_path, "colour = 1\n[classes.a]\nshape = 2")
    first, second = setup.warnings
    assert "recorder.conf: option colour is not known" in first
    assert "recorder.conf: class a: option shape is not known" in second


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("interface = 3", "interface: 3; wanted a text"),
        ("promiscuous = 1", "promiscuous: 1; wanted true or false"),
        ("console_port = 65536", "console_port: 65536; wanted a port up to 65535"),
        ("console_port = '1'", "console_port: '1'; wanted a whole number"),
        ("[classes.a]\nprecedence = 'high'", "class a: precedence: 'high'; wanted a whole number"),
        ("[classes.a]\ncutoff = 'no'", "'no' is not a size"),
        ("[classes.a]\ncutoff = true", "True; wanted a number with a unit"),
        ("[classes.'a/b']\n", "class 'a/b': not a name"),
        ("classes = 3", "classes is no table of tables"),
        ("interface", "does not parse as TOML"),
        ("[classes.a]\nbudget = '1 GB'\nsegment_size = '900 MB'", "at least two segments"),
    ],
)
def test_what_cannot_be_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_setup(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_setup(tmp_path / "binary")


@given(
    st.text(
        alphabet="main{};clas\"0k# /*\n='[]." + "x", max_size=80
    ) | st.text(alphabet=st.characters(codec="utf-8"), max_size=80)
)  # fmt: skip
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_text(text)
    with contextlib.suppress(UsageError):
        assert read_setup(path).classes
