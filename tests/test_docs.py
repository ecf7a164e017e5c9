"""docs/ and README.md against the command line and the schema.

docs/cli.md and docs/database.md are made here, by --update-golden.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from perfmeasure import jsonio
from perfmeasure.cli import cli
from perfmeasure.errors import ExitStatus
from tests import schema_page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

HEAD = """# The command line

Made from the programs' own `--help` by `pytest tests/test_docs.py --update-golden`: change the help
there, not here. What a command's exit status means is in [exit-codes.md](exit-codes.md).
"""

DATABASE_HEAD = """# The database, perfmeasure-1.0

Made from `schema/perfmeasure-1.0.schema.json` by `pytest tests/test_docs.py --update-golden`:
change the descriptions there, not here. How each field comes about is in
[formats.md](formats.md#the-database-perfmeasure-10).

What is unknown is absent, never null. Fields in bold are always there. `unix_ts` is Unix time in
seconds, UTC; `name → b` is an object that holds `b` by names or numbers; `.*.` stands for any of
them, `[]` for each of a list. The document itself:
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


def test_the_database_is_told_of_as_its_schema_says(
    golden: Callable[[str | Path, str], None],
) -> None:
    schema = jsonio.loads((ROOT / "schema" / "perfmeasure-1.0.schema.json").read_bytes())
    assert schema_page.undescribed(schema) == []
    assert set(schema["definitions"]) == set(schema_page.reading_order(schema)), "one is not used"
    golden(DOCS / "database.md", schema_page.page(schema, DATABASE_HEAD))


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


def test_tests_that_are_named_are_there() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (DOCS / "recorder.md").read_text())
    assert named
    for file, name in named:
        text = (ROOT / "tests/recorder" / file).read_text()
        assert f"def {name}(" in text, f"docs/recorder.md names {file}::{name}"


def command_lines(page: Path) -> Iterator[str]:
    """Yield what a page shows as typed into a shell."""
    for block in re.findall(r"(?ms)^```console\n(.*?)^```$", page.read_text(encoding="utf-8")):
        yield from re.findall(r"(?m)^\$ (.*)$", block.replace("\\\n", " "))


def mentions(page: Path) -> Iterator[str]:
    """Yield the code in the text that begins as a call; options may be without their values."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`((?:\./run|perfmeasure) [^`]+)`", text):
        yield " ".join(code.split())


def calls(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of perfmeasure in a line of a shell."""
    if not re.search(r"(^|\s)(\./run|perfmeasure) ", line):
        return
    shell = shlex.shlex(line, posix=True, punctuation_chars=True)
    shell.whitespace_split = True
    shell.commenters = "#"
    command: list[str] = []
    for word in [*shell, ";"]:
        if not set(word) <= set("();<>|&"):
            command.append(word)
            continue
        while command and (command[0] == "sudo" or re.match(r"[A-Z_]+=", command[0])):
            command.pop(0)
        if command and command[0] in {"./run", "perfmeasure"} and command[1:2] != ["test"]:
            yield command[1:]
        command = []


def test_lines_of_a_shell_are_taken_apart() -> None:
    assert list(calls("A=1 sudo ./run record -i lo | ./run query 'a b' >x  # and ./run more")) == [
        ["record", "-i", "lo"],
        ["query", "a b"],
    ]
    assert list(calls("./run test --long; curl x | tool ./run y")) == []


def unknown_in(arguments: list[str], kind: type[click.UsageError] = click.UsageError) -> str:
    """Return what of a call the command line does not have, or nothing."""
    context = click.Context(cli, info_name="perfmeasure")
    words = list(arguments)
    # Values are not looked at: they may be names of files, which are not here.
    try:
        while isinstance(group := context.command, click.Group):
            rest = group.parse_args(context, words)
            name, below, words = group.resolve_command(context, [*context._protected_args, *rest])
            assert below is not None
            context = click.Context(below, info_name=name, parent=context)
        context.command.make_parser(context).parse_args(words)
    except kind as error:
        return error.format_message()
    except click.UsageError:
        return ""
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_shown_exist(page: Path) -> None:
    for line in command_lines(page):
        for arguments in calls(line):
            assert not unknown_in(arguments), f"{line}: {unknown_in(arguments)}"
    for code in mentions(page):
        for arguments in calls(code):
            assert not unknown_in(arguments, click.NoSuchOption), code


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert unknown_in(["measure", "--nonsense", "5"])
    assert "mesure" in unknown_in(["mesure"])
    assert not unknown_in(["measure", "--num-transfers", "5", "--keep-serving"])


def test_the_tutorial_shows_commands() -> None:
    lines = list(command_lines(DOCS / "tutorial.md"))
    shown = {arguments[0] for line in lines for arguments in calls(line)}
    assert {"measure", "report", "query", "compare", "topology"} <= shown


UNITS = sorted((ROOT / "contrib").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_units_start_what_exists(unit: Path) -> None:
    [call] = re.findall(r"(?m)^ExecStart=\S+/perfmeasure (.*)$", unit.read_text(encoding="utf-8"))
    assert not unknown_in(shlex.split(call))
    assert f"`{unit.name}`" in (DOCS / "operating.md").read_text(encoding="utf-8")
