"""perfmeasure.tor.reader against a port that acts, and a thread that reads."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from perfmeasure.clock import ClockPair
from perfmeasure.errors import ControlError, UsageError
from perfmeasure.tor.control import ControlAddress
from perfmeasure.tor.eventlog import EventLog
from perfmeasure.tor.reader import DEFAULT_EVENTS, MonitorConfig, Reader, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class MemorySink:
    """A log in memory."""

    def __init__(self) -> None:
        self.content = b""
        self.asked_to_rotate = 0

    def write(self, entry: bytes, unix_ts: float) -> None:  # noqa: ARG002 - as a log's
        self.content += entry

    def rotate_if_due(self, now: float) -> None:  # noqa: ARG002 - as a log's
        self.asked_to_rotate += 1

    def close(self) -> None:
        pass


class Run:
    """A reader in a thread."""

    def __init__(self, config: MonitorConfig) -> None:
        self.sink = MemorySink()
        self.reports: list[str] = []
        self.stop = Stop()
        self.problem: BaseException | None = None
        log = EventLog(self.sink, self.reports.append)
        self._reader = Reader(config, log, self.reports.append, self.stop)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._reader.run()
        except BaseException as problem:  # noqa: BLE001 - handed to the test
            self.problem = problem

    def end(self) -> None:
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def texts(self) -> list[str]:
        """What stands after the stamps."""
        lines = self.sink.content.decode().splitlines()
        return [re.sub(r"^\S+ \S+ \d+\.\d{6} ", "", line) for line in lines]


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Start a reader of a port."""
    runs = []

    def begin(port: int, *events: str, is_waiting: bool = False) -> Run:
        config = MonitorConfig(
            ControlAddress(port=port), events=events or ("BW",), nickname="phlox",
            is_waiting=is_waiting,
        )  # fmt: skip
        runs.append(Run(config))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()
        run.stop.close()


def test_the_default_events_are_lean() -> None:
    assert not {"CIRC_BW", "STREAM_BW", "CELL_STATS", "INFO", "DEBUG"} & set(DEFAULT_EVENTS)
    config = MonitorConfig(ControlAddress())
    assert config.events == DEFAULT_EVENTS
    assert "geheim" not in repr(replace(config, password="geheim"))


def test_what_stands_before_the_events(
    make_port: Callable[..., Any], start: Callable[..., Run], until: Callable[..., None]
) -> None:
    refusal = b'552 Unrecognized event "TB_EMPTY"\r\n'
    port = make_port(
        {
            "SETEVENTS BW TB_EMPTY": refusal,
            # An event may come as soon as it was asked for.
            "SETEVENTS BW": b"250 OK\r\n650 BW 1 2\r\n",
        }
    )
    run = start(port.port, "BW", "TB_EMPTY", "CIRC")
    until(lambda: "SETEVENTS BW CIRC" in port.commands, "the last event asked for")
    asked = [command for command in port.commands if command.startswith("SETEVENTS")]
    assert asked == ["SETEVENTS BW", "SETEVENTS BW TB_EMPTY", "SETEVENTS BW CIRC"]
    run.end()
    first, phase, clock, event, warning, *rest = run.texts
    assert first == (
        "Starting torctl program on host phlox using Tor version 0.4.9.11 status=recommended"
    )
    assert phase == 'NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"'
    assert re.fullmatch(r"\[CLOCK\] utc_ns=\d+ monotonic_ns=\d+ reason=start", clock)
    assert event == "650 BW 1 2"
    assert warning == "[WARNING] event TB_EMPTY is recognized by perfmeasure but not by tor"
    assert rest == ["650 BW 1 2"] * (len(asked) - 2)


def test_30000_recorded_events_are_all_there(
    make_port: Callable[..., Any], start: Callable[..., Run], until: Callable[..., None],
    recorded: list[bytes],
) -> None:  # fmt: skip
    port = make_port()
    run = start(port.port)
    until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
    # About ORCONN the reader asks back, and this port would answer amid an event.
    events = [event for event in recorded if b" ORCONN " not in event]
    flood = (events * (30_000 // len(events) + 1))[:30_000]
    stream = b"".join(flood)
    for place in range(0, len(stream), 7919):  # no chunk ends where a message does
        port.send(stream[place : place + 7919])
    until(lambda: run.sink.content.count(b" 650") >= 30_000, "the events")
    run.end()
    head, written = re.split(rb"(?<=reason=start\n)", run.sink.content, maxsplit=1)
    assert head.count(b"\n") == 3
    written = re.sub(rb"(?m)^2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d \d{10}\.\d{6} (?=650)", b"", written)
    assert written == stream
    assert run.reports == []


def test_relays_are_noted_with_their_addresses(
    make_port: Callable[..., Any], start: Callable[..., Run], until: Callable[..., None]
) -> None:
    first, second = "A" * 40, "B" * 40
    entry = "r {} AAAA BBBB 2038-01-01 00:00:00 127.0.0.{} 5000 0\r\ns Guard\r\n"

    def answer(fingerprint: str, name: str, number: int) -> bytes:
        return f"250+ns/id/{fingerprint}=\r\n{entry.format(name, number)}.\r\n250 OK\r\n".encode()

    status = f"250-orconn-status=${first}~one CONNECTED\r\n250 OK\r\n"
    port = make_port(
        {
            "GETINFO orconn-status": status.encode(),
            f"GETINFO ns/id/{first}": answer(first, "one", 1),
            f"GETINFO ns/id/{second}": answer(second, "two", 2),
        }
    )
    run = start(port.port)
    until(lambda: f"[RELAY] ${first}~one 127.0.0.1:5000" in run.texts, "the first relay")
    port.send(f"650 ORCONN ${second}~two LAUNCHED ID=4\r\n".encode())
    until(lambda: f"[RELAY] ${second}~two 127.0.0.2:5000" in run.texts, "the second relay")


def test_a_stop_takes_what_has_come_and_the_rest_of_a_message(
    make_port: Callable[..., Any], start: Callable[..., Run], until: Callable[..., None]
) -> None:
    port = make_port()
    run = start(port.port)
    until(lambda: "SETEVENTS BW" in port.commands, "the subscription")
    until(lambda: "reason=start" in run.texts[-1], "the first lines")
    port.send(b"650 BW 1 1\r\n" * 5000 + b"650+NS\r\nr x\r\n")
    run.stop.set()
    time.sleep(0.1)
    port.send(b".\r\n650 OK\r\n")
    run.end()
    assert run.sink.content.count(b"650 BW 1 1\r\n") == 5000
    assert run.sink.content.endswith(b" 650+NS\r\nr x\r\n.\r\n650 OK\r\n")


def test_a_lost_connection_leaves_a_marked_gap(
    make_port: Callable[..., Any], start: Callable[..., Run], until: Callable[..., None]
) -> None:
    port = make_port()
    run = start(port.port)
    for count in (1, 2, 3):
        until(lambda count=count: port.commands.count("SETEVENTS BW") == count, "subscription")
        port.send(b"650 BW 7 7\r\n650+NS\r\nhalf")
        until(lambda count=count: run.texts.count("650 BW 7 7") == count, "the event")
        port.hang_up()
    until(lambda: port.commands.count("SETEVENTS BW") == 4, "the last subscription")
    run.end()
    texts = [text for text in run.texts if not text.startswith(("[CLOCK]", "NOTICE"))]
    assert len(texts) == 1 + 3 * 4
    for lost, back, starting, event in zip(
        texts[2::4], texts[3::4], texts[4::4], [*texts[5::4], texts[1]], strict=True
    ):
        assert lost == (
            "[GAP] control connection lost: connection closed by the other side; "
            "12 bytes of an unfinished message dropped"
        )
        assert re.fullmatch(r"\[GAP\] control connection back after 0\.\d{6} seconds", back)
        assert starting.startswith("Starting torctl program on host phlox")
        assert event == "650 BW 7 7"
    assert [text for text in run.texts if text.startswith("[CLOCK]")] == [
        text for text in run.texts if text.endswith("reason=start")
    ]
    assert len(run.reports) == 6


def test_the_pace_of_trying_is_bounded_and_a_stop_ends_it(
    start: Callable[..., Run], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(Reader, "_wait", lambda _self, seconds: pauses.append(seconds))
    run = start(1, is_waiting=True)
    until(lambda: len(pauses) > 50, "fifty trials")
    run.end()
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert set(pauses[6:]) == {1.0}
    assert len(run.reports) == 1  # the same reason is given once
    assert "Connection refused" in run.reports[0]
    assert run.problem is None


def test_a_first_failure_ends_a_reader_that_does_not_wait(
    start: Callable[..., Run], until: Callable[..., None]
) -> None:
    run = start(1)
    until(lambda: run.problem, "the error")
    assert isinstance(run.problem, ControlError)
    assert run.sink.content == b""


def test_a_tor_that_knows_no_event_is_an_error(
    make_port: Callable[..., Any], start: Callable[..., Run], until: Callable[..., None]
) -> None:
    run = start(make_port({"SETEVENTS": b"552 Unrecognized\r\n"}).port, "A", "B", is_waiting=True)
    until(lambda: run.problem, "the error")
    assert isinstance(run.problem, UsageError)
    assert "knows none of A, B" in str(run.problem)


def test_the_clock_and_the_rotation_go_on_while_tor_is_silent_or_gone(
    make_port: Callable[..., Any], start: Callable[..., Run], until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("perfmeasure.tor.reader._TICK_SECONDS", 0.01)
    monkeypatch.setattr("perfmeasure.tor.reader._LONGEST_PAUSE_SECONDS", 0.05)
    monotonic = iter(range(0, 10**15, 30 * 10**9))
    step_at = 9

    def read_pair() -> ClockPair:
        now = next(monotonic)
        number = now // (30 * 10**9)
        return ClockPair(1_795_305_600 * 10**9 + now + (number >= step_at) * 10**9, now)

    monkeypatch.setattr("perfmeasure.tor.reader.read_pair", read_pair)
    port = make_port()
    run = start(port.port)
    until(lambda: run.texts and "reason=minute" in run.texts[-1], "a silent minute")
    port.close()
    until(lambda: "reason=step" in run.sink.content.decode(), "a step in the gap")
    until(lambda: "reason=minute" in run.texts[-1], "a minute in the gap")
    run.end()
    reasons = re.findall(r"reason=(\w+)", run.sink.content.decode())
    assert reasons[:7] == ["start", "minute", "minute", "minute", "minute", "step", "minute"]
    assert run.sink.asked_to_rotate >= 12
