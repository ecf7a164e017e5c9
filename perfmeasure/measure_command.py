"""``perfmeasure measure``: its options, from the file, the environment and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from perfmeasure.config import Flows, MeasureConfig, Network, load_toml
from perfmeasure.logfile import DAY_SECONDS
from perfmeasure.units import parse_bytes, parse_seconds

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _named(param: click.Parameter | None) -> str:
    """Return how the user calls an option."""
    return max(param.opts, key=len) if param is not None else "option"


class _Seconds(click.ParamType[float]):
    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        del ctx
        return parse_seconds(str(value), _named(param))


class _Bytes(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        del ctx
        return parse_bytes(str(value), _named(param))


def _read_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Make the file's settings the defaults of the other options."""
    if value is not None:
        names = {
            option.removeprefix("--").replace("-", "_"): other.name
            for other in ctx.command.params
            for option in other.opts
            if option.startswith("--") and other.name not in (param.name, "dry_run", None)
        }
        ctx.default_map = load_toml(value, {k: v for k, v in names.items() if v is not None})


def _option(*names: str, **attributes: Any) -> Callable[[_Command], _Command]:
    long = next(name for name in names if name.startswith("--"))
    variable = "PERFMEASURE_" + long[2:].replace("-", "_").upper()
    attributes.setdefault("show_default", True)
    return click.option(*names, envvar=variable, **attributes)


_PORT = click.IntRange(0, 65535)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


# fmt: off
@click.command("measure")
@click.option(
    "--config",
    type=_FILE,
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file that sets any of the options below, such as num_transfers = 5.",
)
@_option(
    "--network",
    type=click.Choice([str(network) for network in Network]),
    default="public",
    help="The real Tor network, or a private one on loopback, made and run here.",
)
@_option("-p", "--prefix", type=click.Path(path_type=Path), default="perfmeasure-data",
         help="Folder for logs, databases and the docroot.")
@_option("-k", "--key-prefix", type=click.Path(path_type=Path),
         help="Folder of the onion key and control cookies.  [default: PREFIX/private]")
@_option("-n", "--nickname", default="", show_default="short host name",
         help="Name of this host in the database.")
@_option("--num-transfers", "--tgen-num-transfers", type=click.IntRange(0), default=0,
         show_default="for ever",
         help="End after this many transfers for each kind of destination.")
@_option("-o", "--onion-only", is_flag=True, help="Only transfers to the onion service.")
@_option("-i", "--inet-only", is_flag=True, help="Only transfers through exits.")
@_option("-s", "--single-onion", is_flag=True,
         help="A single onion service: faster, and not anonymous.")
@_option("--tgen-transfer-size", "transfer_size_bytes", type=_Bytes(), default="5 MiB",
         help="Size of each transfer.")
@_option("--tgen-pause-initial", "pause_initial_seconds", type=_Seconds(),
         show_default="300 s, on the testnet 0", help="Pause before the first transfer.")
@_option("--tgen-pause-between", "pause_between_seconds", type=_Seconds(),
         show_default="300 s, on the testnet 1 s",
         help="Time from the start of a transfer to the start of the next.")
@_option("--tgen-connect-ip", "connect_ip", default="0.0.0.0", show_default="found out",  # noqa: S104
         help="Address at which exits reach this host.")
@_option("--tgen-connect-port", "connect_port", type=_PORT, show_default="the listen port",
         help="Port that exits and the onion service's clients connect to.")
@_option("--tgen-listen-port", "listen_port", type=_PORT, default=8080,
         help="Port that the tgen server listens on; 0 takes a free one.")
@_option("--tor", type=click.Path(), help="The tor program.  [default: tor on PATH]")
@_option("--tgen", type=click.Path(),
         help="The tgen program.  [default: tgen on PATH, else the built-in generator]")
@_option("--drop-guards", "drop_guards_hours", type=click.FloatRange(0), default=0.0,
         show_default="guards are not used", metavar="HOURS",
         help="Use guards, and drop them and the learned timeouts every so many hours.")
@_option("--exclude-cbt", is_flag=True,
         help="In OnionPerf's database, mark circuits of no learned build timeout as filtered out.")
@_option("--additional-client-conf", default="", metavar="TORRC_LINES",
         help=r"Lines for the client's torrc; a literal \n starts a new one.")
@_option("--torclient-conf-file", type=_FILE, help="File appended to the client's torrc.")
@_option("--torserver-conf-file", type=_FILE, help="File appended to the onion host's torrc.")
@_option("--events", multiple=True, metavar="EVENT",
         help="Also log this event of tor's control port, such as CIRC_BW; repeatable.")
@_option("--flows", type=click.Choice([str(choice) for choice in Flows]), default="auto",
         help="Record what the kernel sees of each connection and packet; auto does if it can.")
@_option("--record", metavar="IFACE|auto|off", default="auto",
         help="Record packets; auto does if it can, on loopback for the testnet, else on the "
         "interface of the default route.")
@_option("--record-cutoff", metavar="SIZE|none", default="15 KB",
         help="Keep the packets of a connection that begin below this size.")
@_option("--record-budget", metavar="SIZE", default="1 GiB",
         help="Disk space for packets; the oldest are dropped for new ones.")
@_option("--publish-packets", is_flag=True,
         help="Publish the packets of each transfer: addresses and payload of the measurement's "
         "own connections. In as much disk space again as --record-budget.")
@_option("--stop-at", metavar="REGEX",
         help="Stop when a line of the tgen client's or tor client's log matches.")
@_option("--rotate-every", "rotate_every_seconds", type=_Seconds(), default=DAY_SECONDS,
         show_default="1 day", help="Rotate the logs this often, counted from midnight UTC.")
@_option(
    "--http-port", type=_PORT, default=8081, help="Port of the web server; 0 takes a free one."
)
@_option("--http-bind", default="127.0.0.1", metavar="ADDRESS",
         help="Address that the web server listens on.")
@_option("--keep-serving", is_flag=True,
         help="After the last transfer, serve the results until interrupted.")
@click.option("--dry-run", is_flag=True,
              help="Print the plan, the torrc files and the traffic models; start nothing.")
def measure_command(dry_run: bool, **settings: Any) -> int:
    """Drive transfers through Tor, log what happens, publish a database over HTTP.

    Runs until interrupted, or until --num-transfers have ended for each kind of destination: by
    exit and by onion service, or one of them. Then it stops, analyses, publishes and prints a
    summary. Every option may also be set in the --config file (num_transfers = 5) or in the
    environment (PERFMEASURE_NUM_TRANSFERS=5); the command line wins over both.

    Exits with 0 when a transfer succeeded, 1 when none did or the measurement failed, 2 when the
    options are wrong, 3 when this machine lacks a program.
    """
    rotate = round(settings.pop("rotate_every_seconds"))
    if not 1 <= rotate <= DAY_SECONDS:
        raise click.BadParameter("wanted 1 second to 1 day", param_hint="--rotate-every")
    config = MeasureConfig(
        **settings
        | {
            "network": Network(settings["network"]),
            "flows": Flows(settings["flows"]),
            "rotate_every_seconds": rotate,
        }
    )
    # Twisted and all that runs on it are only needed from here on.
    from perfmeasure import measurement, plan  # noqa: PLC0415

    if dry_run:
        click.echo(plan.describe(config))
        return 0
    return int(measurement.run(config))
