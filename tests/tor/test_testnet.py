"""perfmeasure.tor.testnet with the real tor: started, restored, made anew, interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred

from perfmeasure import jsonio
from perfmeasure.errors import MeasurementError, MissingError
from perfmeasure.tor import founding
from perfmeasure.tor import testnet as module
from perfmeasure.tor.processes import Processes
from perfmeasure.tor.relay import INTERVAL_SECONDS
from perfmeasure.tor.snapshot import OLDEST_SECONDS
from perfmeasure.tor.testnet import Testnet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perfmeasure.tor.relay import Relay


class Launcher:
    """Runs relays as plain processes."""

    def __init__(self) -> None:
        self.processes = Processes()
        self.launched: list[str] = []
        self.stops = 0

    def launch(self, relay: Relay, argv: list[str]) -> None:
        self.launched.append(relay.name)
        self.processes.start(relay.name, argv, relay.log_path)

    def is_alive(self, name: str) -> bool:
        return self.processes.status(name) is None

    async def stop_all(self) -> None:
        self.stops += 1
        self.processes.stop()


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.processes.stop()


def _pids_below(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _wait_until_none_is_left(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while _pids_below(folder):
        assert time.monotonic() < deadline, _pids_below(folder)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cache(testnet: Any, cache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a copy of the snapshot of the network that runs for all tests."""
    folder = tmp_path_factory.mktemp("cache")
    source = testnet.testnet._slot.folder
    target = folder / source.parent.relative_to(cache_home / "perfmeasure") / "0"
    shutil.copytree(source, target)
    return folder


def _manifest(cache: Path) -> Path:
    (path,) = cache.glob("testnet/*/0/manifest.json")
    return path


# ---- the network that runs for all tests ----------------------------------------------------


def test_exits_and_onion_services_work(testnet: Any, *, is_long: bool) -> None:
    count = 20 if is_long else 5
    for host, port in (("127.0.0.1", testnet.server.port), (testnet.onion.address(), 80)):
        outcomes = []
        for _ in range(count):
            try:
                outcomes.append(testnet.fetch(host, port, 50_000) == 50_000)
            except OSError:
                outcomes.append(False)
        assert outcomes.count(True) >= 0.9 * count or outcomes.count(False) == 1, outcomes


def test_conflux_is_on(testnet: Any, drive: Any) -> None:
    controller = testnet.controller(testnet.client, drive.reactor)

    async def ask() -> str:
        return str(await controller._getinfo("circuit-status"))

    drive(controller.connect())
    circuits = drive(ask())
    drive(controller.close())
    assert "CONFLUX" in circuits


def test_tor_logs_no_bug_and_no_error(testnet: Any) -> None:
    logs = [relay.log_path for relay in testnet.relays]
    logs += [testnet.client.log_path, testnet.onion_host.log_path]
    for path in logs:
        bad = [line for line in path.read_text().splitlines() if "[err]" in line or "Bug:" in line]
        assert bad == []


# ---- restored or made anew ------------------------------------------------------------------


@pytest.fixture
def was_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes that a network would be made, and stops there."""
    made: list[str] = []

    def pretend(*_args: object) -> list[Relay]:
        made.append("made")
        raise MeasurementError("making", "is only pretended")

    monkeypatch.setattr(module, "found", pretend)
    monkeypatch.setattr(module, "_PORTS_LIMIT_SECONDS", 0.1)
    return made


def _prepare(base: Path, cache: Path) -> list[str]:
    said: list[str] = []
    network = Testnet(base, cache=cache)
    try:
        network.prepare(said.append)
    except MeasurementError:
        assert said
    finally:
        network.close()
    return said


def test_a_port_that_is_in_use_is_reason_enough(
    cache: Path, tmp_path: Path, was_made: list[str]
) -> None:
    said = _prepare(tmp_path / "base", cache)
    assert "of the kept one is in use" in said[0]
    assert was_made == ["made"]


def _corrupt(path: Path) -> str:
    consensus = path.parent / "exit0" / "cached-microdesc-consensus"
    os.truncate(consensus, 1000)
    return "exit0/cached-microdesc-consensus is damaged"


def _lose_key(path: Path) -> str:
    (path.parent / "authority1" / "keys" / "authority_signing_key").unlink()
    return "authority1/keys/authority_signing_key cannot be read"


def _age(path: Path) -> str:
    document = jsonio.loads(path.read_bytes())
    document["made_unix_ts"] -= OLDEST_SECONDS
    path.write_bytes(jsonio.canonical(document))
    return " days old"


def _lose(path: Path) -> str:
    shutil.rmtree(path.parent)
    return "not there"


@pytest.mark.parametrize("damage", [_corrupt, _lose_key, _age, _lose])
def test_a_damaged_or_old_snapshot_is_replaced(
    cache: Path, tmp_path: Path, was_made: list[str], damage: Callable[[Path], str]
) -> None:
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    reason = damage(_manifest(copy))
    said = _prepare(tmp_path / "base", copy)
    assert reason in said[0]
    assert was_made == ["made"]


def test_without_a_place_for_snapshots_it_is_made(
    tmp_path: Path, was_made: list[str], require: Callable[..., None]
) -> None:
    require("tor")
    (tmp_path / "file").touch()
    said = _prepare(tmp_path / "base", tmp_path / "file")
    assert "no place to keep one" in said[0]
    assert was_made == ["made"]


def test_without_tor_there_is_no_network(tmp_path: Path) -> None:
    network = Testnet(tmp_path / "base", tor=tmp_path / "tor", cache=tmp_path / "cache")
    with pytest.raises(MissingError, match="Apt install tor"):
        network.prepare(lambda _line: None)


# The others begin with what the first of these has kept.
VOTES = pytest.mark.alone("authorities vote by the clock: one that is held up misses it")


@VOTES
def test_a_second_network_at_the_same_time(  # noqa: PLR0917 - each a fixture
    testnet: Any,
    cache: Path,
    tmp_path: Path,
    drive: Any,
    launcher: Launcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its ports are taken, so it is made anew; the first vote comes too early for its relays."""
    monkeypatch.setattr(founding, "_LEADS_SECONDS", (0.2, 5.0, 10.0))
    said: list[str] = []
    network = Testnet(tmp_path / "base", cache=cache)
    drive(network.start(launcher, drive.reactor, said.append, is_alive=launcher.is_alive), 200)
    assert "in use" in said[0]
    assert any("trying again" in line for line in said), said
    assert not network.is_restored
    ports = {relay.or_port for relay in network.relays}
    assert not ports & {relay.or_port for relay in testnet.relays}
    launcher.processes.stop()
    network.close()

    # What is kept now can be used at once, elsewhere.
    again = Testnet(tmp_path / "elsewhere", cache=cache)
    before = time.monotonic()
    drive(again.start(launcher, drive.reactor, said.append, is_alive=launcher.is_alive))
    assert again.is_restored
    assert time.monotonic() - before < 20
    assert {relay.or_port for relay in again.relays} == ports
    launcher.processes.stop()
    again.close()


@VOTES
def test_a_consensus_that_is_not_fresh_is_voted_again(
    cache: Path, tmp_path: Path, drive: Any, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRESH_SECONDS", INTERVAL_SECONDS + 1)
    said: list[str] = []
    network = Testnet(tmp_path / "base", cache=cache)
    before = time.time()
    drive(network.start(launcher, drive.reactor, said.append, is_alive=launcher.is_alive), 200)
    assert network.is_restored, said
    assert founding.consensus_unix_ts(network.relays[-1]) > before
    launcher.processes.stop()
    network.close()

    # The newer state is kept, with the keys' age.
    monkeypatch.undo()
    again = Testnet(tmp_path / "again", cache=cache)
    again.prepare(said.append)
    assert again.is_restored
    assert founding.consensus_unix_ts(again.relays[-1]) > before
    assert 0 < again._made_unix_ts < before
    again.close()


@VOTES
def test_a_restored_network_that_does_not_come_up_is_made_anew(
    cache: Path, tmp_path: Path, drive: Any, launcher: Launcher, was_made: list[str]
) -> None:
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    path = _manifest(copy)
    # Whole by its digests, and of no use to tor.
    (path.parent / "authority0" / "keys" / "authority_certificate").write_bytes(b"")
    document = jsonio.loads(path.read_bytes())
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    document["sha256"]["authority0/keys/authority_certificate"] = empty
    path.write_bytes(jsonio.canonical(document))
    said: list[str] = []
    network = Testnet(tmp_path / "base", cache=copy)
    with pytest.raises(MeasurementError, match="only pretended"):
        drive(network.start(launcher, drive.reactor, said.append, is_alive=launcher.is_alive))
    assert was_made == ["made"]
    assert launcher.stops == 1
    assert any("testnet relay authority0" in line and "making a new one" in line for line in said)
    network.close()


# ---- interrupted ----------------------------------------------------------------------------


def test_cancelled_while_it_is_made(
    tmp_path: Path, drive: Any, launcher: Launcher, require: Callable[..., None]
) -> None:
    require("tor", "tor-gencert")
    said: list[str] = []
    base = tmp_path / "base"
    network = Testnet(base, cache=tmp_path / "cache")
    starting = ensureDeferred(network.start(launcher, drive.reactor, said.append))
    outcome: list[Any] = []
    starting.addErrback(outcome.append)
    deadline = time.monotonic() + 60
    while not any("voting" in line for line in said):
        assert time.monotonic() < deadline, said
        drive.reactor.iterate(0.01)
    starting.cancel()
    assert outcome[0].check(CancelledError)
    _wait_until_none_is_left(base)
    network.close()
    assert launcher.launched == []
    assert list((tmp_path / "cache").glob("testnet/*/0")) == []


def test_killed_while_it_is_made(
    tmp_path: Path, was_made: list[str], require: Callable[..., None]
) -> None:
    require("tor", "tor-gencert")
    code = (
        "import sys; from pathlib import Path\n"
        "from perfmeasure.tor.testnet import Testnet\n"
        "network = Testnet(Path(sys.argv[1]), cache=Path(sys.argv[2]))\n"
        "network.prepare(lambda line: print(line, flush=True))\n"
    )
    base, cache = tmp_path / "base", tmp_path / "cache"
    argv = [sys.executable, "-c", code, str(base), str(cache)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        assert any("voting" in line for line in harness.stdout)
        harness.send_signal(signal.SIGKILL)
    _wait_until_none_is_left(base)
    assert "not there" in _prepare(base, cache)[0]
    assert was_made == ["made"]
