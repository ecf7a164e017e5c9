"""The script ./run: in a fresh copy of the checkout, and in a stand-in that notes what it does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
POLICY = "/usr/sbin/policy-rc.d"
PACKAGES = "tor python3-bpfcc"

# A private view of the machine: what is written to /usr/sbin goes into a layer of its own, and what
# ./run looks for is covered up. Nothing of the real machine changes. $1 is a folder for the layer.
HIDE = """
set -e
mkdir "$1/upper" "$1/work"
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$1/upper,workdir=$1/work" /usr/sbin
rm -f /usr/sbin/policy-rc.d /usr/sbin/tor
[ ! -e /usr/bin/tor ] || mount --bind /dev/null /usr/bin/tor
mkdir -p /usr/lib/python3/dist-packages/bcc
mount -t tmpfs none /usr/lib/python3/dist-packages/bcc
"""

# A stand-in for apt-get: notes how it was called and what a package's script would see.
APT_GET = """#!/bin/sh
echo "$@" >>"$NOTES/apt-get"
/usr/sbin/policy-rc.d tor start; echo $? >>"$NOTES/policy"
echo "E: chatter of apt"
eval "${APT_DOES:-}"
"""


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class StandIn:
    """A folder that ./run takes for a set-up checkout, and the means to call it."""

    def __init__(self, place: Path) -> None:
        self.root = place / "a checkout"
        self.notes = place / "notes"
        self.shims = place / "shims"
        self.layer = place / "layer"
        for folder in (self.root, self.notes, self.shims, self.layer):
            folder.mkdir(parents=True)
        made_from = ""
        for name in ("run", "setup.cfg", "setup.py", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
            made_from += "" if name == "run" else (ROOT / name).read_text()
        self.python = Path("/usr/bin/python3")
        self.venv = self.root / ".venv"
        self.script("perfmeasure", 'for word; do echo "<$word>"; done')
        self.script("pip", "")
        (self.venv / ".made-from-test").write_text(f"{made_from}{self.root} {self.python}\n")
        write_script(self.shims / "apt-get", APT_GET)

    def script(self, name: str, text: str) -> None:
        write_script(self.venv / "bin" / name, f"#!/bin/sh\n{text}\n")

    def noted(self, name: str) -> list[str]:
        path = self.notes / name
        return path.read_text().splitlines() if path.exists() else []

    def logs(self) -> list[str]:
        return [path.read_text() for path in self.notes.glob("perfmeasure-run.*")]

    def environment(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join((str(self.shims), os.environ.get("PATH", os.defpath)))
        notes = str(self.notes)
        return {**os.environ, "PATH": path, "NOTES": notes, "TMPDIR": notes, **more}

    def call(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "run", *arguments],
            capture_output=True,
            check=False,
            env=self.environment(**more),
            text=True,
            timeout=60,
        )

    def call_on_bare_machine(
        self,
        before: str = ":",
        after: str = ":",
        *,
        during: str = "",
        argument: str = "x",
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        """Call ./run where tor and bcc are not installed and /usr/sbin is ours to write to.

        ``before`` and ``after`` are shell commands in the same view of the machine, ``during`` is
        what the stand-in for apt-get does.
        """
        inside = f'{HIDE}\nshift\nset +e\n{before}\n"$@"\nstatus=$?\n{after}\nexit $status'
        return subprocess.run(
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                inside,
                "sh",
                self.layer,
                self.root / "run",
                argument,
            ],
            capture_output=True,
            check=False,
            env=self.environment(APT_DOES=during, **more),
            text=True,
            timeout=60,
        )


@pytest.fixture
def stand_in(tmp_path: Path, require: Callable[..., None]) -> StandIn:
    require("tor", "/usr/bin/python3")  # otherwise ./run would install them
    return StandIn(tmp_path)


@pytest.fixture
def bare(stand_in: StandIn, require: Callable[..., None]) -> StandIn:
    require("root", "unshare")
    return stand_in


# ---- the way through ----------------------------------------------------------------------------


def test_arguments_arrive_as_they_were(stand_in: StandIn) -> None:
    ran = stand_in.call("measure", "a b", "*", "", "--x='y'", PERFMEASURE_SETUP="no")
    assert ran.returncode == 0
    assert ran.stdout.splitlines() == ["<measure>", "<a b>", "<*>", "<>", "<--x='y'>"]
    assert ran.stderr == ""


def test_a_signal_reaches_the_command_which_is_the_same_process(stand_in: StandIn) -> None:
    stand_in.script(
        "perfmeasure", "trap 'exit 42' TERM; echo $$; for i in $(seq 200); do sleep 0.1; done"
    )
    with subprocess.Popen(
        [stand_in.root / "run", "measure"],
        env=stand_in.environment(PERFMEASURE_SETUP="no"),
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) == child.pid
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 42


def test_it_is_found_through_a_symbolic_link(stand_in: StandIn, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(stand_in.root / "run")
    ran = subprocess.run(
        [link, "x"],
        capture_output=True,
        check=True,
        env=stand_in.environment(PERFMEASURE_SETUP="no"),
        text=True,
        timeout=60,
    )
    assert ran.stdout == "<x>\n"


def test_run_test_lints_checks_and_tests_with_the_arguments(stand_in: StandIn) -> None:
    for name in ("ruff", "mypy", "python"):
        stand_in.script(name, f'echo "{name} $*" >>"$NOTES/order"; [ "$FAILS" != {name} ]')
    ran = stand_in.call("test", "--long", "-k", "a or b", PERFMEASURE_SETUP="no", FAILS="")
    assert ran.returncode == 0, ran.stderr
    steps = ["ruff check -q .", "ruff format -q --check .", "mypy "]
    pytest_line = "python -m pytest -n auto --long -k a or b"
    assert stand_in.noted("order") == [*steps, pytest_line]
    assert stand_in.call("test", PERFMEASURE_SETUP="no", FAILS="mypy").returncode != 0


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_it_is_plain_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    for script in ("run", ".ci/run"):
        subprocess.run([shell, "-n", ROOT / script], check=True)
        assert (ROOT / script).read_text().startswith("#!/bin/sh\n")
        assert os.access(ROOT / script, os.X_OK)


# ---- what the machine lacks ---------------------------------------------------------------------


def test_who_is_not_root_is_told_what_to_install(bare: StandIn) -> None:
    write_script(bare.shims / "id", "#!/bin/sh\necho 1000\n")
    ran = bare.call_on_bare_machine()
    assert f"run: this machine lacks: {PACKAGES}\n" in ran.stderr
    install = f"run: install with: sudo apt-get install --no-install-recommends {PACKAGES}\n"
    assert install in ran.stderr
    assert bare.noted("apt-get") == []
    assert (ran.returncode, ran.stdout) == (0, "<x>\n")  # most commands work without


def test_without_python_venv_nothing_can_be_made(bare: StandIn) -> None:
    write_script(bare.shims / "id", "#!/bin/sh\necho 1000\n")
    shutil.rmtree(bare.venv)
    no_ensurepip = "for d in /usr/lib/python3.*/ensurepip; do mount -t tmpfs none $d; done"
    ran = bare.call_on_bare_machine(no_ensurepip)
    assert ran.returncode == 3
    assert f"--no-install-recommends {PACKAGES} python3-venv\n" in ran.stderr
    assert not bare.venv.exists()


def test_root_installs_quietly_while_no_service_may_start(bare: StandIn) -> None:
    ran = bare.call_on_bare_machine(after=f"test ! -e {POLICY} && echo gone; ls {POLICY}*")
    assert ran.returncode == 0
    assert ran.stdout == "<x>\ngone\n"
    assert f"run: installing {PACKAGES} (no service is started)\n" in ran.stderr
    assert "chatter" not in ran.stderr
    assert bare.noted("policy") == ["101"]
    (call,) = bare.noted("apt-get")
    assert call.startswith("install -y -q --no-install-recommends")
    assert call.endswith(PACKAGES)
    assert "DPkg::Lock::Timeout=" in call
    assert bare.logs() == []


def test_the_tests_need_more_programs(bare: StandIn, require: Callable[..., None]) -> None:
    require("tshark")
    hide = f"mount --bind /dev/null {shutil.which('tshark')}"
    bare.call_on_bare_machine(hide, argument="test")
    (call,) = bare.noted("apt-get")
    assert call.endswith(f"{PACKAGES} tshark")


def test_old_lists_are_renewed_once(bare: StandIn) -> None:
    ran = bare.call_on_bare_machine(during='[ "$(wc -l <"$NOTES/apt-get")" != 1 ]')
    assert ran.returncode == 0
    assert [call.split()[0] for call in bare.noted("apt-get")] == ["install", "update", "install"]
    assert "could not" not in ran.stderr


def test_a_failed_installation_is_shown_and_undone(bare: StandIn) -> None:
    ran = bare.call_on_bare_machine(during="exit 100", after=f"ls {POLICY}*")
    assert "E: chatter of apt\n" in ran.stderr
    assert f"run: apt-get could not install: {PACKAGES}\n" in ran.stderr
    assert POLICY not in ran.stdout
    assert ran.stdout.startswith("<x>\n")
    assert f"run: that was the end of {bare.notes}/perfmeasure-run." in ran.stderr
    assert "E: chatter of apt" in bare.logs()[0]


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(f"printf '#!/bin/sh\\nexit 7\\n' >{POLICY}; chmod 755 {POLICY}", id="file"),
        pytest.param(f"echo '#' >/usr/sbin/x; ln -s /usr/sbin/x {POLICY}", id="symlink"),
        pytest.param(f"ln -s /nowhere {POLICY}", id="dangling"),
    ],
)
def test_a_policy_that_was_there_is_put_back_as_it_was(bare: StandIn, before: str) -> None:
    look = f"stat -c '%A %s %Y %N' {POLICY}* /usr/sbin/x 2>/dev/null; cat {POLICY} 2>/dev/null"
    ran = bare.call_on_bare_machine(f"{before}; ({look}) >$NOTES/was", look)
    assert bare.noted("policy") == ["101"]
    assert ran.stdout == "<x>\n" + (bare.notes / "was").read_text()
    assert POLICY in ran.stdout


OURS = f"echo '# Here by perfmeasure' >{POLICY}"


@pytest.mark.parametrize(
    ("before", "left"),
    [(OURS, ""), (f"{OURS}; echo theirs >{POLICY}.before-perfmeasure", "theirs\n")],
    ids=["none-before", "one-before"],
)
def test_what_a_killed_installation_left_is_set_right(
    bare: StandIn, before: str, left: str
) -> None:
    ran = bare.call_on_bare_machine(before, f"ls {POLICY}.*; cat {POLICY}")
    assert ran.stdout == "<x>\n" + left


def test_an_interrupted_installation_restores_the_policy(bare: StandIn) -> None:
    # apt-get's parent is the subshell that installs; all shells of ./run get the signal.
    during = (
        "p=$PPID; for i in 1 2 3; do all=\"$all $p\"; p=$(cut -d' ' -f4 /proc/$p/stat); done; "
        "kill -TERM $all; sleep 0.5"
    )
    look = f"ls {POLICY}.*; cat {POLICY}"
    ran = bare.call_on_bare_machine(f"echo theirs >{POLICY}", look, during=during)
    assert ran.returncode == 130
    assert bare.noted("policy") == ["101"]
    assert ran.stdout == "theirs\n"
    assert bare.logs() == []


# ---- the virtual environment --------------------------------------------------------------------


def test_a_checkout_that_was_moved_makes_its_environment_again(stand_in: StandIn) -> None:
    (stand_in.venv / ".made-from-test").unlink()
    (stand_in.venv / ".place").write_text("/where/it/was /usr/bin/python3\n")
    refuse = '#!/bin/sh\ncase "$*" in "-m venv"*) echo refused; exit 7;; esac\n'
    write_script(stand_in.shims / "python", refuse)
    ran = stand_in.call(
        "x", PERFMEASURE_SETUP="no", PERFMEASURE_PYTHON=str(stand_in.shims / "python")
    )
    assert ran.returncode == 3
    assert "run: making the virtual environment .venv\nrefused\n" in ran.stderr
    assert not stand_in.venv.exists()
    assert stand_in.logs() == ["refused\n"]


def test_an_old_python_is_refused(stand_in: StandIn) -> None:
    write_script(stand_in.shims / "python", "#!/bin/sh\nexit 1\n")
    ran = stand_in.call(
        "x", PERFMEASURE_SETUP="no", PERFMEASURE_PYTHON=str(stand_in.shims / "python")
    )
    assert ran.returncode == 3
    assert "is older than Python 3.11" in ran.stderr


def test_a_fresh_copy_sets_itself_up_once(tmp_path: Path, require: Callable[..., None]) -> None:
    require("git", "tor", "/usr/bin/python3")
    checkout = tmp_path / "with a space" / "perfmeasure"
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name, follow_symlinks=False)
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}

    def run() -> tuple[str, str]:
        ran = subprocess.run(
            [checkout / "run", "--version"],
            capture_output=True,
            check=False,
            env=environment,
            text=True,
            timeout=500,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout, ran.stderr

    stdout, stderr = run()
    assert stdout.startswith("perfmeasure, version ")
    assert stderr == (
        "run: making the virtual environment .venv\nrun: installing perfmeasure into .venv\n"
    )

    # From now on pip and apt-get would be noticed.
    (pip,) = checkout.glob(".venv/lib/python3*/site-packages/pip/__main__.py")
    pip.write_text("raise SystemExit('pip was run')\n")
    write_script(tmp_path / "shims" / "apt-get", "#!/bin/sh\necho apt-get was run >&2\n")
    environment["PATH"] = os.pathsep.join((str(tmp_path / "shims"), os.environ["PATH"]))
    del environment["HOME"]
    assert run() == (stdout, "")
