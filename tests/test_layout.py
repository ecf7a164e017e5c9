"""The rules of the house that no other tool checks. Each assertion's message says what to do."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SYMLINKED = ("analysis", "bpf", "docroot", "schema")
MAX_LINES = 400

# Tests that are about the whole tree, and so have no source file of their own.
HOUSE_TESTS = {
    "test_conftest.py": "what the other tests rely on",
    "test_docs.py": "docs/ against the command line",
    "analysis/test_mutations.py": "damaged logs of all kinds",
    "test_layout.py": "this file",
    "test_run.py": "the script ./run",
    "test_wheel.py": "what is built and installed",
    "web/test_page.py": "the page, in a browser",
}

# A plugin is nothing but a name for the module that it points to, whose test runs it.
TESTED_WITH = {"perfmeasure_plugin.py": "web/test_twistd.py"}

# What the analysis may use besides itself: it never imports what produces the logs.
SHARED = {"errors", "hostinfo", "jsonio", "progress", "units"}
NEVER_IN_ANALYSIS = ("twisted", "stem.control", "stem.process", "bcc")
# The only modules outside the analysis that may import it: the door, the publisher and the modules
# that hold nothing but commands.
SEES_BOTH_SIDES = re.compile(r"(cli|web/publisher|(\w+/)*(\w+_)?commands?)\.py")


def walk(folder: str) -> Iterator[Path]:
    """Yield the Python files under a folder of the root; symlinks are not entered."""
    for place, folders, names in os.walk(ROOT / folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if name.endswith(".py"):
                yield (Path(place) / name).relative_to(ROOT)


SOURCES = [*walk("perfmeasure"), *walk("analysis")]


def as_text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def where_tested(source: Path) -> Path:
    """Return where the tests of a source file are."""
    if source.name in TESTED_WITH:
        return Path("tests") / TESTED_WITH[source.name]
    inside = source.relative_to("perfmeasure") if source.parts[0] == "perfmeasure" else source
    return Path("tests") / inside.with_name(f"test_{inside.name}")


def imports_of(source: Path) -> set[str]:
    """Return the dotted names that a file imports; of `from a import b` both ``a`` and ``a.b``."""
    found = set()
    package = ("perfmeasure", *source.parts[:-1]) if source.parts[0] == "analysis" else source.parts
    for node in ast.walk(ast.parse(as_text(source))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def begins_with(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_every_source_file_has_its_test_file(source: Path) -> None:
    if source.name in {"__init__.py", "__main__.py"}:
        assert len(as_text(source).splitlines()) <= 20, f"{source} is for a docstring, not for code"
        return
    assert (ROOT / where_tested(source)).exists(), f"write {where_tested(source)}"


def test_every_test_file_has_its_source_file() -> None:
    wanted = {where_tested(source) for source in SOURCES}
    for test in walk("tests"):
        if not test.name.startswith("test_") or test.parts[1] == "integration":
            continue
        assert test in wanted or str(test.relative_to("tests")) in HOUSE_TESTS, f"{test} of what?"


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_module_can_be_read_in_one_sitting(source: Path) -> None:
    count = len(as_text(source).splitlines())
    assert count <= MAX_LINES, f"{source} has {count} lines: find its second noun"


@pytest.mark.parametrize("source", [s for s in SOURCES if s.parts[0] == "analysis"], ids=str)
def test_the_analysis_imports_no_producer(source: Path) -> None:
    for name in imports_of(source):
        assert not begins_with(name, *NEVER_IN_ANALYSIS), f"{source} imports {name}"
        if begins_with(name, "perfmeasure") and not begins_with(name, "perfmeasure.analysis"):
            part = [*name.split("."), ""][1]
            assert part in SHARED | {"", "__version__"}, f"{source} imports the producer {name}"


def test_the_analysis_brings_in_no_producer_by_a_detour() -> None:
    modules = [
        "perfmeasure." + ".".join(source.with_suffix("").parts)
        for source in SOURCES
        if source.parts[0] == "analysis" and source.name != "__init__.py"
    ]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        f"print([m for m in {NEVER_IN_ANALYSIS} if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("source", [s for s in SOURCES if s.parts[0] == "perfmeasure"], ids=str)
def test_producers_do_not_import_the_analysis(source: Path) -> None:
    if SEES_BOTH_SIDES.fullmatch(source.relative_to("perfmeasure").as_posix()):
        return
    for name in imports_of(source):
        assert not begins_with(name, "perfmeasure.analysis"), f"{source} imports {name}"


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_json_has_one_door(source: Path) -> None:
    if source != Path("perfmeasure/jsonio.py"):
        doors = {name for name in imports_of(source) if begins_with(name, "json", "ujson")}
        assert not doors, f"{source}: use perfmeasure.jsonio"


@pytest.mark.parametrize("name", SYMLINKED)
def test_the_symlinks_are_relative(name: str) -> None:
    link = ROOT / "perfmeasure" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)
    assert (ROOT / name).is_dir()
    assert not (ROOT / name).is_symlink()


def test_setup_py_has_only_the_extension_modules() -> None:
    tree = ast.parse(as_text(Path("setup.py")))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    setups = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "setup"]
    assert [[keyword.arg for keyword in call.keywords] for call in setups] == [["ext_modules"]]


def test_pyproject_has_only_the_build_system() -> None:
    import tomllib

    assert list(tomllib.loads(as_text(Path("pyproject.toml")))) == ["build-system"]


def test_every_package_that_is_imported_is_declared() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    declared = {
        re.split(r"[<>=!~;\[ ]", line)[0].lower().replace("-", "_")
        for lines in (
            config["options"]["install_requires"],
            config["options.extras_require"]["fleet"],
        )
        for line in lines.strip().splitlines()
    }
    # bcc comes with Debian and is in no package index, zope.interface comes with Twisted, and
    # compression is the standard library's from Python 3.14 on; backports holds many packages.
    elsewhere = {"perfmeasure", "bcc", "zope", "compression", *sys.stdlib_module_names}
    for source in SOURCES:
        for name in imports_of(source):
            known = name.partition(".")[0] in elsewhere or name == "backports"
            assert known or begins_with(name.lower(), *declared), (
                f"{source} imports {name}: add it to install_requires, with a page in docs/adr"
            )


# ---- what is in the repository ------------------------------------------------------------------

# The folders where people and build machines keep their work, and where packages are fetched from.
SOMEONES_FOLDER = re.compile(r"(?<![\w.~-])/(?:home/\w+|root|Users/\w+|work(?:space)?)/[\w.]")
SOMEONES_INDEX = re.compile(
    r"https?://[^\s\"'<>]*(?:pypi|pythonhosted|/simple\b|artifactory|/npm\b|debian/dists)"
    r"|--(?:extra-)?index[-]url|PIP_INDEX[_]URL|trusted[-]host"
)


@pytest.fixture(scope="module")
def tracked(require: Callable[..., None]) -> list[Path]:
    """The files that are, or will be with the next commit, in the repository."""
    require("git")
    ran = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    names = [os.fsdecode(name) for name in ran.stdout.split(b"\0") if name]
    paths = [ROOT / name for name in names]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize("pattern", [SOMEONES_FOLDER, SOMEONES_INDEX], ids=["folder", "index"])
def test_no_file_names_a_place_of_ours(tracked: list[Path], pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked:
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found


def test_the_patterns_find_what_they_are_for() -> None:
    for folder in ("root", "home/me", "work", "workspace"):
        assert SOMEONES_FOLDER.search(f"see /{folder}/x.py")
    assert not SOMEONES_FOLDER.search("sub/work/x, ../root/x, /usr/share/root/x")
    for index in ("https://py" + "pi.org/x", "https://mirror.example/root/sim" + "ple/"):
        assert SOMEONES_INDEX.search(index)
    assert SOMEONES_INDEX.search("pip install --index" + "-url x")


def test_nothing_big_or_generated_is_tracked(tracked: list[Path]) -> None:
    for path in tracked:
        name = path.relative_to(ROOT)
        assert path.stat().st_size < 2 * 1024**2, f"{name} is too big for the repository"
        generated = {"__pycache__", ".venv", "perfmeasure-data", "build", "dist"}
        assert not generated & set(name.parts), f"{name} is generated"
