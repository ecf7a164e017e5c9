"""perfmeasure.tor.client: a tor of the private network is asked, killed, frozen."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater

from perfmeasure.errors import ControlError, MeasurementError
from perfmeasure.tor import client
from perfmeasure.tor.client import BootstrapPhase, TorController
from perfmeasure.tor.onion import OnionService
from perfmeasure.tor.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_phase_is_read() -> None:
    phase = BootstrapPhase.parse(
        'WARN BOOTSTRAP PROGRESS=10 TAG=conn_done SUMMARY="Connected to a relay" '
        'WARNING="No route to host" REASON=NOROUTE COUNT=3 RECOMMENDATION=warn'
    )
    assert phase == BootstrapPhase(10, "conn_done", "Connected to a relay", "No route to host")
    assert str(phase) == "10 % (conn_done: Connected to a relay), warning: No route to host"


@pytest.mark.parametrize("text", ["", "NOTICE BOOTSTRAP TAG=done", "PROGRESS=x"])
def test_no_phase(text: str) -> None:
    with pytest.raises(ControlError, match="PROGRESS=NUMBER"):
        BootstrapPhase.parse(text)


def test_tor_outlives_the_connection(testnet: Any, drive: Any) -> None:
    for _ in range(2):
        controller = testnet.controller(testnet.client, drive.reactor)
        drive(controller.connect())
        drive(controller.close())
    time.sleep(0.5)
    assert testnet.processes.status("client") is None


def test_questions_to_a_client(testnet: Any, drive: Any) -> None:
    controller = TorController(
        "client", testnet.client.control_port, testnet.client.cookie_path, reactor=drive.reactor
    )
    phases: list[BootstrapPhase] = []
    drive(controller.wait_bootstrapped(stall_seconds=30, on_progress=phases.append))
    assert [phase.percent for phase in phases] == [100]
    assert drive(controller.version()).startswith("0.")
    drive(controller.drop_guards())
    drive(controller.command("SIGNAL NEWNYM"))
    with pytest.raises(ControlError, match="NOSUCH"):
        drive(controller.command("NOSUCH"))
    assert controller.is_connected
    drive(controller.close())
    assert not controller.is_connected


def test_upload_is_seen_again_after_a_restart(testnet: Any, drive: Any) -> None:
    onion = OnionService(testnet.base / "restarted-onion", 80, testnet.server.port)
    onion.prepare()
    tor = testnet.start_tor("restarted", onion=onion)
    controller = TorController("host", tor.control_port, tor.cookie_path, reactor=drive.reactor)
    drive(controller.connect())
    address = onion.address()
    assert drive(controller.wait_descriptor_uploaded(address, limit_seconds=60)) >= 1
    # What was seen stays seen.
    assert drive(controller.wait_descriptor_uploaded(address, limit_seconds=0)) >= 1
    testnet.processes.signal("restarted", signal.SIGKILL)
    waiting = ensureDeferred(controller.wait_descriptor_uploaded(address, limit_seconds=60))
    while testnet.processes.status("restarted") is None or controller.is_connected:
        drive.reactor.iterate(0.01)
    testnet.restart(tor)

    async def wait() -> Any:
        return await waiting

    assert drive(wait()) >= 1
    assert onion.address() == address
    drive(controller.close())
    testnet.processes.signal("restarted", signal.SIGTERM)


def test_no_upload(testnet: Any, drive: Any) -> None:
    controller = TorController(
        "client",
        testnet.client.control_port,
        testnet.client.cookie_path,
        reactor=drive.reactor,
        last_words=lambda: "so it goes",
    )
    with pytest.raises(MeasurementError, match=r"no descriptor of abc.*so it goes"):
        drive(controller.wait_descriptor_uploaded("abc.onion", limit_seconds=0.3))
    drive(controller.close())


def test_no_progress_names_the_phase(make_tor: Callable[..., Any], drive: Any) -> None:
    tor = make_tor("CookieAuthentication 1")
    controller = TorController("alone", tor.port, tor.cookie, reactor=drive.reactor)
    with pytest.raises(MeasurementError, match=r"alone: stays at 0 % \(starting: Starting\)"):
        drive(controller.wait_bootstrapped(stall_seconds=0.3))
    drive(controller.close())


def test_no_tor_at_all(drive: Any, tmp_path: Path) -> None:
    controller = TorController("none", free_ports(1)[0], tmp_path / "c", reactor=drive.reactor)
    with pytest.raises(ControlError, match=r"none: its control port did not open.*reached"):
        drive(controller.connect(limit_seconds=0.3))


def test_a_frozen_tor_is_left_after_the_limit(
    make_tor: Callable[..., Any], drive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tor = make_tor("CookieAuthentication 1")
    controller = TorController("frozen", tor.port, tor.cookie, reactor=drive.reactor)
    drive(controller.connect())
    monkeypatch.setattr(client, "ANSWER_LIMIT_SECONDS", 0.3)
    os.kill(tor._process.pid, signal.SIGSTOP)
    before = time.monotonic()
    with pytest.raises(ControlError, match="did not answer"):
        drive(controller.version())
    assert time.monotonic() - before < 5
    os.kill(tor._process.pid, signal.SIGCONT)
    monkeypatch.undo()
    assert drive(controller.version())  # it connected anew
    drive(controller.close())


def test_waiting_can_be_cancelled(make_tor: Callable[..., Any], drive: Any) -> None:
    tor = make_tor("CookieAuthentication 1")
    controller = TorController("alone", tor.port, tor.cookie, reactor=drive.reactor)
    waiting = ensureDeferred(controller.wait_bootstrapped(stall_seconds=60))
    ended: list[object] = []
    waiting.addBoth(ended.append)

    async def cancel() -> None:
        await deferLater(drive.reactor, 0.3)
        waiting.cancel()
        await deferLater(drive.reactor, 0.3)
        await controller.close()

    drive(cancel())
    assert len(ended) == 1
