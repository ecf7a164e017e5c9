"""perfmeasure.tor.torrc: the text, and what the real tor says about it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perfmeasure.errors import MissingError, UsageError
from perfmeasure.tor.onion import OnionService
from perfmeasure.tor.torrc import NO_DEFAULTS, TorSettings, keywords, quoted, verify

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT = TorSettings(
    data_directory=Path("/m/tor-client/data"),
    cookie_path=Path("/m/private/client.cookie"),
    control_port=19051,
    socks_port=19050,
)
NETWORK = (
    "TestingTorNetwork 1",
    f"DirAuthority a0 orport=5001 no-v2 v3ident={'A' * 40} 127.0.0.1:7001 {'B' * 40}",
    "VanguardsLiteEnabled 0",
)


def test_client_text() -> None:
    assert CLIENT.text() == (
        "RunAsDaemon 0\n"
        "ORPort 0\n"
        "SocksPort 127.0.0.1:19050\n"
        "ControlPort 127.0.0.1:19051\n"
        "CookieAuthentication 1\n"
        'CookieAuthFile "/m/private/client.cookie"\n'
        'DataDirectory "/m/tor-client/data"\n'
        "ClientOnly 1\n"
        "SafeLogging 0\n"
        "Log notice stdout\n"
        "MaxCircuitDirtiness 60 seconds\n"
        "UseEntryGuards 0\n"
    )


def test_order_is_base_ours_network_file_additional() -> None:
    text = replace(
        CLIENT,
        base_text="# {braces} stay {0}\n",
        network_lines=NETWORK,
        file_text="NumCPUs 1",
        additional_text=r"LearnCircuitBuildTimeout 0\nCircuitBuildTimeout 7",
        owner_pid=7,
    ).text()
    lines = text.splitlines()
    wanted = [
        "# {braces} stay {0}",
        "RunAsDaemon 0",
        "__OwningControllerProcess 7",
        "TestingTorNetwork 1",
        "UseEntryGuards 0",
        "NumCPUs 1",
        "LearnCircuitBuildTimeout 0",
        "CircuitBuildTimeout 7",
    ]
    assert [line for line in lines if line in wanted] == wanted
    assert lines[-1] == "CircuitBuildTimeout 7"


@pytest.mark.parametrize(
    ("change", "is_added"),
    [
        ({}, True),
        ({"drop_guards_hours": 4.0}, False),
        ({"additional_text": "useentryguards 1"}, False),
        ({"file_text": "  UseBridges 1\nBridge 127.0.0.1:1"}, False),
        ({"base_text": "UseEntryGuards 1"}, False),
        ({"base_text": "# UseEntryGuards 1"}, True),
    ],
)
def test_guards_are_not_used_unless_something_speaks_of_them(
    change: dict[str, str | float], is_added: bool
) -> None:
    text = replace(CLIENT, **change).text()  # type: ignore[arg-type]
    assert ("\nUseEntryGuards 0\n" in text) is is_added


@pytest.mark.parametrize(
    "extra", ["DataDirectory /x", "+cookieauthfile /x", r"NumCPUs 1\nRunAsDaemon 1"]
)
def test_options_that_the_harness_needs_cannot_be_taken(extra: str) -> None:
    with pytest.raises(UsageError, match="Leave that line out"):
        replace(CLIENT, additional_text=extra).text()


def test_single_onion_has_no_socks_port() -> None:
    onion = OnionService(Path("/m/private/single-onion"), 8080, 9090, is_single_onion=True)
    lines = replace(CLIENT, onion=onion).text().splitlines()
    assert "SocksPort 0" in lines
    assert "HiddenServicePort 8080 127.0.0.1:9090" in lines
    assert "HiddenServiceSingleHopMode 1" in lines
    assert "HiddenServiceNonAnonymousMode 1" in lines


def test_keywords() -> None:
    assert keywords("A 1\n  +B 2\n#C 3\n/D\n\nE") == {"a", "b", "d", "e"}


def test_path_with_a_control_character_is_refused() -> None:
    with pytest.raises(UsageError, match="control character"):
        quoted(Path("/a\nControlPort 1"))


def _prepared(tmp_path: Path) -> TorSettings:
    folder = tmp_path / 'a "path" with # and \\ in it'
    (folder / "data").mkdir(parents=True, mode=0o700)
    return replace(CLIENT, data_directory=folder / "data", cookie_path=folder / "cookie")


@pytest.mark.parametrize("network_lines", [(), NETWORK])
@pytest.mark.parametrize("kind", ["client", "guards", "onion", "single-onion"])
def test_tor_has_nothing_to_say_about_what_we_write(
    kind: str, network_lines: tuple[str, ...], tmp_path: Path, require: Callable[..., None]
) -> None:
    require("tor")
    settings = replace(_prepared(tmp_path), network_lines=network_lines, owner_pid=1)
    if kind == "guards":
        settings = replace(settings, drop_guards_hours=1)
    if kind.endswith("onion"):
        onion = OnionService.under(
            tmp_path / "private", 80, 8080, is_single_onion=kind == "single-onion"
        )
        onion.prepare()
        settings = replace(settings, onion=onion)
    path = tmp_path / "torrc"
    path.write_text(settings.text())
    assert verify("tor", path) == []


def test_tor_reads_odd_paths_as_they_are(tmp_path: Path, require: Callable[..., None]) -> None:
    require("tor")
    settings = _prepared(tmp_path)
    path = tmp_path / "torrc"
    path.write_text(settings.text())
    argv = ["tor", "--dump-config", "short", "-f", str(path), *NO_DEFAULTS]
    said = subprocess.run(argv, capture_output=True, check=True, text=True).stdout
    # tor writes values as it would read them.
    assert f"DataDirectory {quoted(settings.data_directory)}" in said


def test_tor_explains_what_is_wrong_in_extra_lines(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("tor")
    path = tmp_path / "torrc"
    path.write_text(replace(_prepared(tmp_path), additional_text="NumCPUz 2").text())
    with pytest.raises(UsageError, match="Unknown option 'NumCPUz'") as caught:
        verify("tor", path)
    assert "--additional-client-conf" in str(caught.value)


def test_warnings_about_extra_lines_come_back(tmp_path: Path, require: Callable[..., None]) -> None:
    require("tor")
    path = tmp_path / "torrc"
    path.write_text(replace(_prepared(tmp_path), additional_text="WarnUnsafeSocks 0").text())
    assert ["WarnUnsafeSocks" in line for line in verify("tor", path)] == [True]


def test_no_such_tor(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="Apt install tor"):
        verify(tmp_path / "tor", tmp_path / "torrc")
