"""The built-in generator as a program: ``python -m perfmeasure.tgen GRAPHML``.

It does what TGen's program ``tgen GRAPHML`` does: reads the graph, serves, walks it as a client,
logs to standard output, and ends with status 0 when the graph ends or SIGTERM or SIGINT comes.
A graph that cannot be used: one message on standard error, and status 4.
"""

from __future__ import annotations

import gc
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol, cast

import twisted
from twisted.internet import reactor as twisted_reactor

from perfmeasure import __version__
from perfmeasure.errors import ExitStatus, PerfmeasureError
from perfmeasure.tgen.actions import load_actions
from perfmeasure.tgen.driver import Driver
from perfmeasure.tgen.logline import Log, place
from perfmeasure.tgen.protocol import safe_name
from perfmeasure.tgen.reactor import Reactor

_PLACE = place("main")
_HURRY_SECONDS = 2.0


class _MainLoop(Reactor, Protocol):
    """What only the program itself needs of the reactor (``IReactorCore``)."""

    seconds: Callable[[], float]

    def run(self, installSignalHandlers: bool = ...) -> None: ...

    def stop(self) -> None: ...

    def callFromThread(self, call: Callable[[], object], /) -> None: ...


def main(arguments: list[str]) -> int:
    """Run the graph named by the only argument and return the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m perfmeasure.tgen GRAPHML\n")
        return ExitStatus.USAGE
    log = Log()
    host = safe_name(socket.gethostname().partition(".")[0])
    log.message(
        _PLACE,
        f"Initializing perfmeasure-tgen v{__version__} running Python v{platform.python_version()}"
        f" and Twisted v{twisted.__version__} on host {host} with process id {os.getpid()}",
    )
    try:
        return _run(Path(arguments[0]), log)
    except PerfmeasureError as error:
        log.critical(_PLACE, str(error))
        sys.stderr.write(f"{error}\n")
        return error.exit_status


def _run(path: Path, log: Log) -> int:
    graph = load_actions(path)
    log.message(
        _PLACE,
        f"successfully loaded graphml file '{path}' and validated actions: graph is weakly"
        f" connected with 1 cluster, {len(graph.kinds)} {_plural(len(graph.kinds), 'vertex')},"
        f" and {graph.edge_count} {_plural(graph.edge_count, 'edge')}",
    )
    log.set_level(graph.start.log_level)
    reactor = cast("_MainLoop", twisted_reactor)
    # Twisted's own clock is UTC: a step of it would cut or stretch pauses and time limits.
    reactor.seconds = time.monotonic

    endings: list[None] = []

    def end() -> None:
        # The graph's end and a signal can come together, and a reactor stops only once.
        endings.append(None)
        if len(endings) == 1:
            driver.stop()
            reactor.stop()

    driver = Driver(reactor, graph, log, end)

    reasons: list[str] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        # No line from here: the handler may have interrupted one.
        log.hurry(_HURRY_SECONDS)
        reasons.append(f"ending on {signal.Signals(number).name}")
        reactor.callFromThread(end)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    failures: list[PerfmeasureError] = []

    def begin() -> None:
        try:
            driver.start()
        except PerfmeasureError as error:
            failures.append(error)
            end()

    reactor.callLater(0, begin)
    # What a stream leaves is freed by reference counts; what was made so far stays to the end.
    gc.collect()
    gc.freeze()
    log.message(_PLACE, "entering main loop to watch descriptors")
    reactor.run(installSignalHandlers=False)
    if failures:
        raise failures[0]
    for reason in reasons:
        log.message(_PLACE, reason)
    # Whoever keeps the log can tell from this that no line of it is missing.
    log.message(
        _PLACE, f"finished main loop, cleaning up; lines written before: {log.lines_written}"
    )
    log.message(_PLACE, "returning 0 from main")
    return ExitStatus.DONE


def _plural(count: int, noun: str) -> str:
    if count == 1:
        return noun
    return "vertices" if noun == "vertex" else f"{noun}s"
