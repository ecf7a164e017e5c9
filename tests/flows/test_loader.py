from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perfmeasure.errors import MissingError
from perfmeasure.flows.loader import BPF_FOLDER, Program

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")

NAMES = """
BPF_ARRAY(numbers, u64, 4);
int first(struct xdp_md *context) { return NUMBER; }
int second(struct __sk_buff *skb) { return 0; }
"""


def source(folder: Path, text: str) -> str:
    path = folder / "some.bpf.c"
    path.write_text(text)
    return str(path)


def test_functions_and_maps_have_descriptors(tmp_path: Path, require: Callable[..., None]) -> None:
    require("root", "bpf")
    program = Program(
        source(tmp_path, NAMES), {"first": "XDP", "second": "SCHED_CLS"}, {"NUMBER": 2}
    )
    descriptors = {program.fd("first"), program.fd("second"), program.map_fd("numbers")}
    assert len(descriptors) == 3
    assert min(descriptors) > 2


def test_what_cannot_be_compiled_is_one_message(
    tmp_path: Path, require: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    require("root", "bpf")
    with pytest.raises(MissingError, match=r"some.bpf.c: bcc cannot compile it .*no_such_thing"):
        Program(source(tmp_path, "int first(void *c) { return no_such_thing; }"), {"first": "XDP"})
    assert capfd.readouterr().err == ""


def test_what_the_verifier_refuses_is_one_message(
    tmp_path: Path, require: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    require("root", "bpf")
    reads_too_far = "int first(struct xdp_md *c) { return *(u8 *)(long)c->data; }"
    with pytest.raises(MissingError, match=r"first: the kernel does not load it \(.*packet"):
        Program(source(tmp_path, reads_too_far), {"first": "XDP"})
    assert capfd.readouterr().err == ""


def test_without_bcc_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(MissingError, match="python3-bpfcc"):
        Program("flows.bpf.c", {})


def test_the_other_project_of_that_name_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bcc.py").write_text("__version__ = '9'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    with pytest.raises(MissingError, match="another project of the same name"):
        Program("flows.bpf.c", {})
    sys.modules.pop("bcc", None)


def test_without_headers_the_package_is_named(
    require: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require("bpf")
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))
    with pytest.raises(MissingError, match="has no folder include"):
        Program("flows.bpf.c", {})


def test_nothing_of_the_package_imports_bcc_before_it_is_needed() -> None:
    code = (
        "import sys\n"
        "import perfmeasure.flows.commands, perfmeasure.checks\n"
        "assert 'bcc' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_programs_are_there() -> None:
    assert (BPF_FOLDER / "flows.bpf.c").is_file()


def test_the_memory_of_compiling_is_given_back(require: Callable[..., None]) -> None:
    require("root", "bpf")
    code = """
from pathlib import Path
from perfmeasure.flows import cgroup, loader
from perfmeasure.flows.connection_source import ConnectionSource

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

source = ConnectionSource(cgroup.mount_point())
before = resident()
loader.release_compiler()
after = resident()
source.snapshot(with_idle=True)
source.read()
ConnectionSource(cgroup.mount_point()).close()  # what was dropped comes back
source.close()
print(after / before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(ran.stdout) < 0.7
