from __future__ import annotations

import errno
import os
import subprocess
import sys

import click
import pytest

from perfmeasure import __version__, cli
from perfmeasure.errors import InputError, MissingError


def perfmeasure(*arguments: str, **kwargs: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perfmeasure", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **kwargs},
    )


def test_version_and_help() -> None:
    assert perfmeasure("--version").stdout.strip() == f"perfmeasure, version {__version__}"
    done = perfmeasure("-h")
    assert done.returncode == 0
    for name in cli._COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", list(cli._COMMANDS))
def test_every_command_is_there_and_has_help(name: str) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-command"], "No such command 'no-such-command'"),
        (["measure", "--no-such-option"], "No such option"),
        (["measure", "--num-transfers", "many"], "'many' is not a valid integer"),
        (["measure", "--onion-only", "--inet-only"], "both were given"),
    ],
)
def test_wrong_usage_is_status_2_and_one_clear_message(arguments: list[str], said: str) -> None:
    done = perfmeasure(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("a.log", "binary", "a log"), 4, "perfmeasure: a.log: binary; wanted a log"),
        (MissingError("tor", "not found", "", "apt install tor"), 3, "Apt install tor"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("x"), 1, "a defect of perfmeasure itself: ZeroDivisionError: x"),
        (click.UsageError("no"), 2, "no"),
        (OSError(errno.ENOSPC, "No space left"), 1, "cannot write: [Errno 28] No space left"),
    ],
)
def test_each_error_is_one_message_and_its_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    said: str,
) -> None:
    def fail(*_arguments: object, **_settings: object) -> None:
        raise error

    monkeypatch.delenv("PERFMEASURE_DEBUG", raising=False)
    monkeypatch.setattr(cli.cli, "main", fail)
    assert cli.run([]) == status
    assert said in capsys.readouterr().err


def test_a_command_says_its_status_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for returned, status in ((1, 1), (None, 0), (0, 0)):
        monkeypatch.setattr(cli.cli, "main", lambda *_a, returned=returned, **_k: returned)
        assert cli.run([]) == status


def test_the_version_is_quick_since_nothing_else_is_imported() -> None:
    code = "import sys; from perfmeasure import cli; cli.run(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"twisted", "networkx", "numpy", "lxml", "stem", "rich"}
