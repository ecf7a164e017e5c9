"""``perfmeasure console`` as people use it: real processes, a real terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfmeasure.cli import run
from perfmeasure.recorder import door
from perfmeasure.recorder.terminal import complete
from tests.recorder import made
from tests.recorder.test_answer import stored
from tests.recorder.wire import HERE, Line

MAIN = [sys.executable, "-c", "from perfmeasure.cli import main; main()"]
ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 30.0
FRAME = made.ethernet(made.udp("10.0.0.1", 1, "10.0.0.2", 2, 100))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


class Recording:
    """A process of ``perfmeasure record`` on a line."""

    def __init__(self, line: Line, store: Path) -> None:
        self.line, self.store = line, store
        self.inside = ["ip", "netns", "exec", line.name]
        command = [*self.inside, *MAIN, "record", "-i", HERE, "--store", str(store)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        wait_for((store / "private" / "console.port").exists, "no console")
        assert self.console("find port 2\n").returncode == 0  # it captures

    def console(self, lines: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside, *MAIN, "console", "--store", str(self.store), *options],
            input=lines, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS, check=False,
        )  # fmt: skip

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=SECONDS)
        return out


@pytest.fixture
def recording(line: Line, tmp_path: Path) -> Iterator[Recording]:
    made_recording = Recording(line, tmp_path / "store")
    try:
        yield made_recording
    finally:
        if made_recording.process.poll() is None:
            made_recording.stop()


def sent(recording: Recording, count: int) -> None:
    recording.line.send([FRAME] * count)
    time.sleep(0.2)  # longer than a block of the ring waits


def test_commands_by_a_pipe(recording: Recording, capfd: pytest.CaptureFixture[str]) -> None:
    sent(recording, 5)
    ran = recording.console('show stats\nquery to_file "x.pcap" index port "2"\n\nquit\nnonsense\n')
    assert ran.returncode == 0
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert "totPkts 5" in lines
    assert re.fullmatch(r"OK 5 packets 710 bytes \d\.\d+ s", lines[-1])
    path = recording.store / "queries" / "x.pcap"
    assert path.stat().st_size == 24 + 5 * (16 + 142)
    ran = recording.console("nop\nnonsense\nnop\n")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[0] == ran.stdout.splitlines()[2] == "OK"
    # Another process finds in the files what the recorder has written so far.
    arguments = ["query", "--store", str(recording.store), "--count", "port 2"]
    assert run(arguments) == 0
    assert capfd.readouterr().out.startswith("5 packets, 710 bytes")
    assert recording.stop().startswith("5 packets (710 B) read, 5 (710 B) kept")
    assert recording.process.returncode == 0


def test_packets_are_fed_to_a_program_as_they_come(
    recording: Recording, require: Callable[..., None]
) -> None:
    require("tshark")
    sent(recording, 3)
    feed = "tshark=tshark -l -n -r - -T fields -e udp.dstport -e frame.len"
    ran = recording.console('query feed tshark tag a index port "2"\n', "--feed", feed)
    assert ran.returncode == 0
    assert ran.stdout.count("2\t142\n") == 3
    assert "OK 3 packets 426 bytes" in ran.stdout
    command = [*recording.inside, *MAIN, "console", "--store", str(recording.store)]
    with subprocess.Popen(
        [*command, "--feed", feed], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
    ) as live:  # fmt: skip
        assert live.stdin is not None
        assert live.stdout is not None
        live.stdin.write('query feed tshark tag b index ip "10.0.0.2" subscribe\n')
        live.stdin.close()  # which does not end what is subscribed to
        while not live.stdout.readline().startswith("OK 3 packets"):
            pass
        for _ in range(4):
            sent(recording, 10)
        shown = recording.console("show subscriptions\n").stdout
        assert re.match(r"1 packets \d+ bytes \d+ missed_segments 0 query feed tshark tag b", shown)
        recording.stop()
        assert live.stdout.read().count("2\t142\n") >= 40
        assert live.wait(SECONDS) == 0


def test_a_feed_without_its_program_is_not_begun(recording: Recording) -> None:
    ran = recording.console('query feed zeek tag a index port "2"\n', "--feed", "t=tshark -r -")
    assert ran.returncode == 1
    assert ran.stdout == ("ERROR feed zeek: no such program; wanted --feed NAME=COMMAND\n")
    ran = recording.console('query feed t tag a index port "2"\n', "--feed", "t=false")
    assert ran.returncode == 1
    assert "ended with status 1" in ran.stderr


def test_elsewhere_it_needs_the_token(recording: Recording, tmp_path: Path) -> None:
    port = door.announced(recording.store)
    command = [*recording.inside, *MAIN, "console", "--connect", f"127.0.0.1:{port}"]

    def connect(token_file: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "--token-file", str(token_file)], input="print there\n",
            capture_output=True, text=True, cwd=ROOT, timeout=SECONDS, check=False,
        )  # fmt: skip

    ran = connect(door.token_path(recording.store))
    assert (ran.returncode, ran.stdout) == (0, "there\nOK\n")
    (tmp_path / "other").write_text("0" * 64 + "\n")
    ran = connect(tmp_path / "other")
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "wrong token" in ran.stderr
    assert "0" * 64 not in ran.stderr


def test_after_a_kill_the_store_is_still_asked(recording: Recording) -> None:
    sent(recording, 4)
    recording.process.kill()
    recording.process.wait(SECONDS)
    ran = recording.console("find port 2\nshow stats\n")
    assert "no recorder runs on" in ran.stderr
    assert ran.stdout.startswith("OK 4 packets 568 bytes ")
    assert "ERROR NO RECORDER: " in ran.stdout
    assert ran.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "--store, --prefix: neither is given"),
        (["--store", "a", "--prefix", "b"], 2, "both are given"),
        (["--store", "none"], 4, "no store of packets"),
        (["--prefix", "none"], 4, "none/packets: no store"),
        (["--connect", "127.0.0.1:1"], 2, "one without the other"),
        (["--connect", "nowhere", "--token-file", "x"], 2, "wanted HOST:PORT"),
        (["--connect", "127.0.0.1:1", "--token-file", "none"], 4, "none: cannot be read"),
        (["--connect", "a:1", "--token-file", "x", "--store", "x"], 2, "given together"),
        (["--store", "none", "--feed", "x"], 2, "wanted NAME=COMMAND"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], status: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["console", *arguments]) == status
    err = capfd.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_a_terminal_has_history_and_completion(tmp_path: Path) -> None:
    store = stored(tmp_path, made.pcap(made.trace(1, 50))).folder
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["XDG_STATE_HOME"] = str(tmp_path / "state")
        os.environ["TERM"] = "dumb"
        os.execv(sys.executable, [*MAIN, "console", "--store", str(store)])  # noqa: S606
    shown = b""

    def until(words: bytes) -> None:
        nonlocal shown
        while words not in shown:
            assert select.select([terminal], [], [], 60)[0], shown
            shown += os.read(terminal, 4096)
        shown = shown.partition(words)[2]

    try:
        until(b"perfmeasure> ")
        os.write(terminal, b"pri\thello\n")  # completed to "print "
        until(b"\nhello\r\nOK")
        until(b"perfmeasure> ")
        os.write(terminal, b"\x1b[A\n")  # the line before, once more
        until(b"\nhello\r\nOK")
        until(b"perfmeasure> ")
        os.write(terminal, b"find not port 1\n")
        until(b"OK 50 packets")
        until(b"perfmeasure> ")  # before that, the end of the input could be lost
        os.write(terminal, b"\x04")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(terminal)
    history = tmp_path / "state" / "perfmeasure" / "console.history"
    assert history.read_text().splitlines()[0] == "print hello"
    assert history.stat().st_mode & 0o777 == 0o600


def test_words_that_are_completed() -> None:
    assert complete("unsuspend_c", 0) == "unsuspend_cutoff "
    assert complete("unsuspend_c", 1) is None
    assert {complete("connection", n) for n in range(3)} == {f"connection{n} " for n in (2, 3, 4)}
