"""The first answer of a fresh onion service, which often cannot be reached at the first try.

Trying is the harness's work; what is measured is the service as its users meet it afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.task import deferLater

from perfmeasure.errors import MeasurementError, PerfmeasureError
from perfmeasure.plan import LOOPBACK, Plan
from perfmeasure.progress import Progress
from perfmeasure.tgen.probe import probe
from perfmeasure.tor.client import TorController

_UPLOAD_LIMIT_SECONDS = 180.0
_ANSWER_LIMIT_SECONDS = 90.0
_PAUSE_SECONDS = 0.5


async def first_answer(
    plan: Plan,
    host: TorController,
    *,
    drop_guards: Callable[[], Awaitable[None]],
    reactor: Any,
    progress: Progress,
) -> str:
    """Wait until the onion service answers, and return its address.

    Args:
        plan: of the measurement, with an onion service.
        host: the connection to the tor of the onion host.
        drop_guards: has both tors choose guards anew, where guards are used.
        reactor: Twisted's reactor.
        progress: where people see how far it is.

    Raises:
        ControlError: the descriptor was not uploaded in time.
        MeasurementError: it did not answer in time.
    """
    assert plan.onion is not None  # noqa: S101 - for the type checker
    progress.phase("onion service")
    address = plan.onion.address()
    progress.update("waiting for its descriptor's upload")
    count = await host.wait_descriptor_uploaded(address, limit_seconds=_UPLOAD_LIMIT_SECONDS)
    progress.update(f"descriptor on {count} directories; waiting for a first answer")
    deadline = reactor.seconds() + _ANSWER_LIMIT_SECONDS
    tries = 0
    while True:
        tries += 1
        try:
            seconds = await probe(reactor, LOOPBACK, plan.socks_port, address, plan.connect_port)
        except PerfmeasureError as error:
            if reactor.seconds() >= deadline:
                raise MeasurementError(
                    "onion service",
                    f"no answer in {_ANSWER_LIMIT_SECONDS:.0f} s and {tries} tries; "
                    f"the last: {error}",
                    "",
                    "look at the logs in tor-client/ and tor-server/",
                ) from error
            progress.update(f"try {tries} failed ({error.got}); trying again")
            if plan.config.drop_guards_hours:
                await drop_guards()  # in a small network one may not fit the service
            await deferLater(reactor, _PAUSE_SECONDS)
        else:
            progress.done(f"answers in {seconds:.2f} s, at try {tries}")
            return address
