"""``perfmeasure serve``: a docroot over HTTP until interrupted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from perfmeasure.web.server import DEFAULT_INTERFACE, DEFAULT_PORT, docroot_service, global_reactor


@click.command("serve")
@click.argument("docroot", type=click.Path(path_type=Path))
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    envvar="PERFMEASURE_HTTP_PORT",
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--http-bind",
    "--bind",
    default=DEFAULT_INTERFACE,
    show_default=True,
    metavar="ADDRESS",
    envvar="PERFMEASURE_HTTP_BIND",
    help="Address to listen on; 0.0.0.0 shows the folder to the network.",
)
def serve_command(docroot: Path, http_port: int, http_bind: str) -> int:
    """Serve the databases and the page in DOCROOT over HTTP until interrupted.

    Only files with public names are served, and never one outside DOCROOT.
    """
    _show_twisted_errors()
    service = docroot_service(
        docroot, http_port, http_bind, on_error=lambda line: click.echo(f"serve: {line}", err=True)
    )
    service.privilegedStartService()
    service.startService()
    click.echo(f"serving {docroot} at {service.url} (Ctrl-C stops)", err=True)
    reactor = global_reactor()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0


def _show_twisted_errors() -> None:
    """Print what Twisted itself reports as errors; without an observer it would keep silent."""
    errors_only: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.error)
    on_stderr: Any = textFileLogObserver(sys.stderr)
    observer: Any = FilteringLogObserver(on_stderr, [errors_only])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
