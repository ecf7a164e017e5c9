from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from perfmeasure.errors import MissingError
from perfmeasure.flows import btf, tracing
from perfmeasure.flows.connection_source import FILE_NAME, offsets
from perfmeasure.flows.loader import Program

pytestmark = pytest.mark.together("kernel", "they load programs and attach to the same places")


@pytest.fixture(scope="module")
def types(require: Callable[..., None]) -> btf.Types:
    require("root", "bpf")
    return btf.running_kernel()


@pytest.fixture(scope="module")
def program(types: btf.Types) -> Program:
    return Program(FILE_NAME, {}, {"IS_MACHINE_WIDE": 1, "RING_PAGES": 1, **offsets(types)})


def test_a_hook_that_the_kernel_lacks_is_named(program: Program, types: btf.Types) -> None:
    with pytest.raises(MissingError, match="no tracepoint tcp_no_such"):
        tracing.load_tracepoint(program, "on_state", "tcp_no_such", types)
    with pytest.raises(MissingError, match="no iterator no_such"):
        tracing.load_iterator(program, "on_snapshot", "no_such", types)


def test_the_verifier_is_heard(program: Program, types: btf.Types) -> None:
    # What a function finds at this tracepoint is no socket.
    with pytest.raises(MissingError, match=r"does not load it.*processed"):
        tracing.load_tracepoint(program, "on_probe", "sched_switch", types)


def test_an_iterator_is_run_over_what_is_there(program: Program, types: btf.Types) -> None:
    fd = tracing.load_iterator(program, "on_snapshot", "bpf_sk_storage_map", types)
    link = tracing.attach_iterator(fd, program.map_fd("storage"))
    tracing.iterate(link)
    os.close(link)
    with pytest.raises(OSError, match="descriptor"):
        tracing.iterate(link)
