"""What the other tests rely on: skips that are failures in CI, goldens, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """A folder with our conftest, the plugins that it names, and nothing else."""
    plugins = ("topology_fixture.py", "topology_machines.py")
    for path in (
        "conftest.py",
        "scheduling.py",
        "testnet_fixture.py",
        *(f"integration/{name}" for name in plugins),
    ):
        shutil.copy(HERE / path, tmp_path)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -p no:cacheprovider -ra\n"
        "markers =\n  alone(why)\n  together(name, why)\n"
    )
    return tmp_path


def run(session: Path, test: str, *options: str, ci: bool = False) -> tuple[int, str]:
    """Run one test function and return pytest's status and output."""
    (session / "test_it.py").write_text(test)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, session],
        capture_output=True,
        check=False,
        cwd=session,
        env=environment | ({"CI": "true"} if ci else {}),
        text=True,
        timeout=240,
    )
    return ran.returncode, ran.stdout + ran.stderr


NEEDS = "def test_it(require): require({!r})"


def test_a_missing_part_skips_here_and_fails_in_ci(session: Path) -> None:
    status, output = run(session, NEEDS.format("no-such-program"))
    assert status == 0
    assert "1 skipped" in output
    assert "no program no-such-program on PATH" in output
    status, output = run(session, NEEDS.format("no-such-program"), ci=True)
    assert status == 1
    assert "CI needs no-such-program: no program no-such-program on PATH" in output


def test_what_debian_does_not_have_skips_in_ci_too(session: Path) -> None:
    if shutil.which("tgen"):
        pytest.skip("tgen was built on this machine by hand")
    status, output = run(session, NEEDS.format("tgen"), ci=True)
    assert status == 0
    assert "in no Debian release" in output


def test_a_part_that_is_here_changes_nothing(session: Path) -> None:
    assert run(session, NEEDS.format("sh"), ci=True)[0] == 0


GOLDEN = "def test_it(golden): golden('sub/x.txt', 'one\\ntwo\\n')"


def test_goldens_are_compared_and_rewritten_on_demand(session: Path) -> None:
    assert run(session, GOLDEN)[0] == 1
    assert run(session, GOLDEN, "--update-golden")[0] == 0
    assert (session / "golden/sub/x.txt").read_bytes() == b"one\ntwo\n"
    assert run(session, GOLDEN)[0] == 0
    (session / "golden/sub/x.txt").write_bytes(b"one\r\ntwo\r\n")
    status, output = run(session, GOLDEN)
    assert status == 1
    assert "--update-golden" in output


def test_ci_refuses_to_rewrite_goldens(session: Path) -> None:
    assert run(session, GOLDEN, "--update-golden", ci=True)[0] == pytest.ExitCode.USAGE_ERROR
    assert not (session / "golden").exists()


def test_the_counts_follow_the_option(session: Path) -> None:
    test = (
        "from hypothesis import settings\n"
        "def test_it(is_long): assert (settings().max_examples > 1000) is is_long is {}"
    )
    assert run(session, test.format(False))[0] == 0
    assert run(session, test.format(True), "--long")[0] == 0


def test_processes_that_are_left_fail_the_run_and_are_ended(session: Path) -> None:
    # One child, and one grandchild whose parent is gone.
    test = (
        "import subprocess\n"
        "def test_it(): subprocess.Popen(['sh', '-c', '(sleep 321 &) ; exec sleep 123'])\n"
    )
    status, output = run(session, test)
    assert status == 1
    left = [line.split() for line in output.splitlines() if ": sleep " in line]
    assert sorted(words[-1] for words in left) == ["123", "321"]
    for words in left:
        assert not is_alive(int(words[0].rstrip(":")))


def test_what_another_process_leaves_fails_the_run_too(session: Path) -> None:
    test = "import subprocess\ndef test_it(): subprocess.Popen(['sleep', '123'])\n"
    status, output = run(session, test, "-n", "2")
    assert status == 1
    assert "processes were left by the tests:" in output
    assert "1 passed" in output


NOTES = """
import os, pathlib, time
import pytest

def note(name):
    with pathlib.Path(__file__).with_name("notes").open("a") as notes:
        notes.write(f"{name} {os.getpid()}\\n")

ONE = pytest.mark.together("one", "they share it")
ALONE = pytest.mark.alone("it counts who is there")
"""
ORDINARY = (
    NOTES
    + """
@pytest.mark.parametrize("number", range(4))
def test_ordinary(number):
    note(f"begin {pathlib.Path(__file__).stem}")
    time.sleep(0.05 * number)
    note(f"end {pathlib.Path(__file__).stem}")
"""
)
GROUPED = (
    NOTES
    + """
@ONE
@pytest.mark.parametrize("name", ["a@b", "c]d"])
def test_grouped(name):
    note("one")

@ALONE
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    note("alone")
"""
)


@pytest.fixture
def shared_out(session: Path) -> Path:
    """A session that only knows how tests are shared out."""
    (session / "conftest.py").write_text('pytest_plugins = ["scheduling"]\n')
    return session


@pytest.mark.parametrize("processes", ["0", "1", "3"])
def test_those_alone_come_when_all_others_are_done(shared_out: Path, processes: str) -> None:
    for name in ("b", "c", "d"):
        (shared_out / f"test_{name}.py").write_text(ORDINARY)
    for name in ("a", "e"):
        (shared_out / f"test_{name}.py").write_text(GROUPED)
    status, output = run(shared_out, NOTES, "-n", processes)
    assert status == 0, output
    assert "22 passed" in output
    lines = [line.rsplit(" ", 1) for line in (shared_out / "notes").read_text().splitlines()]
    names = [name for name, _ in lines]
    assert names.count("one") == 4
    assert names[-6:] == ["alone"] * 6
    for name in ("one", "alone", "begin test_b", "begin test_c"):
        assert len({pid for found, pid in lines if found == name}) == 1, name


def test_those_alone_are_found_without_others(shared_out: Path) -> None:
    status, output = run(shared_out, GROUPED, "-n", "3", "-k", "alone")
    assert status == 0, output
    assert "3 passed" in output


def test_a_process_that_dies_takes_no_other_test_with_it(shared_out: Path) -> None:
    dies = NOTES + "def test_dies(): os._exit(3)\ndef test_after(): pass\n"
    (shared_out / "test_a.py").write_text(dies)
    options = ("-n", "2", "--max-worker-restart", "1")
    status, output = run(shared_out, GROUPED, *options)
    assert status == 1
    assert "crashed while running 'test_a.py::test_dies'" in output


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
