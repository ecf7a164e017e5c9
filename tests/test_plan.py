from __future__ import annotations

import socket
from pathlib import Path

import pytest

from perfmeasure import plan
from perfmeasure.config import MeasureConfig, Network
from perfmeasure.errors import MeasurementError, MissingError, UsageError


@pytest.fixture
def tor(tmp_path: Path) -> str:
    """A program by the name of tor that nothing here runs."""
    path = tmp_path / "tor"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    return str(path)


def config(tmp_path: Path, tor: str, **settings: object) -> MeasureConfig:
    settings = {"network": Network.TESTNET, "listen_port": 0, **settings}
    return MeasureConfig(prefix=tmp_path / "data", tor=tor, **settings)  # type: ignore[arg-type]


def test_ports_and_programs_are_settled(tmp_path: Path, tor: str) -> None:
    made = plan.make_plan(config(tmp_path, tor))
    assert made.tor == Path(tor)
    ports = {made.listen_port, made.socks_port, made.client_control_port, made.server_control_port}
    assert len(ports) == 4
    assert made.connect_port == made.listen_port
    assert made.onion is not None
    assert made.onion.target_port == made.listen_port


def test_a_missing_program_is_named_with_its_remedy(tmp_path: Path, tor: str) -> None:
    with pytest.raises(MissingError, match=r"no-such-tor: not found; .*apt-get install tor"):
        plan.make_plan(config(tmp_path, "no-such-tor"))
    with pytest.raises(MissingError, match=r"no-such-tgen: not found; .*built-in generator"):
        plan.make_plan(config(tmp_path, tor, tgen="no-such-tgen"))


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path, tor: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(MeasurementError, match=f"port {port}: .*--tgen-listen-port"):
            plan.make_plan(config(tmp_path, tor, listen_port=port))


def test_the_external_tgen_is_driven_when_it_is_there(tmp_path: Path, tor: str) -> None:
    tgen = tmp_path / "tgen"
    tgen.write_text("#!/bin/sh\n")
    tgen.chmod(0o755)
    made = plan.make_plan(config(tmp_path, tor, tgen=str(tgen)))
    assert made.tgen_argv("tgen-client")[0] == str(tgen)
    built_in = plan.make_plan(config(tmp_path, tor, tgen=None))
    if built_in.tgen is None:
        assert built_in.tgen_argv("tgen-client")[1:3] == ["-m", "perfmeasure.tgen"]


def test_torrcs_have_what_was_asked_and_the_networks_lines(
    tmp_path: Path, tor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASETORRC", "DataDirectoryGroupReadable 1 # {braces}")
    extra = tmp_path / "extra.torrc"
    extra.write_text("CircuitBuildTimeout 30\n")
    asked = config(
        tmp_path, tor, torclient_conf_file=extra, additional_client_conf=r"NumEntryGuards 2\nA 1"
    )
    made = plan.make_plan(asked)
    lines = made.client_torrc(("TestingTorNetwork 1",)).splitlines()
    assert lines[0] == "DataDirectoryGroupReadable 1 # {braces}"
    for line in ("TestingTorNetwork 1", "CircuitBuildTimeout 30", "NumEntryGuards 2", "A 1"):
        assert line in lines
    server = made.server_torrc(())
    assert "HiddenServicePort" in server
    assert "CircuitBuildTimeout" not in server
    with pytest.raises(UsageError, match="cannot be read"):
        plan.make_plan(config(tmp_path, tor, torclient_conf_file=tmp_path)).client_torrc(())


def test_models_alternate_between_the_kinds_and_end_after_what_is_left(
    tmp_path: Path, tor: str
) -> None:
    made = plan.make_plan(config(tmp_path, tor, num_transfers=5))
    addresses = {"exit": "127.0.0.1", "onion": f"{'a' * 56}.onion"}
    graph = made.client_graph(addresses, {"onion": 3, "exit": 2})
    assert graph.nodes["stream_exit"]["peers"] == f"127.0.0.1:{made.connect_port}"
    assert graph.nodes["stream_onion"]["peers"] == f"{'a' * 56}.onion:{made.connect_port}"
    assert graph.nodes["end"]["count"] == "5"
    assert "end" not in made.client_graph(addresses, {"onion": 0, "exit": 0})


def test_the_address_is_as_given_or_loopback_or_a_clear_question(
    tmp_path: Path, tor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan.find_address(config(tmp_path, tor)) == "127.0.0.1"
    assert plan.find_address(config(tmp_path, tor, connect_ip="192.0.2.7")) == "192.0.2.7"

    class Unrouted(socket.socket):
        def connect(self, _address: object) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", Unrouted)
    with pytest.raises(MeasurementError, match=r"--tgen-connect-ip.*--onion-only"):
        plan.find_address(config(tmp_path, tor, network=Network.PUBLIC))


def test_programs_are_found_where_a_user_path_does_not_lead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "tor-x"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(plan, "_SYSTEM_FOLDERS", (str(tmp_path),))
    assert plan.find_program("tor-x") == program
    assert plan.find_program("tor-y") is None
