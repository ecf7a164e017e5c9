"""An interface that is about to be captured: all that takes rights, before any thread is there.

Whoever has opened one may give up all rights (`perfmeasure.flows.privileges`) and record then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from perfmeasure.errors import MissingError
from perfmeasure.recorder.configuration import Setup
from perfmeasure.recorder.cutoff import KernelCutoff
from perfmeasure.recorder.filtersource import filter_source
from perfmeasure.recorder.libpcap import Filter
from perfmeasure.recorder.ring import Ring


class Capture:
    """A ring with its filters attached; packets flow when the ring is started.

    Args:
        interface: its name.
        setup: what is recorded.
        tell: is given a message if the kernel cannot help with cutoffs.
        is_cut_in_kernel: drop in the kernel what is past its cutoff, where this machine can.

    Attributes:
        ring: of the interface.
        kernel: what drops in the kernel, if anything does.

    Raises:
        UsageError: there is no such interface, or a filter is none.
        MissingError: the user may not capture, or there is no libpcap for the filter.
    """

    def __init__(
        self,
        interface: str,
        setup: Setup,
        tell: Callable[[str], None],
        *,
        is_cut_in_kernel: bool = True,
    ) -> None:
        self._tell = tell
        self.ring = Ring(interface, is_promiscuous=setup.is_promiscuous)
        self.kernel: KernelCutoff | None = None
        try:
            compiled = None
            if setup.filter:
                compiled = Filter(setup.filter, self.ring.link, "filter", interface)
                self.ring.attach_filter(compiled)
            if is_cut_in_kernel and any(c.cutoff_bytes is not None for c in setup.classes):
                self.kernel = self._load(setup.rules.timeout_seconds, compiled)
        except BaseException:
            self.ring.close()
            raise

    def _load(self, timeout_seconds: float, compiled: Filter | None) -> KernelCutoff | None:
        wanted = filter_source(compiled.instructions) if compiled is not None else ""
        if wanted is None:
            return None
        try:
            kernel = KernelCutoff(self.ring.link, timeout_seconds, self.ring.blocks_filled, wanted)
            self.ring.attach_program(kernel.program_fd)
        except MissingError as error:
            self._tell(f"{error}. What is past its cutoff is copied, and then left out")
            return None
        return kernel

    def close(self) -> None:
        """Stop capturing, and give the memory of the ring back."""
        self.ring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
