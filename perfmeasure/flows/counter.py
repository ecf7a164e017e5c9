"""Counting on interfaces or in a control group: attached, swept, checked, detached.

with FlowCounter(hooks, length_ns=10**9) as counter:
    counter.start()
    while …:
        windows = counter.sweep()     # each one's conservation law has been checked
    windows = counter.stop()
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from perfmeasure import checks
from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall, interfaces
from perfmeasure.flows.accounting import Terms
from perfmeasure.flows.grouphooks import GroupHook
from perfmeasure.flows.keys import DIRECTIONS, Total
from perfmeasure.flows.windows import DEFAULT_FLOWS, Window, Windows
from perfmeasure.units import log_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from perfmeasure.flows.adaptive import Bounds
    from perfmeasure.flows.bpfcall import ProgramStatistics
    from perfmeasure.flows.interfaces import Hook


@dataclass(frozen=True)
class HookCount:
    """What one hook saw, and what its interface says of the same time.

    See bpf/README.md on where the two may rightly differ.
    """

    hook: Hook
    seen: Total
    interface: Total

    def fields(self) -> dict[str, Any]:
        """Return this as it stands in the JSON document."""
        return {
            "interface": self.hook.interface,
            "direction": DIRECTIONS[self.hook.direction],
            "hook": "xdp" if self.hook.is_xdp else "tc",
            "seen_packets": self.seen.packets,
            "seen_bytes": self.seen.bytes,
            "interface_packets": self.interface.packets,
            "interface_bytes": self.interface.bytes,
        }


class FlowCounter:
    """Counts on ``hooks``; a context manager, which leaves nothing attached.

    Args:
        hooks: where; see `interfaces.choose_hooks` and `grouphooks.both_ways`.
        length_ns: length of a window.
        max_flows: the room of a window's table.
        is_service_key: leave the client's port out of the key.
        bounds: between which lengths windows follow the load; they do not if it is None.
        definitions: what else the program is to do; see there.
        is_timed: have the kernel time all programs of the machine meanwhile, which costs each run.

    Raises:
        MissingError: this machine cannot load the program.
    """

    def __init__(
        self,
        hooks: Sequence[Hook | GroupHook],
        length_ns: int,
        max_flows: int = DEFAULT_FLOWS,
        *,
        is_service_key: bool = False,
        bounds: Bounds | None = None,
        definitions: Mapping[str, int] | None = None,
        is_timed: bool = True,
    ) -> None:
        right = checks.check_bpf_right()
        if right.status is checks.Status.MISSING:
            raise MissingError(right.name, right.found, next_step=right.remedy)
        self.hooks = tuple(hooks)
        self.interface_hooks = [hook for hook in hooks if not isinstance(hook, GroupHook)]
        self.terms = Terms()
        self._bounds = bounds
        self._is_timed = is_timed
        self.windows = Windows(
            length_ns,
            max_flows,
            is_service_key=is_service_key,
            is_adaptive=bounds is not None,
            definitions=definitions,
            functions=sorted({hook.function for hook in hooks}),
        )
        self.began_ns = 0
        self.ended_ns = 0
        self._open: list[int] = []
        self._interface_before: list[Total] = []
        self._interface_after: list[Total] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._detach()

    def start(self) -> None:
        """Attach everywhere, then begin to count on all hooks at one moment.

        Raises:
            MissingError: an interface or a group is gone, or has no such hook.
        """
        if self._is_timed:
            self._open.append(bpfcall.enable_statistics())
        fds = {hook.function: self.windows.program.fd(hook.function) for hook in self.hooks}
        for hook in self.hooks:
            link = hook.attach(fds) if isinstance(hook, GroupHook) else interfaces.attach(hook, fds)
            self._open.append(link)
        self._interface_before = [interfaces.read_statistics(hook) for hook in self.interface_hooks]
        self.began_ns = self.windows.begin()

    def sweep(self) -> list[Window]:
        """Return the windows that have ended, each checked.

        Raises:
            MeasurementError: packets are not accounted for.
        """
        swept = self._check(self.windows.sweep())
        if self._bounds is not None and swept:
            wanted_ns = self._bounds.next_length_ns(swept, self.windows.max_flows)
            self.windows.change_length(wanted_ns)
        return swept

    def stop(self) -> list[Window]:
        """Detach, and return the windows that are left, each checked; the total is checked, too.

        Raises:
            MeasurementError: packets are not accounted for.
        """
        self._detach()
        self.ended_ns = time.monotonic_ns()
        for hook, before in zip(self.interface_hooks, self._interface_before, strict=True):
            try:
                self._interface_after.append(interfaces.read_statistics(hook))
            except MissingError:  # it was taken away meanwhile, and its counters with it
                self._interface_after.append(before)
        swept = self._check(self.windows.finish())
        self.terms.check("all windows")
        return swept

    def hook_counts(self) -> list[HookCount]:
        """Return what each hook saw, after `stop`; a control group has no count of its own."""
        triples = zip(
            self.interface_hooks, self._interface_before, self._interface_after, strict=True
        )
        return [
            HookCount(
                hook,
                self.windows.hook_total(hook.index, hook.direction),
                after.minus(before),
            )
            for hook, before, after in triples
        ]

    def program_statistics(self) -> dict[str, ProgramStatistics]:
        """Return how often each program ran, and how long, while it was timed."""
        functions = sorted(self.windows.program.functions)
        return {
            name: bpfcall.program_statistics(self.windows.program.fd(name)) for name in functions
        }

    def _check(self, swept: list[Window]) -> list[Window]:
        for window in swept:
            window.terms.check(f"window of {log_stamp(window.begin_unix_ts)}")
            self.terms = self.terms.plus(window.terms)
        return swept

    def _detach(self) -> None:
        while self._open:
            os.close(self._open.pop())
