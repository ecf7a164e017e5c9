"""How the tests are shared out when several processes run them (pytest-xdist, ``-n``).

A pytest plugin, registered by tests/conftest.py. A file at a time goes to the process that is free.
Tests with the mark ``together`` and the same name stay in one process, however many files they are
in; they are begun first, since they take longest. Tests with the mark ``alone`` come last, when
nothing else runs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

from perfmeasure import jsonio

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

_ALONE = "alone"
_MOST_PROCESSES = 8
_GROUPS_PATH = pytest.StashKey[Path]()


def _group_of(item: pytest.Item) -> str:
    if item.get_closest_marker("alone") is not None:
        return _ALONE
    if "testnet" in getattr(item, "fixturenames", ()):
        return "testnet"  # it takes long to start, and is one for all tests of a process
    mark = item.get_closest_marker("together")
    return "" if mark is None else str(mark.args[0])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    groups = {item.nodeid: group for item in items if (group := _group_of(item))}
    items.sort(key=lambda item: {"": 1, _ALONE: 2}.get(groups.get(item.nodeid, ""), 0))
    # Whoever shares the tests out knows nothing of them but their names.
    if path := getattr(config, "workerinput", {}).get("groups_path"):
        Path(path).write_bytes(jsonio.canonical(groups))


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes ``-n auto`` is: tests often wait for what they started."""
    return min(len(os.sched_getaffinity(0)) + 1, _MOST_PROCESSES)


def pytest_configure_node(node: WorkerController) -> None:
    """Tell a process, before it starts, where to say what belongs together."""
    stash = node.config.stash
    if _GROUPS_PATH not in stash:
        folder = tempfile.TemporaryDirectory(prefix="perfmeasure-tests-")
        node.config.add_cleanup(folder.cleanup)
        stash[_GROUPS_PATH] = Path(folder.name) / "groups.json"
    node.workerinput["groups_path"] = str(stash[_GROUPS_PATH])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> AloneLast:
    return AloneLast(config, log)


class AloneLast(LoadScopeScheduling):  # type: ignore[misc] # xdist is not typed
    """Gives out files and groups; those alone when no other process is at work."""

    _groups: dict[str, str]

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False  # `pytest_collection_modifyitems` has done so
        # Each process has collected by now, and written the same.
        self._groups = jsonio.loads(self.config.stash[_GROUPS_PATH].read_bytes())
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid) or nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if _ALONE in self.workqueue:
            self.workqueue.move_to_end(_ALONE)  # behind what a process that died left
        if next(iter(self.workqueue)) != _ALONE:
            super()._assign_work_unit(node)
            return
        others = [other for other in self.nodes if other is not node]
        if not any(self._pending_of(self.assigned_work[other]) for other in others):
            super()._assign_work_unit(node)
        elif not all(other.shutting_down for other in others):
            node.shutdown()  # after what it has; somebody else stays for those alone

    def remove_node(self, node: WorkerController) -> str | None:
        crashed: str | None = super().remove_node(node)
        for other in self.nodes:
            self._reschedule(other)
        return crashed
