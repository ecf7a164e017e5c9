"""``perfmeasure record`` and ``perfmeasure query``."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from perfmeasure import jsonio
from perfmeasure.errors import UsageError
from perfmeasure.recorder.absence import PACKETS
from perfmeasure.recorder.answer import write_answer, write_pcap
from perfmeasure.recorder.catalogue import Resolver
from perfmeasure.recorder.comments import Comments
from perfmeasure.recorder.configuration import read_setup, setup_of_options
from perfmeasure.recorder.expression import parse
from perfmeasure.recorder.lines import json_lines, text_lines
from perfmeasure.recorder.recorder import Recorder
from perfmeasure.recorder.server import ConsoleServer
from perfmeasure.recorder.store import Counts, Store


@click.command("record")
@click.option(
    "-i", "--interface", metavar="IFACE", help="Record what passes this interface, until stopped.",
)  # fmt: skip
@click.option(
    "-r", "--read", "files", type=click.Path(path_type=Path), multiple=True,
    metavar="FILE", help="Read this capture file, pcap or pcapng; may be given several times.",
)  # fmt: skip
@click.option(
    "--store", type=click.Path(path_type=Path), required=True, metavar="DIR",
    help="Where the packets are kept; made if it is not there.",
)  # fmt: skip
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE",
    help="Classes and all other options, in TOML, or the original Time Machine's file.",
)  # fmt: skip
@click.option(
    "-f", "--filter", "expression", metavar="EXPRESSION",
    help="Take only packets that match, in pcap's language.",
)  # fmt: skip
@click.option(
    "--cutoff", metavar="SIZE",
    help="Keep the packets of a connection, both directions together, that begin below this size, "
    "such as 15 KB.",
)  # fmt: skip
@click.option(
    "--connection-timeout", metavar="TIME",
    help="A connection has ended when it was idle for longer, 30 min by default; 0 for never.",
)  # fmt: skip
@click.option(
    "--end-by-flags/--no-end-by-flags", default=None,
    help="A SYN after RST, or after FIN both ways, begins a new connection; by default it does.",
)  # fmt: skip
@click.option(
    "--segment-size", metavar="SIZE",
    help="Size at which a new file is begun, 256 MiB by default.",
)  # fmt: skip
@click.option(
    "--segment-time", metavar="TIME",
    help="Time, by the packets' clock, after which a new file is begun, 10 min by default.",
)  # fmt: skip
@click.option(
    "--budget", metavar="SIZE",
    help="Disk space of packets and indexes; the oldest files are dropped for new ones.",
)  # fmt: skip
def record_command(
    *, interface: str | None, files: tuple[Path, ...], store: Path, config: Path | None,
    expression: str | None, **options: str | bool | None,
) -> None:  # fmt: skip
    """Record packets: store and index them, so that `perfmeasure query` finds them.

    While it records with -i, it takes the commands of `perfmeasure console`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if config is not None and given:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError("--config", f"given together with {names}", "either")
    setup = read_setup(config) if config is not None else setup_of_options(given)
    if expression is not None:
        setup = dataclasses.replace(setup, filter=expression)
    interface = interface or (None if files else setup.interface)
    if bool(files) == bool(interface):
        raise UsageError(
            "perfmeasure record", "both -i and -r" if files else "no source", "either -i or -r"
        )

    def tell(text: str) -> None:
        click.echo(f"perfmeasure: {text}", err=True)

    recorder = Recorder(store, setup, tell)
    try:
        if interface:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: recorder.stop())
            with ConsoleServer(recorder, setup.console_port, tell):
                recorder.capture(interface)
        else:
            recorder.read(files)
    finally:
        recorder.close()
    click.echo(recorder.summary())


def store_folder(store: Path | None, prefix: Path | None) -> Path:
    """Return the folder of a store from the options ``--store`` and ``--prefix``.

    Raises:
        UsageError: both or none is given.
    """
    if (store is None) == (prefix is None):
        got = "neither is given" if store is None else "both are given"
        raise UsageError("--store, --prefix", got, "one of them")
    return store if store is not None else Path(prefix or "") / PACKETS


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options ``--store`` and ``--prefix``, which `store_folder` reads."""
    for option in (
        click.option(
            "--prefix", type=click.Path(path_type=Path), metavar="DIR",
            help="Data directory of a measurement that recorded packets.",
        ),
        click.option(
            "--store", type=click.Path(path_type=Path), metavar="DIR",
            help="What perfmeasure record wrote, or is writing.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("query")
@click.argument("expression", nargs=-1, required=True)
@store_options
@click.option(
    "-w", "--write", "out", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the packets to this file: pcapng if it ends in .pcapng, else pcap; - is standard "
    "output.",
)  # fmt: skip
@click.option("--count", "is_count", is_flag=True, help="Only count the packets.")
@click.option(
    "--json", "is_json", is_flag=True,
    help="Print an object a packet; with --count or -w, one with the counts.",
)  # fmt: skip
def query_command(
    *, expression: tuple[str, ...], store: Path | None, prefix: Path | None, out: Path | None,
    is_count: bool, is_json: bool,
) -> None:  # fmt: skip
    """Find packets in a store by EXPRESSION: print them, count them or write them to a file.

    \b
    host ADDRESS   net ADDRESS/BITS   port NUMBER      each also after src or dst
    proto NAME     vlan [NUMBER]      conn tcp ADDRESS:PORT ADDRESS:PORT
    transfer ID    circuit ID
    after TIME     before TIME        last DURATION
    not X   X and Y   X or Y   ( X )

    A TIME is Unix seconds, a date such as 2026-01-31T12:00:00Z, or "5m ago".
    """  # noqa: D301 - click's mark for lines that are kept
    begun = time.perf_counter()
    if out is not None and is_count:
        raise UsageError("--count", "given together with -w", "one of them")
    asked = Store(store_folder(store, prefix))
    try:
        node = parse(" ".join(expression), Resolver(asked.catalogue))
        counts = Counts()
        if is_count:
            counts = asked.count(node)
        elif out is None:
            for line in (json_lines if is_json else text_lines)(asked.packets(node, counts)):
                click.echo(line)
        elif str(out) == "-":
            write_pcap(asked.packets(node, counts), sys.stdout.buffer)
        else:
            with Comments(asked.folder) as comments:
                write_answer(asked.packets(node, counts), out, comments)
    finally:
        asked.close()
    seconds = time.perf_counter() - begun
    for problem in asked.problems:
        click.echo(f"perfmeasure: {problem}", err=True)
    if counts.drops:
        click.echo(
            f"perfmeasure: while these segments were recorded {counts.drops} packets were lost: "
            "the answer may have gaps",
            err=True,
        )
    if out is None and not is_count:
        return
    text = f"{counts.packets} packets, {counts.bytes} bytes, {seconds:.3f} s"
    if is_json:
        figures = {"packets": counts.packets, "bytes": counts.bytes, "seconds": round(seconds, 6)}
        text = jsonio.compact(figures)
    click.echo(text, err=str(out) == "-")
