"""``twistd perfmeasure DOCROOT``: the docroot's server under Twisted's own daemon."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from twisted.python import usage

from perfmeasure.errors import PerfmeasureError
from perfmeasure.web.connections import Limits
from perfmeasure.web.server import (
    DEFAULT_INTERFACE,
    DEFAULT_PORT,
    DocrootService,
    check_docroot,
    check_interface,
    global_reactor,
)

_log = Logger()


class Options(usage.Options):
    """The options of ``perfmeasure serve``, in Twisted's form."""

    synopsis = "[options] DOCROOT"
    optParameters = [  # noqa: RUF012 - Twisted's interface
        ["http-port", "p", DEFAULT_PORT, "Port to listen on; 0 takes a free one.", int],
        ["http-bind", "b", DEFAULT_INTERFACE, "Address to listen on."],
    ]

    def parseArgs(self, docroot: str) -> None:  # type: ignore[override]  # one argument is its way
        """Take the folder to serve."""
        self["docroot"] = Path(docroot)

    def postOptions(self) -> None:
        """Refuse what cannot be served before anything starts."""
        if not 0 <= self["http-port"] <= 65535:
            raise usage.UsageError("--http-port is a number from 0 to 65535")
        try:
            check_docroot(self["docroot"])
            check_interface(self["http-bind"])
        except PerfmeasureError as error:
            raise usage.UsageError(str(error)) from error


class _ExplainedService(DocrootService):
    """A service whose failure to start ends ``twistd`` with one message instead of a traceback."""

    def privilegedStartService(self) -> None:
        """Listen, or end the process with the reason."""
        try:
            super().privilegedStartService()
        except PerfmeasureError as error:
            sys.exit(f"perfmeasure: {error}")


def makeService(options: Any) -> DocrootService:
    """Return the service that ``twistd`` is to run."""
    return _ExplainedService(
        options["docroot"],
        options["http-port"],
        options["http-bind"],
        limits=Limits(),
        on_error=lambda line: _log.error("{line}", line=line),
        reactor=global_reactor(),
    )
