"""The hooks of a control group (cgroup v2): what its sockets send and receive is counted there.

A link ends with the process that holds it, whatever ends that: nothing is left attached.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmeasure.errors import MissingError
from perfmeasure.flows import bpfcall
from perfmeasure.flows.bpfcall import AttachType
from perfmeasure.flows.keys import EGRESS, INGRESS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FUNCTIONS = {"count_cgroup_ingress": "CGROUP_SKB", "count_cgroup_egress": "CGROUP_SKB"}
"""The functions of ``flows.bpf.c`` for control groups, and their kinds."""


@dataclass(frozen=True)
class GroupHook:
    """One direction of all sockets that were opened in a control group, or below it."""

    group: Path
    """Its folder."""
    direction: int
    """`INGRESS` or `EGRESS`."""

    @property
    def function(self) -> str:
        """The function of ``flows.bpf.c`` that counts here."""
        return "count_cgroup_egress" if self.direction == EGRESS else "count_cgroup_ingress"

    def attach(self, program_fds: Mapping[str, int]) -> int:
        """Attach the hook's function and return the link, which holds as long as it is open.

        Raises:
            MissingError: the group is gone, or the kernel refused.
        """
        kind = (
            AttachType.CGROUP_INET_EGRESS
            if self.direction == EGRESS
            else AttachType.CGROUP_INET_INGRESS
        )
        try:
            folder = os.open(self.group, os.O_RDONLY | os.O_DIRECTORY)
            try:
                return bpfcall.link_create(program_fds[self.function], folder, kind)
            finally:
                os.close(folder)
        except OSError as error:
            raise MissingError(
                f"control group {self.group}",
                f"cannot be attached to ({error.strerror})",
                next_step="run perfmeasure doctor flows",
            ) from error


def both_ways(group: Path) -> tuple[GroupHook, ...]:
    """Return where to count what the sockets of a group receive and send."""
    return GroupHook(group, INGRESS), GroupHook(group, EGRESS)


def interface_names() -> dict[int, str]:
    """Return the names of the interfaces there are now by what `keys.KEY` has in ``interface``.

    They are those of this process's network namespace, in which a measurement's children are, too.
    """
    return {index & 0xFFFF: name for index, name in socket.if_nameindex()}
