"""What all tests share: options, `require`, `golden`, `fixtures`, and a last look round.

A part that a machine lacks skips a test with its reason. With CI=true it fails instead, so that
nothing is left out in silence there; `_NOT_TO_BE_HAD` names what is excused even then.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdist.workermanage import WorkerController

pytest_plugins = ["scheduling", "testnet_fixture", "topology_fixture"]

TESTS = Path(__file__).resolve().parent
IN_CI = os.environ.get("CI") == "true"

# Every process that a test starts, and each of its children, inherits this; so the session can
# find what outlived it, even when its parent is gone.
_MARK_NAME = "TEST_SESSION_OF_PERFMEASURE"
_MARK = f"{os.getpid()}-{time.time_ns()}"
# Helpers of the interpreter itself, which end when the test process does.
_ENDS_WITH_US = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")

# The reason why a part is absent even from a complete machine.
_NOT_TO_BE_HAD = {
    "tgen": "the C program tgen is in no Debian release; where it was built by hand, it is tested",
}
_LEFT_MESSAGE = pytest.StashKey[str]()
_SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run every test at its full counts")
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite tests/golden and the generated pages of docs; look at the diff afterwards",
    )


def pytest_configure(config: pytest.Config) -> None:
    if IN_CI and config.getoption("--update-golden"):
        raise pytest.UsageError("--update-golden would hide what CI is there to find (CI=true)")
    os.environ[_MARK_NAME] = _MARK
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell leaves it to what it starts in the background; our children would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--long"):
        config.option.timeout = 0
    # Machines are noisy, so no example has a deadline; CI draws the same examples every time.
    hypothesis.settings.register_profile(
        "modest",
        max_examples=60,
        deadline=None,
        derandomize=IN_CI,
        database=None if IN_CI else hypothesis.settings().database,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.register_profile(
        "long",
        hypothesis.settings.get_profile("modest"),
        max_examples=5000,
        derandomize=False,
        print_blob=True,
    )
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "modest")


def _left_over() -> dict[int, str]:
    """Return pid -> command line of the live processes that this session started."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it ended while we looked, or is another user's
        is_ours = int(parent) == os.getpid() or f"{_MARK_NAME}={_MARK}".encode() in environment
        if is_ours and state not in "ZX" and not any(name in command for name in _ENDS_WITH_US):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a process that it started is still alive, and end that process."""
    if _LEFT_MESSAGE in session.config.stash:  # one of the processes that ran the tests said so
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if os.environ.get(_MARK_NAME) != _MARK or session.config.getoption("dist") != "no":
        return  # configuration failed before anything was started, or others ran the tests
    for _ in range(20):
        left = _left_over()
        if not left:
            return
        time.sleep(0.1)  # a child that was told to stop may need a moment
    lines = [f"  {pid}: {command}" for pid, command in sorted(left.items())]
    message = "\n".join(["processes were left by the tests:", *lines])
    session.config.stash[_LEFT_MESSAGE] = message
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = message
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def pytest_testnodedown(node: WorkerController) -> None:
    """Keep what one of several processes (pytest-xdist) had to say at its end."""
    if message := getattr(node, "workeroutput", {}).get("left"):
        node.config.stash[_LEFT_MESSAGE] = message


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if message := config.stash.get(_LEFT_MESSAGE, ""):
        terminalreporter.section("left over")
        terminalreporter.write_line(message)


def _why_missing(part: str) -> str:
    """Return why ``part`` is not here, or nothing when it is."""
    if part == "root":
        return "" if os.geteuid() == 0 else "the user is not root"
    if part == "bpf":
        from perfmeasure import checks

        lacking = [
            check
            for check in (
                checks.check_bcc(),
                checks.check_kernel_headers(),
                checks.check_bpf_right(),
            )
            if check.status is checks.Status.MISSING
        ]
        return "; ".join(f"{check.name}: {check.found}" for check in lacking)
    if part == "cgroup2":
        from perfmeasure import checks

        check = checks.check_cgroup()
        return check.found if check.status is checks.Status.MISSING else ""
    if shutil.which(part, path=_SYSTEM_PATH) is None:
        return f"no program {part} on PATH"
    return ""


@pytest.fixture(scope="session")
def require() -> Callable[..., None]:
    """Call with names of parts: ``root``, ``bpf``, ``cgroup2`` or a program, such as ``tor``."""

    def check(*parts: str) -> None:
        for part in parts:
            reason = _why_missing(part)
            if not reason:
                continue
            if part in _NOT_TO_BE_HAD:
                pytest.skip(f"{reason} ({_NOT_TO_BE_HAD[part]})")
            if IN_CI:
                pytest.fail(f"CI needs {part}: {reason}", pytrace=False)
            pytest.skip(reason)

    return check


@pytest.fixture
def open_folders(tmp_path: Path) -> None:
    """Let other users into ``tmp_path``: pytest's own folders are closed to them."""
    for folder in (tmp_path, *tmp_path.parents[:3]):  # the session's, of one process perhaps
        folder.chmod(0o755)
        if folder.name.startswith("pytest-of-"):
            break


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """Whether the full counts were asked for."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of real inputs."""
    return TESTS / "fixtures"


@pytest.fixture(scope="session")
def golden(pytestconfig: pytest.Config) -> Callable[[str | Path, str | bytes], None]:
    """Compare text or bytes with tests/golden/NAME (or a Path elsewhere), or rewrite it."""

    def check(name: str | Path, content: str | bytes) -> None:
        path = TESTS / "golden" / name  # an absolute path stays itself
        new = content.encode() if isinstance(content, str) else content
        if pytestconfig.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(new)
            return
        old = path.read_bytes() if path.exists() else b""
        if old != new:
            # Lines of text make a readable difference.
            is_now, was = (data.decode(errors="replace").splitlines() for data in (new, old))
            assert is_now == was, f"{path.name} differs (--update-golden)"
            pytest.fail(
                f"{path.name} differs in line ends or in bytes that are no text (--update-golden)"
            )

    return check


@pytest.fixture(autouse=True)
def _same_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tester's own settings of perfmeasure out of the tests."""
    for name in list(os.environ):
        if name.startswith("PERFMEASURE_") and name != "PERFMEASURE_CAPTURES":
            monkeypatch.delenv(name)
