"""What is built and installed: the wheel, in an environment of its own, away from the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure import __version__, jsonio

ROOT = Path(__file__).resolve().parent.parent
DATA = {"bpf": "*", "docroot": "*", "schema": "*.json"}


def copy_of_the_tree(to: Path) -> None:
    """Copy what is in the repository; building writes into the folder that it builds."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, copy = ROOT / name, to / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.symlink_to(source.readlink())
        elif source.exists():
            copy.write_bytes(source.read_bytes())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, require: Callable[..., None]) -> Path:
    require("git")
    place = tmp_path_factory.mktemp("wheel")
    copy_of_the_tree(place / "tree")
    # Through the source archive, as it is released: a file that is missing there is missing here.
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", place / "dist", place / "tree"],
        capture_output=True,
        check=True,
        timeout=300,
    )
    (built,) = (place / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` of a fresh environment that holds the wheel."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (site,) = place.glob("lib/python3*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python")]
    subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)],
        capture_output=True,
        check=True,
        timeout=120,
    )
    # The declared dependencies come from the environment of the tests, which saves a minute of
    # downloads. What lies there in files named .pth, such as an editable install, is not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin"


def test_its_only_top_level_name_is_perfmeasure(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"perfmeasure", f"perfmeasure-{__version__}.dist-info"}
    with_version = re.compile(
        r"perfmeasure-[^/]+\.dist-info/(METADATA|RECORD|WHEEL|\S*LICENSE|\S+txt)"
    )
    for name in names - {name for name in names if name.startswith("perfmeasure/")}:
        assert with_version.fullmatch(name), name


def test_it_holds_every_module_and_all_data(names: set[str]) -> None:
    wanted = {str(path.relative_to(ROOT)) for path in ROOT.glob("perfmeasure/**/*.py")}
    wanted |= {f"perfmeasure/{path.relative_to(ROOT)}" for path in ROOT.glob("analysis/**/*.py")}
    for folder, pattern in DATA.items():
        found = {path for path in (ROOT / folder).glob(pattern) if path.is_file()}
        assert found or folder == "bpf", f"{folder} is empty"
        wanted |= {f"perfmeasure/{path.relative_to(ROOT)}" for path in found}
    assert wanted - names == set()
    assert not [name for name in names if name.endswith((".pyc", "~", ".orig"))]


def test_no_data_is_left_out_by_its_name(names: set[str]) -> None:
    for folder in DATA:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"perfmeasure/{path.relative_to(ROOT)}" in names


def test_it_has_the_extension_of_the_stable_abi(
    names: set[str], wheel: Path, require: Callable[..., None]
) -> None:
    require("gcc")
    assert "perfmeasure/recorder/_native.abi3.so" in names
    assert "-cp311-abi3-" in wheel.name


def run(program: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        check=False,
        cwd=cwd,
        text=True,
        timeout=60,
    )


def test_the_installed_command_is_the_installed_package(installed: Path, tmp_path: Path) -> None:
    where = "import perfmeasure.analysis as a, perfmeasure as p; print(p.__file__, a.__file__)"
    ran = run(installed / "python", "-c", where, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    for path in ran.stdout.split():
        assert Path(path).is_relative_to(installed.parent)

    ran = run(installed / "perfmeasure", "--version", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, f"perfmeasure, version {__version__}\n"), ran.stderr
    ran = run(installed / "python", "-m", "perfmeasure", "--version", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_the_installed_recorder_uses_the_extension(
    installed: Path, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("gcc")
    where = "from perfmeasure.recorder import core; print(core.IS_NATIVE)"
    ran = run(installed / "python", "-c", where, cwd=tmp_path)
    assert ran.stdout == "True\n", ran.stderr


def test_the_installed_command_validates(installed: Path, tmp_path: Path) -> None:
    database = {
        "type": "perfmeasure",
        "version": "1.0",
        "meta": {"tool": "perfmeasure", "tool_version": "0.1.0", "inputs": [], "sources": {}},
        "data": {},
    }
    (tmp_path / "good.json").write_bytes(jsonio.canonical(database))
    ran = run(installed / "perfmeasure", "validate", "good.json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr

    (tmp_path / "bad.json").write_bytes(jsonio.canonical(database | {"type": "gift"}))
    ran = run(installed / "perfmeasure", "validate", "bad.json", cwd=tmp_path)
    assert ran.returncode == 4, ran.stderr
    assert "bad.json" in ran.stderr
    assert "Traceback" not in ran.stderr
