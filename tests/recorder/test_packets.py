from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from perfmeasure import readychild
from perfmeasure.config import MeasureConfig, Network
from perfmeasure.errors import MissingError, UsageError
from perfmeasure.plan import Plan
from perfmeasure.process import ChildProcess
from perfmeasure.progress import Progress
from perfmeasure.recorder import absence, packets
from perfmeasure.recorder.libpcap import Filter
from perfmeasure.recorder.packets import PacketRecording, default_interface, packet_filter
from perfmeasure.recorder.records import LINK_ETHERNET
from perfmeasure.supervisor import Supervisor

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth9\t00000000\t0101A8C0\t0000\t0\t0\t1\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


class Recorder(ChildProcess):
    """Stands for the recorder: it says what the test has it say."""

    made: list[Recorder]

    def _start(self) -> None:
        self.made.append(self)

    def stopService(self) -> Deferred[None]:
        self.running = 0
        return succeed(None)

    def end(self) -> None:
        """End as one that said what it had to say."""
        self._died("ended with status 3")


class Scene:
    """A recording of packets and what it said."""

    def __init__(self, tmp_path: Path, capture: pytest.CaptureFixture[str], **config: Any) -> None:
        self.clock = Clock()
        self.capture = capture
        self.plan = plan(prefix=tmp_path, **config)
        supervisor = Supervisor(self.clock, print)
        supervisor.startService()
        self.store = tmp_path / "packets"
        self.recording = PacketRecording(self.plan, supervisor, Progress())

    def start(self, *relays: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(self.recording.start(relays))

    def said(self) -> str:
        return self.capture.readouterr().err


class Relay:
    """All that is asked of a relay."""

    def __init__(self, or_port: int) -> None:
        self.or_port = or_port


def plan(**config: Any) -> Plan:
    return Plan(
        config=MeasureConfig(**config), tor=Path("tor"), tgen=None, listen_port=81,
        connect_port=80, socks_port=9050, client_control_port=9051, server_control_port=9052,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorder.made = []
    monkeypatch.setattr(readychild, "ChildProcess", Recorder)


def result_of(started: Deferred[None]) -> Any:
    results: list[Any] = []
    started.addBoth(results.append)
    assert results, "it still waits"
    return results[0].value if isinstance(results[0], Failure) else results[0]


def test_what_is_recorded() -> None:
    testnet = plan(network=Network.TESTNET)
    assert packet_filter(testnet, [5000, 4000]) == (
        "tcp and (port 80 or port 81 or port 4000 or port 5000 or port 9050)"
    )
    assert packet_filter(plan(http_port=8081), []) == (
        "tcp and not port 22 and not port 8081 and not port 9051 and not port 9052"
    )
    for expression in (packet_filter(testnet, range(4000, 4100)), packet_filter(plan(), [])):
        Filter(expression, LINK_ETHERNET, "filter")  # libpcap takes it


def test_the_interface_of_the_default_route() -> None:
    assert default_interface(ROUTES) == "eth0"
    assert default_interface(ROUTES.partition("\n")[0]) is None


def test_it_records_where_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene(tmp_path, capsys, network=Network.TESTNET)
    absence.note(scene.store, "turned off")
    started = scene.start(Relay(4000))
    (child,) = Recorder.made
    words = " ".join(child.argv)
    assert f"-m perfmeasure.recorder.child --interface lo --store {scene.store}" in words
    assert "port 4000 or port 9050) --cutoff 15 KB --budget 1 GiB" in words
    child.line_received(b"READY")
    assert result_of(started) is None
    assert absence.reason(scene.store) is None
    scene.said()
    child.line_received(b"HEALTH 5 packets read")
    assert scene.said() == "", "it is no news"
    child.line_received(b"perfmeasure packets: disk full. Recording pauses until there is room")
    assert "warning: perfmeasure packets: disk full." in scene.said()
    scene.recording.close()
    assert "packets: 5 packets read" in scene.said()


def test_that_packets_become_public_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, capsys, network=Network.TESTNET, publish_packets=True)
    scene.start()
    Recorder.made[0].line_received(b"READY")
    assert scene.said().count("the packets of each transfer become public") == 1


def test_on_the_real_network_it_takes_the_default_route(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "_ROUTES", tmp_path / "route")
    (tmp_path / "route").write_text(ROUTES)
    scene = Scene(tmp_path, capsys, record_cutoff="none", record_budget="5 GB")
    scene.start()
    words = " ".join(Recorder.made[0].argv)
    assert "--interface eth0" in words
    assert words.endswith("--cutoff none --budget 5 GB")
    (tmp_path / "route").write_text(ROUTES.partition("\n")[0])
    without = Scene(tmp_path, capsys)
    assert result_of(without.start()) is None
    assert "no route to the internet" in str(absence.reason(scene.store))
    assert len(Recorder.made) == 1


def test_turned_off_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene(tmp_path, capsys, record="off")
    assert result_of(scene.start()) is None
    assert absence.reason(scene.store) == "turned off (--record off)"
    assert Recorder.made == []
    scene.recording.close()
    assert scene.said() == ""


def test_what_the_machine_lacks_is_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, capsys, network=Network.TESTNET)
    started = scene.start()
    Recorder.made[0].line_received(b"perfmeasure: capture: the kernel allows no packet socket")
    Recorder.made[0].end()
    assert result_of(started) is None
    assert absence.reason(scene.store) == "capture: the kernel allows no packet socket"
    assert "packets: not recorded: capture: the kernel allows no packet socket" in scene.said()


def test_an_interface_that_was_asked_for_must_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, capsys, record="eth7")
    started = scene.start()
    assert "--interface eth7" in " ".join(Recorder.made[0].argv)
    Recorder.made[0].line_received(b"perfmeasure: interface eth7: there is none of this name")
    Recorder.made[0].end()
    error = result_of(started)
    assert isinstance(error, MissingError)
    assert str(error) == "interface eth7: there is none of this name"
    # A folder that cannot be the store is one as well.
    elsewhere = tmp_path / "link"
    elsewhere.mkdir()
    scene = Scene(elsewhere, capsys, record="eth7")
    (elsewhere / "packets").symlink_to("nowhere")
    assert isinstance(result_of(scene.start()), UsageError)


def test_one_that_dies_too_often_ends_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, capsys, record="eth0")
    started = scene.start()
    (child,) = Recorder.made
    child.line_received(b"READY")
    assert result_of(started) is None
    for _ in range(6):
        child.end()
        scene.clock.advance(61)
    assert len(Recorder.made) == 6
    assert "packets are recorded no more: packets ended with status 3" in scene.said()
    assert str(absence.reason(scene.store)).startswith("from here on: packets ended with status 3")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(absence, "note", full)
    scene = Scene(tmp_path, capsys, record="off")
    assert result_of(scene.start()) is None
    assert f"{scene.store}: cannot be written (No space left on device)" in scene.said()
