"""The command line: one function a command, no logic; each command lives beside what it runs."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from perfmeasure import __version__
from perfmeasure.errors import ExitStatus, PerfmeasureError

_COMMANDS = {
    "measure": "perfmeasure.measure_command:measure_command",
    "analyze": "perfmeasure.analysis.commands:analyze_command",
    "filter": "perfmeasure.analysis.conversion:filter_command",
    "convert": "perfmeasure.analysis.conversion:convert_command",
    "validate": "perfmeasure.analysis.commands:validate_command",
    "monitor": "perfmeasure.tor.monitor:monitor_command",
    "flows": "perfmeasure.flows.commands:flows_command",
    "record": "perfmeasure.recorder.commands:record_command",
    "console": "perfmeasure.recorder.terminal:console_command",
    "query": "perfmeasure.recorder.commands:query_command",
    "topology": "perfmeasure.topology.commands:topology_command",
    "serve": "perfmeasure.web.commands:serve_command",
    "doctor": "perfmeasure.doctor:doctor_command",
}


class _LazyGroup(click.Group):
    """Imports a command's module only when the command is used: ``--version`` stays instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="perfmeasure")
def cli() -> None:
    """Measure how a network performs for its users, Tor first, and say where the time went."""


def main() -> None:
    """Run the command line and exit with one of ``ExitStatus``."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str], command: click.Command = cli) -> int:
    """Run a command and return its exit status; every error becomes one message on stderr."""
    try:
        status: Any = command.main(arguments, prog_name="perfmeasure", standalone_mode=False)
    except PerfmeasureError as error:
        click.echo(f"perfmeasure: {error}", err=True)
        return error.exit_status
    except click.ClickException as error:
        error.show()
        return ExitStatus.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("perfmeasure: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): what it wanted, it has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    except Exception as error:
        if os.environ.get("PERFMEASURE_DEBUG"):
            raise
        click.echo(
            f"perfmeasure: a defect of perfmeasure itself: {type(error).__name__}: {error}. "
            "Set PERFMEASURE_DEBUG=1 for the traceback and report it, please",
            err=True,
        )
        return ExitStatus.FAILED
    return status if isinstance(status, int) else ExitStatus.DONE
