"""docs/ and README.md against the command line. docs/cli.md is made here, by --update-golden."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import schema_page

from perfmeasure.cli import cli
from perfmeasure.errors import ExitStatus

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

HEAD = """# The command line

Made from the programs' own `--help` by `pytest tests/test_docs.py --update-golden`: change the help
there, not here. What a command's exit status means is in [exit-codes.md](exit-codes.md).
"""


def contexts(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[click.Context]:
    """Yield the context of ``command`` and of every command below it."""
    # A copy: click keeps in a command the help option of whoever called it first, and other
    # tests call commands without the group that gives them -h.
    command = copy.copy(command)
    command._help_option = None
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=100,
        max_content_width=100,
        **command.context_settings,
    )
    yield context
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            below = command.get_command(context, word)
            assert below is not None, f"{word} is listed and not there"
            yield from contexts(below, word, context)


@pytest.fixture(scope="module")
def tree() -> dict[str, click.Context]:
    """Every command by the words that call it."""
    return {context.command_path: context for context in contexts(cli, "perfmeasure")}


def test_the_reference_is_the_help_of_every_command(
    tree: dict[str, click.Context], golden: Callable[[str | Path, str], None]
) -> None:
    pages = [f"## {path}\n\n```text\n{context.get_help()}\n```\n" for path, context in tree.items()]
    golden(DOCS / "cli.md", "\n".join([HEAD, *pages]))


def test_every_command_and_option_has_a_help_text(tree: dict[str, click.Context]) -> None:
    for path, context in tree.items():
        assert context.command.help, path
        for parameter in context.command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.opts[0]}"
                assert parameter.help.endswith((".", "]")), f"{path} {parameter.opts[0]}"


def test_every_option_is_in_the_reference(tree: dict[str, click.Context]) -> None:
    """An option that help leaves out, being hidden, is one that nobody can find."""
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"(?ms)^## ([^\n]+)\n\n```text\n(.*?)^```$", page))
    assert sorted(sections) == sorted(tree)
    for path, context in tree.items():
        for parameter in context.command.params:
            for name in parameter.opts if isinstance(parameter, click.Option) else ():
                assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", sections[path]), name


def test_every_exit_status_is_explained_for_every_command(tree: dict[str, click.Context]) -> None:
    page = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    general, _, by_command = page.partition("What it means for each command")
    names = {
        int(number): name for number, name in re.findall(r"(?m)^\| (\d+) \| (.+?) \|", general)
    }
    for status in ExitStatus:
        assert names[status] == status.name.lower().replace("_", " ")
    rows = re.findall(r"(?m)^\| `(.+?)` \|", by_command)
    assert sorted(rows) == sorted(path.partition(" ")[2] for path in tree if " " in path)


def test_the_readme_shows_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_screen = "\n".join(readme.splitlines()[:50])
    assert "./run measure --network testnet --num-transfers 5 --keep-serving" in first_screen
    assert re.search(r"curl .*/latest\.json", first_screen)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
