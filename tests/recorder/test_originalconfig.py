"""The original's configuration file."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from perfmeasure.errors import UsageError
from perfmeasure.recorder.configuration import Setup, read_setup
from perfmeasure.recorder.originalconfig import is_original, translate
from perfmeasure.recorder.writer import Limits

# Written for this test after the grammar of the original: every option it has.
WHOLE = """\
# the machine room
main {
    device "eth1";   # where
    filter "not port 22";
    log_interval 60;
    conn_timeout 180;
    console 0; daemon 1;
    workdir "/var/tm"; indexdir "/var/tm/indexes"; queryfiledir "/var/tm/queries";
    logfile "tm.log";
    max_subscriptions 100;
    rmtconsole 1; rmtconsole_port 42042; rmtconsole_listen_addr 127.0.0.1;
    bro_listen 1; bro_listen_port 47757; bro_listen_addr 127.0.0.1;
    tweak_capture_thread no;
    index "connection4" disk;
    index "ip" disk
}
/* two classes,
   by port */
class "web" {
    filter "port 80"; precedence 20;
    cutoff 15k; disk 2 g; filesize 128m; mem 100m; pkts_to_disk 10; dyn_timeout 30;
};
class "all" { precedence 5; cutoff no; disk unlimited; sugar 3; }
"""


def read(tmp_path: Path, text: str) -> Setup:
    path = tmp_path / "timemachine.cfg"
    path.write_text(text)
    return read_setup(path)


def test_every_option(tmp_path: Path) -> None:
    setup = read(tmp_path, WHOLE)
    assert (setup.interface, setup.filter) == ("eth1", "not port 22")
    assert setup.is_promiscuous, "as the original always is"
    assert setup.console_port == 42042
    assert (setup.log_interval_seconds, setup.rules.timeout_seconds) == (60, 180)
    web, rest = setup.classes
    assert (web.name, web.filter, web.precedence) == ("web", "port 80", 20)
    assert (web.cutoff_bytes, web.dynamic_timeout_seconds) == (15 << 10, 30)
    assert web.limits == Limits(segment_bytes=128 << 20, budget_bytes=2 << 30)
    assert (rest.cutoff_bytes, rest.limits.budget_bytes) == (None, None)


def test_options_without_effect_are_named_with_their_line(tmp_path: Path) -> None:
    warnings = read(tmp_path, WHOLE).warnings
    named = [warning.split("option ")[1].split()[0] for warning in warnings]
    assert named == [
        "console", "daemon", "workdir", "indexdir", "queryfiledir", "logfile", "max_subscriptions",
        "rmtconsole", "rmtconsole_listen_addr", "bro_listen", "bro_listen_port",
        "bro_listen_addr", "tweak_capture_thread", "index", "index", "mem", "pkts_to_disk", "sugar",
    ]  # fmt: skip
    assert warnings[0].endswith("cfg:7: option console has no effect: perfmeasure console is the "
                                "console")  # fmt: skip
    assert warnings[-1].endswith("cfg:23: option sugar is not known")


@pytest.mark.parametrize(
    "text", ["main {}", '/* a */ # b\n ;\nclass "a"{}', "main\n{\n}", WHOLE]
)  # fmt: skip
def test_it_is_recognised(text: str) -> None:
    assert is_original(text)
    translate(text, "x")


@pytest.mark.parametrize("text", ["", "main = 3", "[classes.main]", "# main {"])
def test_toml_is_not_taken_for_it(text: str) -> None:
    assert not is_original(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("main { device", "x:1: device ; wanted one value"),
        ("main { conn_timeout 1\n2; }", "x:1: conn_timeout 1 2"),
        ('class "a" { cutoff 15x; }', "x:1: cutoff 15x"),
        ('class "a" { precedence high; }', "x:1: precedence high"),
        ("class a { }", "x:1: 'a'; wanted a name"),
        ('class "a" { } class "a" { }', "each class once"),
        ("main { } nonsense", "x:1: 'nonsense'"),
        ("main {\n\n$ }", "x:3: "),
        ("main { ;; ", "ends here"),
        ("class", "ends here"),
    ],
)  # fmt: skip
def test_what_does_not_parse_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        translate(text, "x")


def test_damaged_files_are_refused_or_read(is_long: bool) -> None:
    rng = random.Random(5)
    for _ in range(100_000 if is_long else 2000):
        text = list(WHOLE)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(3)] = rng.choice(["{", "}", ";", '"', "é", "", "/*", "0"])
        with contextlib.suppress(UsageError):
            translate("".join(text), "x")
